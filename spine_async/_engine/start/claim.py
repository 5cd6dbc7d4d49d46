"""Taking over a run that may be somebody else's."""

from __future__ import annotations

from collections.abc import Awaitable

from anyio import to_thread

from spine_async._engine.runtime.runtime import Engine
from spine_async._engine.start.owner import is_gone
from spine_async._engine.tasks import run_through
from spine_async._model.record import Busy, Claim, EventRow
from spine_async.errors import RunBusyError, RunNotResumableError


async def claim_run(engine: Engine, run_id: str, event: EventRow | None, *, unless_ended: bool) -> Claim:
    """The right to commit to the run, with the event that tells of it; at once where its owner is gone from this host.

    Raises:
        RunBusyError: Somebody else owns it.
        RunNotResumableError: It has completed; or has ended otherwise, and `unless_ended` is given.
    """

    def claimed(over_epoch: int | None) -> Awaitable[Claim | Busy | None]:
        ttl, owner = engine.config.lease_ttl, engine.owner
        claim = engine.store.claim(run_id, owner, event, ttl=ttl, over_epoch=over_epoch, unless_ended=unless_ended)
        return run_through(claim, "spine_async claim")

    answer = await claimed(None)
    if isinstance(answer, Busy) and await to_thread.run_sync(is_gone, answer.owner):
        answer = await claimed(answer.epoch)
    if isinstance(answer, Busy):
        raise RunBusyError(run_id, answer.owner, answer.lease_until)
    if answer is None:
        raise RunNotResumableError(run_id, f"run {run_id!r} has ended meanwhile")
    return answer
