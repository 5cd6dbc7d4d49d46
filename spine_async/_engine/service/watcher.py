"""Background loop of the active runs: the wall clock, stuck steps, delayed `step_started` events, leases.

One task serves all runs of a runner, a few times a second, as long as there are any.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import anyio

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.service.announcements import announce_visits
from spine_async._engine.service.leases import renew_leases
from spine_async._engine.service.loop_watchdog import LoopWatchdog
from spine_async._engine.service.stuck_steps import mark_stuck_runs
from spine_async._engine.state.scope import Run

CHECK_INTERVAL = 0.25
"""Seconds between two checks."""

_RENEWALS_PER_LEASE = 3

_log = logging.getLogger("spine_async")


class Watcher:
    """Checks the active runs regularly.

    Args:
        runtime: What all runs share.
        runs: The active runs by id; changes while the watcher runs.
    """

    def __init__(self, runtime: Runtime, runs: Mapping[str, Run]) -> None:
        self._runtime = runtime
        self._runs = runs
        self._watchdog = LoopWatchdog(runtime)
        self._renewed_mono = runtime.clock.monotonic()

    async def watch(self) -> None:
        """Check the runs until there are none."""
        try:
            while self._runs:
                await anyio.sleep(CHECK_INTERVAL)
                self._watchdog.beat()
                try:
                    await self._check(self._runtime.clock.monotonic())
                except Exception:  # noqa: BLE001 - without the watcher every lease would be lost
                    _log.exception("checking the active runs failed; it will be retried")
        finally:
            self._watchdog.stop()

    async def _check(self, now_mono: float) -> None:
        self._runtime.wall_clock.check()
        mark_stuck_runs(self._unrecorded(), now_mono, self._runtime.config.cancel_grace)
        await announce_visits(self._runtime, self._unrecorded(), now_mono)
        if now_mono - self._renewed_mono >= self._runtime.config.lease_ttl / _RENEWALS_PER_LEASE:
            self._renewed_mono = now_mono
            await renew_leases(self._runtime, self._unrecorded())

    def _unrecorded(self) -> list[Run]:
        return [run for run in self._runs.values() if run.pending.end is None]
