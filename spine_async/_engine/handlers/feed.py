"""The items of a map, one at a time, to many workers."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator, Mapping, Sized

import anyio
from pydantic import BaseModel

from spine_async._model.context import WorkflowContext
from spine_async._model.item_source import ItemCall, ItemPath, ItemSource, ItemStream
from spine_async.errors import StepError


class Feed:
    """Gives each item once, with its index; reads no further ahead than it is asked.

    Attributes:
        taken: Items given so far.
        total: How many there are, or None while that is not known.
    """

    def __init__(self, items: object) -> None:
        self.taken = 0
        self.total: int | None = len(items) if isinstance(items, Sized) else None
        self._stream = aiter(items) if isinstance(items, AsyncIterable) else None
        self._plain = _iterator(items) if self._stream is None else iter(())
        self._lock = anyio.Lock()

    async def next(self) -> tuple[int, object] | None:
        """The next item with its index, or None when there are no more."""
        if self._stream is None:
            item = next(self._plain, _END)
        else:
            async with self._lock:  # an async generator must not be entered twice at once
                item = await anext(self._stream, _END)
        if item is _END:
            self.total = self.taken
            return None
        self.taken += 1
        return self.taken - 1, item

    async def close(self) -> None:
        """Let an async generator that was not read to its end clean up."""
        if isinstance(self._stream, AsyncGenerator):
            with anyio.CancelScope(shield=True):
                await self._stream.aclose()


_END = object()


async def open_feed(source: ItemSource, context: WorkflowContext) -> Feed:
    """The items that `source` stands for.

    Raises:
        StepError: There are no such items, or what is there cannot be gone through; category CONFIGURATION.
    """
    items: object
    if isinstance(source, ItemCall):
        items = source.function(context)
        if inspect.isawaitable(items):
            items = await items
    elif isinstance(source, ItemPath):
        items = _found(source.path, context)
    else:
        items = source.take() if isinstance(source, ItemStream) else source.values
    return Feed(items)


def _iterator(items: object) -> Iterator[object]:
    if isinstance(items, Iterable) and not isinstance(items, (str, bytes, set, frozenset)):
        return iter(items)
    told = f"the items of a map are of type {type(items).__name__}; it takes a list or another ordered iterable"
    raise StepError(told, category="CONFIGURATION")


def _found(path: str, context: WorkflowContext) -> object:
    if path in context.params:
        return context.params[path]
    for step in _prefixes(path):
        if context.has_output(step):
            return _inside(context.get_output(step), path[len(step) + 1 :], path)
    known = sorted([*context.params, *(f"{step}.…" for step in context.outputs)])
    told = (
        f"items_path {path!r} is neither a param nor inside an earlier output; there are {', '.join(known) or 'none'}"
    )
    raise StepError(told, category="CONFIGURATION")


def _prefixes(path: str) -> list[str]:
    """Names of steps that the path may begin with, the longest first; names may have dots themselves."""
    parts = path.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]


def _inside(value: object, rest: str, path: str) -> object:
    for key in rest.split(".") if rest else ():
        if isinstance(value, BaseModel) and hasattr(value, key):
            value = getattr(value, key)
        elif isinstance(value, Mapping) and key in value:
            value = value[key]
        else:
            raise StepError(f"items_path {path!r}: the output has no {key!r}", category="CONFIGURATION")
    return value
