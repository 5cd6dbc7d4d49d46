"""Chooses the cases of tests that the default suite runs; the others become `long`.

The tests of the stores (`tests/storage`) run with each store, so a test of the engine runs with one database: some with
SQLite, others with PostgreSQL. With another version of Python the choice is another one.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations
from zlib import crc32

import pytest

_DATABASES = ("sqlite", "postgres")
_STORES = ("memory", *_DATABASES)
_OF_STORES = "tests/storage/"


def mark_the_rest_as_long(items: Iterable[pytest.Item]) -> None:
    """Mark the cases with another database as `long`, and of tests with the markers `pairs` and `sample` most cases."""
    tests: dict[str, list[pytest.Function]] = defaultdict(list)
    for item in items:
        if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            tests[item.nodeid.partition("[")[0]].append(item)
    for name, cases in tests.items():
        left = cases if name.startswith(_OF_STORES) else _of_one_database(name, cases)
        if cases[0].get_closest_marker("pairs"):
            left = _with_new_pairs(left)
        if sample := cases[0].get_closest_marker("sample"):
            every = min(sample.kwargs["every"], len(left))
            left = left[sys.version_info.minor % every :: every]
        for case in set(cases) - set(left):
            case.add_marker("long")


def _of_one_database(name: str, cases: Sequence[pytest.Function]) -> Sequence[pytest.Function]:
    """The cases with the one database of this test, and those that name no store."""
    stores = {case: {value for value in case.callspec.params.values() if value in _STORES} for case in cases}
    used = [each for each in _DATABASES if any(each in names for names in stores.values())]
    if not used:
        return cases
    chosen = used[(crc32(name.encode()) + sys.version_info.minor) % len(used)]
    return [case for case, names in stores.items() if not names or chosen in names]


def _with_new_pairs(cases: Sequence[pytest.Function]) -> list[pytest.Function]:
    """Cases that contain all pairs of values; those with the most new pairs come first."""
    left = [(case, _pairs(case)) for case in cases]
    seen: set[object] = set()
    kept = []
    for least in (3, 2, 1):
        rest = []
        for case, pairs in left:
            if len(pairs - seen) >= min(least, len(pairs)):
                seen |= pairs
                kept.append(case)
            else:
                rest.append((case, pairs))
        left = rest
    return kept


def _pairs(case: pytest.Function) -> set[object]:
    values = [(name, value if isinstance(value, str) else repr(value)) for name, value in case.callspec.params.items()]
    return {frozenset(pair) for pair in combinations(values, 2)}
