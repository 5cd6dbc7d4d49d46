"""Reports a step that blocks the event loop.

While the loop is blocked nothing on it can report that, so this is a thread. It waits for the watcher's heartbeat. If
the heartbeat is late, it looks up which task the loop is executing, and names the step of that task.
"""

from __future__ import annotations

import logging
import threading
import time

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.tasks import running_loop, task_of_loop

BLOCKED_AFTER = 1.0
"""Seconds without a heartbeat after which the loop counts as blocked."""

_log = logging.getLogger("spine_async")


class LoopWatchdog:
    """A thread that starts with the first heartbeat, so that short runs need none."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._loop = running_loop()
        self._beat_mono = 0.0
        self._is_stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def beat(self) -> None:
        """Report that the loop is not blocked."""
        self._beat_mono = time.monotonic()
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="spine_async loop watchdog", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._is_stopped.set()

    def _watch(self) -> None:
        reported = 0.0
        while not self._is_stopped.wait(BLOCKED_AFTER / 2):
            beat = self._beat_mono
            blocked = time.monotonic() - beat
            if blocked > BLOCKED_AFTER and beat != reported:
                reported = beat
                _log.warning(
                    "the event loop is blocked for %.1f s by %s; its leases are at risk", blocked, self._blocker()
                )

    def _blocker(self) -> str:
        task = task_of_loop(self._loop)
        visit = self._runtime.running_visits.get(task) if task is not None else None
        if visit is None:
            return "something that is not a step of this runner"
        return (
            f"step {visit.path!r} of run {visit.run.run_id!r}; an async step must await, a blocking one must be a def"
        )
