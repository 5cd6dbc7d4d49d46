"""Background loop of the active runs: the wall clock, stuck steps, delayed `step_started` events, leases, notices.

One task serves all runs of a runner, a few times a second, as long as there are any. It never waits for the store.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from spine_async._engine.runtime.changes import Change
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.service.announcements import announce_visits
from spine_async._engine.service.leases import LeaseKeeper
from spine_async._engine.service.loop_watchdog import LoopWatchdog
from spine_async._engine.service.notices import NoticeReader
from spine_async._engine.service.stuck_steps import mark_stuck_runs
from spine_async._engine.state.run import Run

CHECK_INTERVAL = 0.25
"""Longest time in seconds between two checks."""

_CHECKS_PER_LEASE = 12

_log = logging.getLogger("spine_async")


class Watcher:
    """Checks the active runs regularly.

    Args:
        runtime: What all runs share.
        runs: The active runs by id; changes while the watcher runs.

    Attributes:
        is_watching: False after its last check of the runs, although its calls of the store may not have ended yet.
    """

    def __init__(self, runtime: Runtime, runs: Mapping[str, Run]) -> None:
        self._runtime = runtime
        self._runs = runs
        self._watchdog = LoopWatchdog(runtime)
        self._leases = LeaseKeeper(runtime)
        self._notices = NoticeReader(runtime, runs)
        self._interval = min(CHECK_INTERVAL, runtime.config.lease_ttl / _CHECKS_PER_LEASE)
        self.is_watching = True
        self._watchdog.start()  # not in `watch`: the first step may block the loop before that task begins

    async def watch(self) -> None:
        """Check the runs until there are none."""
        changes = self._runtime.changes
        try:
            seen = changes.count(Change.NOTICE)
            while self._runs:
                has_changed = await changes.wait(Change.NOTICE, self._interval, seen)
                seen = changes.count(Change.NOTICE)
                try:
                    self._check(self._runtime.clock.monotonic(), has_changed=has_changed)
                except Exception:  # noqa: BLE001 - without the watcher every lease would be lost
                    _log.exception("checking the active runs failed; it will be retried")
        finally:
            self.is_watching = False
            self._watchdog.stop()
            await self._leases.end()
            await self._notices.end()

    def _check(self, now_mono: float, *, has_changed: bool) -> None:
        self._notices.check(now_mono, has_changed=has_changed)
        self._runtime.wall_clock.check()
        runs = [run for run in self._runs.values() if run.pending.end is None]
        self._leases.check(runs, now_mono)
        mark_stuck_runs(runs, now_mono, self._runtime.config.cancel_grace)
        announce_visits(self._runtime, runs, now_mono)
