"""Thins matrices of parameters: the default suite runs each pair of values, and the rest is `long`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import combinations

import pytest


def mark_the_rest_as_long(items: Iterable[pytest.Item]) -> None:
    """Of the tests with the marker `pairs`, mark the cases as `long` of which each pair of values is in other cases."""
    tests: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("pairs") and isinstance(item, pytest.Function):
            tests[item.nodeid.partition("[")[0]].append(item)
    for cases in tests.values():
        for case in _dispensable(cases):
            case.add_marker("long")


def _dispensable(cases: list[pytest.Item]) -> list[pytest.Item]:
    """Cases that add no pair to those before them; of the others, those with the most new pairs come first."""
    left = [(case, _pairs(case)) for case in cases]
    seen: set[object] = set()
    for least in (3, 2, 1):
        rest = []
        for case, pairs in left:
            if len(pairs - seen) >= min(least, len(pairs)):
                seen |= pairs
            else:
                rest.append((case, pairs))
        left = rest
    return [case for case, _ in left]


def _pairs(case: pytest.Item) -> set[object]:
    assert isinstance(case, pytest.Function)
    values = [(name, value if isinstance(value, str) else repr(value)) for name, value in case.callspec.params.items()]
    return {frozenset(pair) for pair in combinations(values, 2)}
