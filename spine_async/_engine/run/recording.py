"""Records the end of a run: the only place where a run becomes completed, failed or stopped."""

from __future__ import annotations

from contextlib import suppress

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.cancellation import CancelReason
from spine_async._engine.state.interrupts import CommitFailed
from spine_async._engine.state.outcome import Outcome
from spine_async._engine.state.pending_writes import PendingWrites
from spine_async._model.record import RunEnd
from spine_async._model.status import RunStatus


async def commit_outcome(runtime: Runtime, pending: PendingWrites, outcome: Outcome) -> RunEnd:
    """Commit the run's end, with everything that is pending; returns the end as it is stored.

    A run that has an end keeps it.

    Raises:
        CommitFailed: The run has another owner, or the store failed.
    """
    if pending.end is not None:
        return pending.end
    end = outcome.at(pending.clock.now())
    pending.close(end)
    await runtime.journal.commit(pending)
    return end


async def record_cancelled(runtime: Runtime, pending: PendingWrites) -> None:
    """Record a run as stopped, because its caller was cancelled before the first step."""
    with suppress(CommitFailed):  # in either case the caller receives its cancellation, and the run can be resumed
        await commit_outcome(runtime, pending, Outcome(RunStatus.STOPPED, stop_reason=CancelReason.CANCELLED.value))
