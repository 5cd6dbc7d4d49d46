"""Counts how often the tasks of an event loop wait, and calls a function at the k-th wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any


class AwaitCounter:
    """Counts waits after `arm`; calls `act` when the count is `chosen`.

    Args:
        chosen: Which wait, from 1; 0 for none.
        act: Function to call then.
    """

    def __init__(self, chosen: int) -> None:
        self.count = 0
        self.chosen = chosen
        self.act: Callable[[], object] = lambda: None
        self._is_armed = False

    def arm(self, act: Callable[[], object]) -> None:
        self.act, self._is_armed = act, True

    def disarm(self) -> None:
        self._is_armed = False

    def waited(self) -> None:
        if self._is_armed:
            self.count += 1
            if self.count == self.chosen:
                self.act()

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Count the waits of all tasks that are created from now on."""

        def factory(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any) -> Any:
            return asyncio.Task(self._counted(coro), loop=loop, **options)

        loop.set_task_factory(factory)  # type: ignore[arg-type]

    async def _counted(self, coro: Coroutine[Any, Any, Any]) -> Any:
        return await _Counted(coro, self)


class _Counted(Awaitable[Any]):
    def __init__(self, coro: Coroutine[Any, Any, Any], counter: AwaitCounter) -> None:
        self._coro = coro
        self._counter = counter

    def __await__(self) -> Generator[Any, Any, Any]:
        resume: Callable[[], Any] = lambda: self._coro.send(None)  # noqa: E731 (replaced in the loop)
        while True:
            try:
                awaited = resume()
            except StopIteration as end:
                return end.value
            self._counter.waited()
            try:
                value = yield awaited
            except GeneratorExit:
                self._coro.close()
                raise
            except BaseException as exc:  # the loop throws into the task; pass it on to the coroutine
                resume = _throwing(self._coro, exc)
            else:
                resume = _sending(self._coro, value)


def _throwing(coro: Coroutine[Any, Any, Any], exc: BaseException) -> Callable[[], Any]:
    return lambda: coro.throw(exc)


def _sending(coro: Coroutine[Any, Any, Any], value: object) -> Callable[[], Any]:
    return lambda: coro.send(value)
