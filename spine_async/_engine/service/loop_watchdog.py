"""Notices that the event loop is blocked, and says by which step.

A blocked loop renews no leases and reaches no deadline, and nothing that runs on it can tell. So a thread waits for the
watcher's beat; when that stays away, it looks which task the loop is executing and names the step of it.
"""

from __future__ import annotations

import logging
import threading
import time

from spine_async._engine.runtime.runtime import Engine
from spine_async._engine.tasks import blocking_task, running_loop

BLOCKED_AFTER = 1.0
"""Seconds without a beat after which the loop counts as blocked."""

_log = logging.getLogger("spine_async")


class LoopWatchdog:
    """A thread that is started with the first beat, so that short runs never have one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._loop = running_loop()
        self._beat_mono = 0.0
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def beat(self) -> None:
        """The loop is alive."""
        self._beat_mono = time.monotonic()
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="spine_async loop watchdog", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Let the thread end."""
        self._is_over.set()

    def _watch(self) -> None:
        reported = 0.0
        while not self._is_over.wait(BLOCKED_AFTER / 2):
            beat = self._beat_mono
            blocked = time.monotonic() - beat
            if blocked > BLOCKED_AFTER and beat != reported:
                reported = beat
                _log.warning("the event loop is blocked for %.1f s by %s; its leases are at risk", blocked, self._by())

    def _by(self) -> str:
        task = blocking_task(self._loop)
        visit = self._engine.at_work.get(task) if task is not None else None
        if visit is None:
            return "something that is not a step of this runner"
        return (
            f"step {visit.path!r} of run {visit.run.run_id!r}; an async step must await, a blocking one must be a def"
        )
