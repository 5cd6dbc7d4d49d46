"""Runs plain functions in a limited number of worker threads.

A thread cannot be interrupted. If the caller is cancelled, the thread is abandoned: it continues, and its result is
discarded. Abandoned threads are counted until they end. At a limit further calls are refused, so that timeouts cannot
accumulate threads. A call that is cancelled before its thread has begun never begins.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeVar

import anyio
from anyio import to_thread

from spine_async.errors import StepError

ValueT = TypeVar("ValueT")

RAISED_GENERATOR_EXIT = "GeneratorExit was raised, with which Python closes a generator"
"""Error text of a step that failed with a `GeneratorExit` of its own."""

_POLL = 0.01  # seconds until the first look at abandoned threads
_MAX_POLL = 0.25  # seconds between two checks of threads that were abandoned long ago

_log = logging.getLogger("spine_async")


class AbandonedThreads:
    """The abandoned threads of one run that are still running; threads add and remove them."""

    def __init__(self) -> None:
        self._left: dict[_Job, str] = {}

    @property
    def names(self) -> list[str]:
        """The names of their steps or pipelines."""
        return sorted(set(self._left.copy().values()))

    async def wait_ended(self) -> None:
        """Wait until none of them is running."""
        pause = _POLL
        while self._left:  # they end outside of the event loop
            await anyio.sleep(pause)
            pause = min(2 * pause, _MAX_POLL)

    def add(self, job: _Job, name: str) -> None:
        """Add a thread that was just abandoned."""
        self._left[job] = name

    def remove(self, job: _Job) -> None:
        """Remove a thread that has ended; has no effect for any other."""
        self._left.pop(job, None)


run_threads: ContextVar[AbandonedThreads | None] = ContextVar("spine_async_run_threads", default=None)
"""The abandoned threads of the run whose task this is."""


class WorkerThreads:
    """Runs plain functions in threads with a limiter of its own, never in the default executor of the event loop.

    Args:
        limit: Maximum number of functions that run at the same time.
        max_abandoned: Number of abandoned threads at which `call` refuses.
        report: Called with +1 when a thread is abandoned and with -1 when it ends, possibly in a thread.
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
        """Number of abandoned threads that are still running."""
        return len(self._left)

    async def call(self, name: str, function: Callable[..., ValueT], *args: object) -> ValueT:
        """Call `function(*args)` in a thread, with the caller's context variables.

        Raises:
            StepError: Too many abandoned threads are still running.

        Cancellation:
            Takes effect at once; the thread is abandoned.
        """
        if len(self._left) >= self._max_abandoned:
            names = ", ".join(sorted(set(self._left.values())))
            message = f"{self.abandoned} abandoned threads are still running ({names}); no further thread is started"
            raise StepError(message)
        job = _Job(self._begun, self._ended)
        try:
            return await to_thread.run_sync(
                job.run, function, args, abandon_on_cancel=True, limiter=self._thread_limiter()
            )
        except anyio.get_cancelled_exc_class():
            self._leave(job, name)
            raise

    def forget_loop(self) -> None:
        """Discard the limiter, which belongs to the event loop."""
        self._limiter = None

    def _thread_limiter(self) -> anyio.CapacityLimiter:
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(self._limit)
        return self._limiter

    def _leave(self, job: _Job, name: str) -> None:
        with self._lock:
            if not job.is_running:
                job.is_cancelled = True  # its thread may be about to begin
                return
            self._left[job] = name
            if job.run_threads is not None:
                job.run_threads.add(job, name)
        _log.warning(
            "step %s was cancelled; its thread is abandoned (%d abandoned threads are running)", name, self.abandoned
        )
        if self._report is not None:
            self._report(1)

    def _begun(self, job: _Job) -> bool:
        with self._lock:
            job.is_running = not job.is_cancelled
        return job.is_running

    def _ended(self, job: _Job) -> None:
        with self._lock:
            job.is_running = False
            was_left = self._left.pop(job, None) is not None
            if was_left and job.run_threads is not None:
                job.run_threads.remove(job)
        if was_left and self._report is not None:
            self._report(-1)


class _Job:
    """One call in a thread."""

    def __init__(self, begun: Callable[[_Job], bool], ended: Callable[[_Job], None]) -> None:
        self.is_running = False
        self.is_cancelled = False
        self.run_threads = run_threads.get()
        self._begun = begun
        self._ended = ended

    def run(self, function: Callable[..., ValueT], args: tuple[object, ...]) -> ValueT:
        if not self._begun(self):
            raise StepError("the call was cancelled before it began")  # nobody waits for it
        try:
            return function(*args)
        except GeneratorExit as exc:  # the coroutine that waits for the thread would be closed, instead of failing
            raise StepError(RAISED_GENERATOR_EXIT) from exc
        finally:
            self._ended(self)
