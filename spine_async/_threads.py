"""Plain functions in worker threads: bounded, and with an account of those that had to be left behind.

A thread cannot be interrupted. Where its caller is cancelled the thread is left to itself and what it returns is thrown
away; until it ends it is counted, and beyond a limit nothing further is begun, so that timeouts cannot pile up threads.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

import anyio
from anyio import to_thread

from spine_async.errors import StepError

ValueT = TypeVar("ValueT")

_log = logging.getLogger("spine_async")


class WorkerThreads:
    """Runs plain functions in threads of its own limiter, never in the loop's default executor.

    Args:
        limit: Functions at work at once.
        max_abandoned: Threads left behind, beyond which `call` refuses.
        report: Is told +1 when a thread is left behind and -1 when it ends; may be called from a thread.
    """

    def __init__(self, limit: int, max_abandoned: int, report: Callable[[int], None] | None = None) -> None:
        self._limit = limit
        self._max_abandoned = max_abandoned
        self._report = report
        self._limiter: anyio.CapacityLimiter | None = None
        self._left: dict[_Job, str] = {}
        self._lock = threading.Lock()

    @property
    def abandoned(self) -> int:
        """Threads that were left behind and are still at work."""
        return len(self._left)

    async def call(self, name: str, function: Callable[..., ValueT], *args: object) -> ValueT:
        """Call `function(*args)` in a thread, with the caller's context variables.

        Raises:
            StepError: Too many threads were left behind and are still at work.

        Cancellation:
            Returns at once; the thread goes on by itself.
        """
        if len(self._left) >= self._max_abandoned:
            names = ", ".join(sorted(set(self._left.values())))
            told = f"{len(self._left)} threads left behind by timeouts are still at work ({names}); none is begun"
            raise StepError(told)
        job = _Job(self._ended)
        try:
            return await to_thread.run_sync(
                job.run, function, args, abandon_on_cancel=True, limiter=self._thread_limiter()
            )
        except anyio.get_cancelled_exc_class():
            self._leave(job, name)
            raise

    def forget_loop(self) -> None:
        """Drop what belongs to the event loop."""
        self._limiter = None

    def _thread_limiter(self) -> anyio.CapacityLimiter:
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(self._limit)
        return self._limiter

    def _leave(self, job: _Job, name: str) -> None:
        with self._lock:
            if not job.is_at_work:
                return
            self._left[job] = name
        _log.warning(
            "step %s was cancelled while in a thread; the thread is left behind (%d now)", name, self.abandoned
        )
        if self._report is not None:
            self._report(1)

    def _ended(self, job: _Job) -> None:
        with self._lock:
            job.is_at_work = False
            was_left = self._left.pop(job, None) is not None
        if was_left and self._report is not None:
            self._report(-1)


class _Job:
    """One call in a thread."""

    def __init__(self, ended: Callable[[_Job], None]) -> None:
        self.is_at_work = False
        self._ended = ended

    def run(self, function: Callable[..., ValueT], args: tuple[object, ...]) -> ValueT:
        self.is_at_work = True
        try:
            return function(*args)
        finally:
            self._ended(self)
