"""Reports the step that blocks the event loop.

Theory of operation: a timer on the loop counts beats. A thread samples, several times a second, which task the loop is
executing. While beats arrive, nothing is blocked. If no beat arrives and all samples for a second show the same task,
that task blocks the loop. A loop that is merely busy shows changing tasks, and is not reported.

A function that keeps the GIL also stops the sampling thread. The first sample after such a gap counts for the processor
time that the loop's thread used during the gap. If that thread used no processor time, the process was
suspended, or another thread kept the GIL.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.scope import Visit
from spine_async._engine.step.encoding import encode_result
from spine_async._engine.tasks import Task, TimerHandle, running_loop, task_of_loop

BLOCKED_AFTER = 1.0
"""Seconds for which one task must keep the loop to be reported."""

_BEAT_EVERY = 0.25
_SAMPLE_EVERY = 0.1
_LONG_GAP = 3 * _SAMPLE_EVERY  # seconds between two samples after which the thread was kept from running

_log = logging.getLogger("spine_async")


class LoopWatchdog:
    """Watches the loop in which it is created, from `start` to `stop`."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._loop = running_loop()
        self._loop_thread = threading.get_ident()
        self._beat_at = _Moment(0.0, 0.0)
        self._timer: TimerHandle | None = None
        self._running = threading.Lock()  # held until the thread is to end; an Event costs ten times as much
        self._running.acquire()

    def start(self) -> None:
        """Start the beat and the thread."""
        self._beat()
        threading.Thread(target=self._watch, name="spine_async loop watchdog", daemon=True).start()

    def stop(self) -> None:
        """End both."""
        if self._running.locked():
            self._running.release()
        if self._timer is not None:
            self._timer.cancel()

    def _beat(self) -> None:
        now_mono = time.monotonic()
        if self._timer is not None:
            self._runtime.measurements.loop_lagged(max(0.0, now_mono - self._beat_at.mono - _BEAT_EVERY))
        self._beat_at = _Moment(now_mono, time.thread_time())
        self._timer = self._loop.call_later(_BEAT_EVERY, self._beat)

    def _watch(self) -> None:
        cpu_clock = _cpu_clock(self._loop_thread)
        streak, is_reported = _Streak(self._beat_at), False
        while not self._running.acquire(timeout=_SAMPLE_EVERY):
            if self._beat_at is not streak.began:
                streak, is_reported = _Streak(self._beat_at), False
            try:
                now = _Moment(time.monotonic(), time.clock_gettime(cpu_clock) if cpu_clock is not None else 0.0)
            except OSError:  # the thread of the loop has ended, and the runner was not left
                return
            if streak.add(task_of_loop(self._loop), now) >= BLOCKED_AFTER and not is_reported:
                is_reported = True
                self._report(streak.task, now.mono - streak.began.mono)

    def _report(self, task: Task[Any] | None, seconds: float) -> None:
        codes = list(_running_code(self._loop_thread))
        if not codes or codes[0][1] == "select":
            return  # the loop waits for events: its thread does not get the processor
        visit = self._runtime.running_visits.get(task) if task is not None else None
        if visit is not None and any(code is encode_result.__code__ for code, _ in codes):
            _log.info("the event loop has been busy for %.1f s encoding the result of step %r", seconds, visit.path)
            return
        _log.warning(
            "the event loop has been blocked for %.1f s by %s; leases may expire", seconds, _description(visit)
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Moment:
    """A time, and the processor time that the loop's thread has used until then."""

    mono: float
    cpu: float


class _Streak:
    """Consecutive samples that show the same task, since a beat."""

    def __init__(self, began: _Moment) -> None:
        self.began = began
        self.task: Task[Any] | None = None
        self._last = began
        self._is_first = True
        self._seconds = 0.0

    def add(self, task: Task[Any] | None, now: _Moment) -> float:
        """Add a sample; returns for how many seconds the samples have shown this task."""
        gap = now.mono - self._last.mono
        if gap > _LONG_GAP:
            gap = max(_SAMPLE_EVERY, min(gap, now.cpu - self._last.cpu))
        self._seconds = self._seconds + gap if task is self.task or self._is_first else 0.0
        self.task, self._last, self._is_first = task, now, False
        return self._seconds


def _cpu_clock(thread: int) -> int | None:
    """The clock of the processor time of a thread, or None if the platform has none."""
    find = getattr(time, "pthread_getcpuclockid", None)
    return find(thread) if find is not None else None


def _running_code(thread: int) -> Iterator[tuple[object, str]]:
    """Code objects, with their names, of the functions that a thread is executing; the innermost first."""
    frame: FrameType | None = sys._current_frames().get(thread)  # noqa: SLF001 (documented, only named so)
    while frame is not None:
        yield frame.f_code, frame.f_code.co_name
        frame = frame.f_back


def _description(visit: Visit | None) -> str:
    if visit is None:
        return "code that is not a step of this runner"
    step = f"step {visit.path!r} of run {visit.run.run_id!r}"
    return f"{step} (define a blocking handler with def, so that it runs in a thread)"
