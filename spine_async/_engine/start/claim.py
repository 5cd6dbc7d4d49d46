"""Claims a stored run for this runner."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypedDict

from anyio import to_thread

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.start.owner import is_alive, is_gone
from spine_async._engine.tasks import run_shielded
from spine_async._model.queue import Queue
from spine_async._model.run_claim import Busy, Claim, NoRoom
from spine_async._model.run_row import StoredRun
from spine_async._model.visit_row import EventRow
from spine_async.errors import RunBusyError, RunNotResumableError


class NotClaimable(Exception):  # noqa: N818 - a signal within the engine; callers wait for the run
    """The run cannot be executed here now: another owner holds it, it is not due, or its queue has no room.

    Attributes:
        has_room: Whether its queue has room.
    """

    def __init__(self, run_id: str, *, has_room: bool = True) -> None:
        super().__init__(run_id)
        self.has_room = has_room


class _Lease(TypedDict):
    """Arguments that `claim` and `claim_queued` of a store share."""

    ttl: float
    over_epoch: int | None
    unless_ended: bool


async def claim_run(
    runtime: Runtime,
    run_id: str,
    event: EventRow | None,
    *,
    unless_ended: bool,
    stored: StoredRun | None = None,
    spares_living: bool = False,
    limits: Queue | None = None,
) -> Claim:
    """Claim the run and store `event`; does not wait for the lease of an owner whose process on this host is gone.

    Args:
        runtime: What all runs share.
        run_id: The run.
        event: The event to store.
        unless_ended: Whether to refuse a run that has failed or stopped.
        stored: The run as it was loaded; None if it has ended.
        spares_living: Whether to refuse a run with an ended lease whose owner is provably alive.
        limits: Limits of the queue of the run, or None.

    Raises:
        RunBusyError: Another owner holds it, or may renew its lease now that the store is reachable again.
        RunNotResumableError: It has completed; or it has failed or stopped, and `unless_ended` is given.
        NotClaimable: The limits of its queue leave no room.
    """
    if stored is not None and await is_spared(runtime, stored, spares_living=spares_living):
        raise RunBusyError(run_id, stored.owner)

    def claim(over_epoch: int | None) -> Awaitable[Claim | Busy | NoRoom | None]:
        arguments = (run_id, runtime.owner, event)
        lease: _Lease = {"ttl": runtime.config.lease_ttl, "over_epoch": over_epoch, "unless_ended": unless_ended}
        if limits is not None:
            return run_shielded(runtime.due_runs.claim_queued(*arguments, limits=limits, **lease), "spine_async claim")
        return run_shielded(runtime.store.claim(*arguments, **lease), "spine_async claim")

    sent_mono = runtime.clock.monotonic()
    answer = await claim(None)
    if isinstance(answer, Busy) and await to_thread.run_sync(is_gone, answer.owner):
        sent_mono = runtime.clock.monotonic()
        answer = await claim(answer.epoch)
    if isinstance(answer, Busy):
        raise RunBusyError(run_id, answer.owner, answer.lease_until)
    if isinstance(answer, NoRoom):
        raise NotClaimable(run_id, has_room=False)
    if answer is None:
        raise RunNotResumableError(run_id, f"run {run_id!r} has ended or was deleted in the meantime")
    answer.lease_until_mono = sent_mono + runtime.config.lease_ttl
    runtime.own_claims.add(answer)
    return answer


async def is_spared(runtime: Runtime, stored: StoredRun, *, spares_living: bool) -> bool:
    """Whether a run must not be claimed although its lease has ended, because its owner may renew the lease.

    An owner that is alive on this host renews its lease or releases the run. After an outage of the store, every other
    owner has one `lease_ttl` to renew its lease. A run whose owner's process is gone may be claimed at once.
    """
    owner = stored.owner
    if stored.is_leased or owner is None or owner == runtime.owner:
        return False
    if await to_thread.run_sync(is_gone, owner):
        return False
    if spares_living and await to_thread.run_sync(is_alive, owner):
        return True
    return not runtime.reachability.has_returned_for(runtime.config.lease_ttl, runtime.clock.monotonic())
