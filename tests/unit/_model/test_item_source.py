from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from spine_async._model.item_source import ItemCall, ItemPath, ItemStream, ItemValues, as_item_source, check_tolerance
from spine_async.errors import DefinitionError, StepError


async def numbers() -> AsyncIterator[int]:
    yield 1


class Endless:
    """An async iterable that can be iterated several times."""

    def __aiter__(self) -> AsyncIterator[int]:
        return numbers()


def test_a_list_is_copied() -> None:
    given = [1, 2]
    source = as_item_source(given, None, step="m")
    given.append(3)
    assert source == ItemValues((1, 2))


@pytest.mark.parametrize("values", [(1, 2), range(5), {"a": 1}, Endless()])
def test_what_can_be_gone_through_again_is_kept(values: Any) -> None:
    assert as_item_source(values, None, step="m") == ItemValues(values)


def test_a_function_is_called_when_the_map_runs() -> None:
    assert isinstance(as_item_source(lambda context: [1], None, step="m"), ItemCall)


def test_a_path_is_looked_up_when_the_map_runs() -> None:
    assert as_item_source(None, "load.symbols", step="m") == ItemPath("load.symbols")


@pytest.mark.parametrize("make", [lambda: iter([1]), numbers, lambda: (n for n in "ab")])
def test_an_iterator_can_be_taken_once(make: Any) -> None:
    values = make()
    source = as_item_source(values, None, step="m")
    assert isinstance(source, ItemStream)
    assert source.take() is values
    with pytest.raises(StepError, match="items is an iterator that has been consumed") as caught:
        source.take()
    assert caught.value.category == "CONFIGURATION"


@pytest.mark.parametrize(
    ("items", "path", "message"),
    [
        (None, None, "step 'm': a map takes exactly one of items and items_path"),
        ([1], "load", "step 'm': a map takes exactly one of items and items_path"),
        (None, "", "step 'm': items_path is ''; it must be a key or 'step.key'"),
        ("abc", None, "step 'm': items is a string; pass a list of strings, or items_path"),
        (b"abc", None, "step 'm': items is a string"),
        ({1, 2}, None, "step 'm': items is a set, whose order changes between processes; sort it into a list"),
        (7, None, "step 'm': items is of type int; it must be an iterable, an async iterable or a function"),
    ],
)
def test_items_that_cannot_be_any_are_refused(items: object, path: str | None, message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        as_item_source(items, path, step="m")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("tolerated", [0, 5, 0.0, 0.25, 1.0])
def test_failures_are_tolerated_as_a_count_or_a_share(tolerated: float) -> None:
    check_tolerance(tolerated)


@pytest.mark.parametrize("tolerated", [-1, -0.5, 1.5, float("nan"), True, None, "3"])
def test_a_tolerance_that_is_neither_is_refused(tolerated: object) -> None:
    with pytest.raises(ValueError, match=r"tolerated_failures is "):
        check_tolerance(tolerated)
