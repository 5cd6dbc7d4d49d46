"""Claims a stored run for this runner."""

from __future__ import annotations

from collections.abc import Awaitable

from anyio import to_thread

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.start.owner import is_gone
from spine_async._engine.tasks import run_shielded
from spine_async._model.record import Busy, Claim, EventRow
from spine_async.errors import RunBusyError, RunNotResumableError


async def claim_run(runtime: Runtime, run_id: str, event: EventRow | None, *, unless_ended: bool) -> Claim:
    """Claim the run and store `event`; does not wait for the lease of an owner whose process on this host is gone.

    Raises:
        RunBusyError: Another owner holds it.
        RunNotResumableError: It has completed; or it has failed or stopped, and `unless_ended` is given.
    """

    def claim(over_epoch: int | None) -> Awaitable[Claim | Busy | None]:
        call = runtime.store.claim(
            run_id,
            runtime.owner,
            event,
            ttl=runtime.config.lease_ttl,
            over_epoch=over_epoch,
            unless_ended=unless_ended,
        )
        return run_shielded(call, "spine_async claim")

    sent_mono = runtime.clock.monotonic()
    answer = await claim(None)
    if isinstance(answer, Busy) and await to_thread.run_sync(is_gone, answer.owner):
        sent_mono = runtime.clock.monotonic()
        answer = await claim(answer.epoch)
    if isinstance(answer, Busy):
        raise RunBusyError(run_id, answer.owner, answer.lease_until)
    if answer is None:
        raise RunNotResumableError(run_id, f"run {run_id!r} has ended meanwhile")
    answer.lease_until_mono = sent_mono + runtime.config.lease_ttl
    return answer
