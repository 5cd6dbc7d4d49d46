"""Time that passes only when everybody waits for it: hours of retries and waits in milliseconds, always the same.

Theory of operation: asyncio computes from its own `time()` how long it may sleep in its selector until the next timer
is due. Here that sleep is not slept: where no file is ready and no worker thread is busy, the loop's time goes forward
by exactly that much. So timers fire in their order, at their moment, and at once. What waits for the world outside (a
database server, a subprocess) is seen only as files that are not ready: such tests belong on a real clock.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

import anyio

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

ResultT = TypeVar("ResultT")

VIRTUAL_START = datetime(2026, 1, 1, tzinfo=UTC)

_POLL = 0.01
_PATIENCE = 5.0


def has_busy_threads() -> bool:
    """Whether one of anyio's worker threads is at work, so that time must not jump.

    Source: `idle_workers` is an attribute of anyio's `WorkerThread` (4.x); threads without it are not looked at.
    """
    workers = ((each, getattr(each, "idle_workers", None)) for each in threading.enumerate())
    return any(idle is not None and each not in idle for each, idle in workers)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer whenever it would idle.

    Args:
        is_busy: Whether something outside of the loop is at work that it must really wait for; the default looks at
            anyio's worker threads. `lambda: False` for tests in which a thread hangs on purpose.

    Raises:
        RuntimeError: Out of the run, when every task waits, no timer is set and nothing from outside came for 5 s.
    """

    def __init__(self, is_busy: Callable[[], bool] = has_busy_threads) -> None:
        self._virtual_now = 0.0
        super().__init__(_JumpingSelector(self._advance, is_busy))

    def time(self) -> float:
        """Seconds of virtual time since the loop was made."""
        return self._virtual_now

    def _advance(self, seconds: float) -> None:
        self._virtual_now += seconds


class VirtualClock:
    """A `spine_async.ports.Clock` that reads the running loop's time; in a worker thread, that of the last loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def now(self) -> datetime:
        return VIRTUAL_START + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            if self._loop is None:
                raise
        return self._loop.time()


def run_virtual(
    function: Callable[[], Awaitable[ResultT]], *, is_busy: Callable[[], bool] = has_busy_threads
) -> ResultT:
    """Run `function` to its end on a virtual clock.

    In a pytest suite with anyio's plugin, a fixture `anyio_backend` that returns
    `("asyncio", {"loop_factory": VirtualTimeLoop})` does the same for async tests.

    Args:
        function: Takes nothing and returns an awaitable.
        is_busy: See `VirtualTimeLoop`.

    Example:
        >>> async def nap() -> float:
        ...     await anyio.sleep(3600)
        ...     return anyio.current_time()
        >>> run_virtual(nap)
        3600.0
    """
    return anyio.run(function, backend_options={"loop_factory": lambda: VirtualTimeLoop(is_busy)})


class _JumpingSelector(selectors.BaseSelector):
    """A selector that moves time instead of sleeping."""

    def __init__(self, advance: Callable[[float], None], is_busy: Callable[[], bool]) -> None:
        self._real = selectors.DefaultSelector()
        self._advance = advance
        self._is_busy = is_busy

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        while self._is_busy():
            ready = self._real.select(_POLL)
            if ready:
                return ready
        if timeout is None:
            return self._wait_for_outside()
        ready = self._real.select(0)  # what a thread handed over just before it became idle comes first
        if not ready:
            self._advance(timeout)
        return ready

    def _wait_for_outside(self) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(_PATIENCE)
        if not ready and not self._is_busy():
            raise RuntimeError("every task waits for something that cannot come: no timer is set, no thread is at work")
        return ready

    def register(self, fileobj: FileDescriptorLike, events: int, data: object = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def get_map(self) -> Mapping[FileDescriptorLike, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()
