"""Virtual time: an event loop in which hours of retries and waits take milliseconds, deterministically.

Theory of operation: asyncio passes to the selector the number of seconds until the next timer. Here the selector does
not sleep. If no file is ready and no worker thread is busy, it advances the time of the loop by that number of seconds.
Timers fire in order, at their virtual time, without delay. The loop cannot detect pending work of external processes (a
database server, a subprocess), so tests that need them must use a real clock.
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

_POLL = 0.01  # seconds
_LONGEST_IDLE = 5.0  # seconds


def has_busy_threads() -> bool:
    """Whether a worker thread of anyio is busy; time must not advance then.

    Source: `idle_workers` is an attribute of anyio's `WorkerThread` (4.x). Threads without it are ignored.
    """
    workers = ((each, getattr(each, "idle_workers", None)) for each in threading.enumerate())
    return any(idle is not None and each not in idle for each, idle in workers)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose time advances to the next timer when the loop is idle.

    Args:
        is_busy: Returns whether the loop must wait in real time, because work outside the loop is in progress. The
            default checks the worker threads of anyio; use `lambda: False` if a thread hangs deliberately.

    Raises:
        RuntimeError: Raised while the loop runs, if every task waits, no timer is set, and no file becomes ready for 5
            seconds.
    """

    def __init__(self, is_busy: Callable[[], bool] = has_busy_threads) -> None:
        self._virtual_now = 0.0
        super().__init__(_JumpingSelector(self._advance, is_busy))

    def time(self) -> float:
        """Seconds of virtual time since the loop was created."""
        return self._virtual_now

    def _advance(self, seconds: float) -> None:
        self._virtual_now += seconds


class VirtualClock:
    """A `spine_async.ports.Clock` that reads the time of the running loop; in a thread, that of the last loop used."""

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
    """Run `function` on a virtual clock and return its result.

    For async tests with the pytest plugin of anyio, use a fixture `anyio_backend` that returns
    `("asyncio", {"loop_factory": VirtualTimeLoop})` instead.

    Args:
        function: Function without arguments that returns an awaitable.
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
    """A selector that advances the time instead of sleeping."""

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
        ready = self._real.select(0)  # a thread may have delivered a result just before it became idle
        if not ready:
            self._advance(timeout)
        return ready

    def _wait_for_outside(self) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(_LONGEST_IDLE)
        if not ready and not self._is_busy():
            raise RuntimeError("deadlock: every task waits, no timer is set and no thread is busy")
        return ready

    def register(self, fileobj: FileDescriptorLike, events: int, data: object = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def get_map(self) -> Mapping[FileDescriptorLike, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()
