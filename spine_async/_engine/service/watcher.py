"""What goes on beside the runs: leases are renewed, long steps announced, steps that do not end found.

One task looks after all runs of a runner, a few times a second, as long as there are any.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress

import anyio

from spine_async._engine.runtime.runtime import Engine
from spine_async._engine.service.loop_watchdog import LoopWatchdog
from spine_async._engine.service.stuck_steps import find_stuck
from spine_async._engine.state.cancellation import CancelReason
from spine_async._engine.state.interrupts import CommitFailed
from spine_async._engine.state.scope import Run
from spine_async.errors import StoreError

LOOK_EVERY = 0.25
"""Seconds between two looks."""

_ANNOUNCE_AFTER = 0.5  # seconds a step has been under way before it is told of on its own
_RENEWALS_PER_LEASE = 3

_log = logging.getLogger("spine_async")


class Watcher:
    """Looks after the runs at work.

    Args:
        engine: What all runs share.
        runs: The runs at work by id; changes while this looks on.
    """

    def __init__(self, engine: Engine, runs: Mapping[str, Run]) -> None:
        self._engine = engine
        self._runs = runs
        self._watchdog = LoopWatchdog(engine)
        self._renewed_mono = engine.clock.monotonic()

    async def watch(self) -> None:
        """Look, as long as there are runs."""
        try:
            while self._runs:
                await anyio.sleep(LOOK_EVERY)
                self._watchdog.beat()
                try:
                    await self._look(self._engine.clock.monotonic())
                except Exception:  # noqa: BLE001 - without the watcher every lease would be lost
                    _log.exception("looking after the runs failed, will be tried again")
        finally:
            self._watchdog.stop()

    async def _look(self, now: float) -> None:
        self._find_stuck(now)
        await self._announce(now)
        if now - self._renewed_mono >= self._engine.config.lease_ttl / _RENEWALS_PER_LEASE:
            self._renewed_mono = now
            await self._renew()

    def _find_stuck(self, now: float) -> None:
        for run in self._at_work():
            end = find_stuck(run, now, self._engine.config.cancel_grace)
            if end is not None and run.hung is None:
                run.hung = end
                run.over.end()

    async def _announce(self, now: float) -> None:
        for run in self._at_work():
            if run.ledger.announce(now - _ANNOUNCE_AFTER):
                with suppress(CommitFailed):  # the run itself will meet the same trouble, and tell of it
                    await self._engine.journal.commit(run.ledger)

    async def _renew(self) -> None:
        runs = self._at_work()
        claims = [run.ledger.claim for run in runs]
        try:
            renewals = await self._engine.store.renew(claims, self._engine.config.lease_ttl) if claims else []
        except StoreError as exc:
            _log.warning("leases could not be renewed, will be tried again: %s", exc)
            return
        for run, renewal in zip(runs, renewals, strict=True):
            if run.ledger.end is not None:
                continue
            if not renewal.is_held:
                self._interrupt(run, CancelReason.LEASE_LOST)
            elif renewal.stop_reason is not None:
                self._interrupt(run, CancelReason.USER, renewal.stop_reason)

    def _interrupt(self, run: Run, reason: CancelReason, text: str | None = None) -> None:
        run.interruption.request(reason, self._engine.clock.monotonic(), text)

    def _at_work(self) -> list[Run]:
        return [run for run in self._runs.values() if run.ledger.end is None]
