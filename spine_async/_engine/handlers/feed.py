"""Distributes the items of a map to its workers."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Generator, Iterable, Iterator, Mapping, Sized
from contextvars import Context, copy_context

import anyio
from pydantic import BaseModel

from spine_async._engine.state.interrupts import PROCESS_EXIT
from spine_async._engine.step.context_variables import with_own_variables
from spine_async._model.context import WorkflowContext
from spine_async._model.item_source import ItemCall, ItemPath, ItemSource, ItemStream
from spine_async.errors import StepError


class Feed:
    """Returns each item once, with its index; reads no items ahead.

    Attributes:
        taken: Number of items returned so far.
        total: Number of all items, or None while it is unknown.
    """

    def __init__(self, items: object, variables: Context) -> None:
        """The items.

        Args:
            items: What the step or its function gives.
            variables: The context in which they are read, so that the steps of the items do not see what a generator
                sets.
        """
        self.taken = 0
        self._variables = variables
        self.total: int | None = len(items) if isinstance(items, Sized) else None
        self._stream = aiter(items) if isinstance(items, AsyncIterable) else None
        self._plain = _iterator(items) if self._stream is None else iter(())
        self._lock = anyio.Lock()

    async def next(self) -> tuple[int, object] | None:
        """The next item with its index, or None when there are no more."""
        if self._stream is None:
            item = self._variables.run(next, self._plain, _END)
        else:
            async with self._lock:  # an async generator must not be resumed concurrently
                item = await with_own_variables(_next_of(self._stream), context=self._variables)
        if item is _END:
            self.total = self.taken
            return None
        self.taken += 1
        return self.taken - 1, item

    async def close(self) -> BaseException | None:
        """Close the iterator, so that it releases what it holds; returns the error that it raised.

        Any async iterator with an `aclose` method is closed. Of other iterators only generators are closed: an open
        file is an iterator too, and belongs to the code that opened it.
        """
        close = getattr(self._stream, "aclose", None)
        if close is None and isinstance(self._plain, Generator):
            close = self._plain.close
        if not callable(close):
            return None
        try:
            with anyio.CancelScope(shield=True):
                closing = self._variables.run(close)
                if inspect.isawaitable(closing):
                    await with_own_variables(closing, context=self._variables)
        except PROCESS_EXIT:
            raise
        except BaseException as exc:  # noqa: BLE001 - user code; the caller decides what becomes of the error
            return exc
        return None


_END = object()


async def _next_of(stream: AsyncIterator[object]) -> object:
    return await anext(stream, _END)


async def open_feed(source: ItemSource, context: WorkflowContext) -> Feed:
    """A feed of the items that `source` describes.

    Raises:
        StepError: The items do not exist or cannot be iterated; category CONFIGURATION.
    """
    items: object
    variables = copy_context()
    if isinstance(source, ItemCall):
        items = variables.run(source.function, context)
        if inspect.isawaitable(items):
            items = await with_own_variables(items, context=variables)
    elif isinstance(source, ItemPath):
        items = _found(source.path, context)
    else:
        items = source.take() if isinstance(source, ItemStream) else source.values
    return Feed(items, variables)


def _iterator(items: object) -> Iterator[object]:
    if isinstance(items, Iterable) and not isinstance(items, (str, bytes, set, frozenset)):
        return iter(items)
    message = f"the items of a map are of type {type(items).__name__}; they must be a list or another ordered iterable"
    raise StepError(message, category="CONFIGURATION")


def _found(path: str, context: WorkflowContext) -> object:
    if path in context.params:
        return context.params[path]
    for step in _prefixes(path):
        if context.has_output(step):
            return _inside(context.get_output(step), path[len(step) + 1 :], path)
    known = sorted([*context.params, *(f"{step}.…" for step in context.outputs)])
    message = (
        f"items_path {path!r} is neither a param nor inside an earlier output; available: {', '.join(known) or 'none'}"
    )
    raise StepError(message, category="CONFIGURATION")


def _prefixes(path: str) -> list[str]:
    """Names of steps that the path may begin with, longest first, because names may contain dots."""
    parts = path.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]


def _inside(value: object, rest: str, path: str) -> object:
    for key in rest.split(".") if rest else ():
        if isinstance(value, BaseModel) and hasattr(value, key):
            value = getattr(value, key)
        elif isinstance(value, Mapping) and key in value:
            value = value[key]
        else:
            raise StepError(f"items_path {path!r}: the output does not contain {key!r}", category="CONFIGURATION")
    return value
