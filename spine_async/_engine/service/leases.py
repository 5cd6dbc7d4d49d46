"""Renews the leases of active runs, and acts on the answers: a lost lease or a requested stop cancels the run.

Theory of operation: the owner counts each lease by its own monotonic clock, from the moment before the claim or the
renewal was sent. So its lease never ends later than in the store. When a lease ends by that clock although a renewal
was attempted in time, the run is cancelled at once, whatever the store does. Each renewal is a task of its own; `check`
never waits for the store.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import anyio

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.cancellation import CancelReason
from spine_async._engine.state.run import Run
from spine_async._engine.tasks import Task, end_task, spawn
from spine_async._model.run_claim import Renewal
from spine_async._model.stop_request import StopRequest
from spine_async.errors import StoreError

_RENEWALS_PER_LEASE = 3
_RETRIES_PER_LEASE = 15
_MIN_TIMEOUT = 1.0  # seconds for one call of the store
_MIN_GRACE = 0.25  # seconds that an attempt may take before it counts as failed, for very short leases
_MAX_GRACE = 1.0  # seconds for the first renewal after a pause of the process or the loop

_log = logging.getLogger("spine_async")


class LeaseKeeper:
    """Keeps the leases of the runs that are passed to `check`."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._ttl = runtime.config.lease_ttl
        self._renewal: Task[None] | None = None
        self._retry_mono = 0.0

    def check(self, runs: Sequence[Run], now_mono: float) -> None:
        """Cancel runs whose lease has ended, and start a renewal if one is due and none is in progress."""
        for run in runs:
            if self._has_lapsed(run, now_mono):
                self._cancel_lapsed(run, now_mono)
        is_running = self._renewal is not None and not self._renewal.done()
        if not is_running and now_mono >= self._retry_mono and any(self._is_due(run, now_mono) for run in runs):
            for run in runs:
                if run.renewal_mono is None:
                    run.renewal_mono = now_mono
            self._renewal = spawn(self._renew(runs, now_mono), "spine_async lease renewal")

    async def end(self) -> None:
        """Cancel the renewal in progress and wait for its end."""
        if self._renewal is not None:
            await end_task(self._renewal)

    def _is_due(self, run: Run, now_mono: float) -> bool:
        return now_mono >= self._due_mono(run)

    def _due_mono(self, run: Run) -> float:
        """When the lease of the run is to be renewed."""
        return run.pending.claim.lease_until_mono - self._ttl * (1 - 1 / _RENEWALS_PER_LEASE)

    def _has_lapsed(self, run: Run, now_mono: float) -> bool:
        """Whether the lease has ended and could not be renewed.

        If no renewal was attempted in time, because the process was suspended or its loop was blocked, one attempt is
        made first.
        """
        until, attempt_mono = run.pending.claim.lease_until_mono, run.renewal_mono
        if now_mono < until or attempt_mono is None:
            return False
        grace = min(_MAX_GRACE, self._ttl / _RENEWALS_PER_LEASE) if attempt_mono >= until else 0.0
        return now_mono - attempt_mono >= max(_MIN_GRACE, grace)

    def _cancel_lapsed(self, run: Run, now_mono: float) -> None:
        if run.cancellation.reason is not None:
            return
        problem = f"its lease of {self._ttl:g} s could not be renewed before it ended"
        _log.warning("run %s: %s; this runner stops executing it", run.run_id, problem)
        run.cancellation.request(CancelReason.LEASE_LOST, now_mono, problem)

    async def _renew(self, runs: Sequence[Run], sent_mono: float) -> None:
        """Renew the leases of these runs in one call of the store."""
        clock = self._runtime.clock
        try:
            with anyio.fail_after(max(self._ttl / 2, _MIN_TIMEOUT)):
                renewals = await self._runtime.store.renew([run.pending.claim for run in runs], self._ttl)
        except (StoreError, TimeoutError) as exc:
            self._runtime.reachability.failed()
            self._retry_mono = clock.monotonic() + self._ttl / _RETRIES_PER_LEASE
            seconds, reason = clock.monotonic() - sent_mono, exc if str(exc) else "the store does not answer"
            _log.warning("the renewal of leases failed after %.1f s; it will be retried: %s", seconds, reason)
            return
        except Exception:  # noqa: BLE001 - the next renewal may succeed
            self._retry_mono = clock.monotonic() + self._ttl / _RETRIES_PER_LEASE
            _log.exception("the renewal of leases failed; it will be retried")
            return
        self._runtime.reachability.answered(sent_mono, clock.monotonic())
        self._measure(runs, clock.monotonic())
        for run, renewal in zip(runs, renewals, strict=True):
            self._apply(run, renewal, sent_mono)
        if any(renewal.is_held and not renewal.is_extended for renewal in renewals):
            self._retry_mono = clock.monotonic() + self._ttl / _RETRIES_PER_LEASE

    def _measure(self, runs: Sequence[Run], now_mono: float) -> None:
        """Report how late the answer to a renewal was, for the lease whose renewal was due first."""
        first_due_mono = min(self._due_mono(run) for run in runs)
        self._runtime.measurements.lease_renewed(max(0.0, now_mono - first_due_mono))

    def _apply(self, run: Run, renewal: Renewal, sent_mono: float) -> None:
        now_mono = self._runtime.clock.monotonic()
        if renewal.is_held and renewal.is_extended:
            run.pending.claim.lease_until_mono = sent_mono + self._ttl
            run.renewal_mono = None
        if run.pending.end is not None:
            return
        if not renewal.is_held:
            run.cancellation.request(CancelReason.LEASE_LOST, now_mono)
            if run.left_task is not None and run.pending.claim.lease_until_mono != math.inf:
                _log.warning("run %s has another owner, while a step of it is still running here", run.run_id)
                run.pending.claim.lease_until_mono = math.inf  # nothing is due, so it is reported only once
        elif renewal.stop_reason is not None:
            run.cancellation.stop(StopRequest.read(renewal.stop_reason), now_mono)
