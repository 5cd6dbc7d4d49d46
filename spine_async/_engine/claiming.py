"""Taking over a run that may be somebody else's."""

from __future__ import annotations

from anyio import to_thread

from spine_async._engine.background import run_through
from spine_async._engine.engine import Engine
from spine_async._engine.ownership import is_gone
from spine_async._model.record import Busy, Claim
from spine_async.errors import RunBusyError, RunNotResumableError


async def claim_run(engine: Engine, run_id: str, *, unless_ended: bool) -> Claim:
    """The right to commit to the run; at once where its owner's process is gone from this host.

    Raises:
        RunBusyError: Somebody else owns it.
        RunNotResumableError: It has completed; or has ended otherwise, and `unless_ended` is given.
    """
    answer = await _try(engine, run_id, None, unless_ended=unless_ended)
    if isinstance(answer, Busy) and await to_thread.run_sync(is_gone, answer.owner):
        answer = await _try(engine, run_id, answer.epoch, unless_ended=unless_ended)
    if isinstance(answer, Busy):
        raise RunBusyError(run_id, answer.owner, answer.lease_until)
    if answer is None:
        raise RunNotResumableError(run_id, f"run {run_id!r} has ended meanwhile")
    return answer


async def _try(engine: Engine, run_id: str, over_epoch: int | None, *, unless_ended: bool) -> Claim | Busy | None:
    ttl = engine.config.lease_ttl
    claim = engine.store.claim(run_id, engine.owner, None, ttl=ttl, over_epoch=over_epoch, unless_ended=unless_ended)
    return await run_through(claim, "spine_async claim")
