"""Sources of the items of a map."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from spine_async._model.shown import shown
from spine_async.errors import DefinitionError, StepError

if TYPE_CHECKING:
    from spine_async._model.context import WorkflowContext

Items: TypeAlias = "Iterable[object] | AsyncIterable[object]"


@dataclass(frozen=True, slots=True)
class ItemPath:
    """Items in the params, or in an output as `step.key`."""

    path: str


@dataclass(frozen=True, slots=True)
class ItemCall:
    """Items that a function of the context returns."""

    function: Callable[[WorkflowContext], object]


@dataclass(frozen=True, slots=True)
class ItemValues:
    """Items given with the definition, which each execution of the map can iterate anew."""

    values: Items


@dataclass(slots=True)
class ItemStream:
    """An iterator given with the definition; it can be consumed only once."""

    values: Items
    is_used: bool = field(default=False, init=False)

    def take(self) -> Items:
        """Return the iterator.

        Raises:
            StepError: It was returned before. A second execution would silently skip items.
        """
        if self.is_used:
            raise StepError(
                "items is an iterator that has been consumed; pass a list, or a function that returns the items",
                category="CONFIGURATION",
            )
        self.is_used = True
        return self.values


ItemSource: TypeAlias = ItemPath | ItemCall | ItemValues | ItemStream


def as_item_source(items: object, items_path: str | None, *, step: str) -> ItemSource:
    """The source for the arguments `items` and `items_path` of `Step.map`.

    Raises:
        DefinitionError: Neither or both are given, or they are of the wrong kind.
    """
    if (items is None) == (items_path is None):
        raise DefinitionError("a map takes exactly one of items and items_path", step=step)
    if items_path is not None:
        if not isinstance(items_path, str) or not items_path:
            raise DefinitionError(f"items_path is {shown(items_path)}; it must be a key or 'step.key'", step=step)
        return ItemPath(items_path)
    return _as_values(items, step)


def check_tolerance(tolerated: object) -> None:
    """Raise `ValueError` unless `tolerated` is a count of at least 0 or a share between 0 and 1."""
    is_number = isinstance(tolerated, (int, float)) and not isinstance(tolerated, bool)
    if not is_number or tolerated < 0:  # type: ignore[operator]
        raise ValueError(
            f"tolerated_failures is {shown(tolerated)}; it must be a count of at least 0 or a share up to 1.0"
        )
    if isinstance(tolerated, float) and not tolerated <= 1:
        raise ValueError(
            f"tolerated_failures is {shown(tolerated)}; a float is a share and must lie between 0.0 and 1.0"
        )


def _as_values(items: object, step: str) -> ItemSource:
    if isinstance(items, (str, bytes)):
        raise DefinitionError("items is a string; pass a list of strings, or items_path", step=step)
    if isinstance(items, (set, frozenset)):
        raise DefinitionError("items is a set, whose order changes between processes; sort it into a list", step=step)
    if isinstance(items, (Iterator, AsyncIterator)):
        return ItemStream(items)
    if isinstance(items, (Iterable, AsyncIterable)):
        return ItemValues(tuple(items) if isinstance(items, list) else items)
    if callable(items):
        return ItemCall(items)
    raise DefinitionError(
        f"items is of type {type(items).__name__}; it must be an iterable, an async iterable or a function", step=step
    )
