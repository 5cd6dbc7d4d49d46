"""Records the end of a run, or releases the run: the only place where a run becomes completed, failed or stopped."""

from __future__ import annotations

from datetime import datetime, timedelta

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.outcome import Outcome
from spine_async._engine.state.pending_writes import PendingWrites
from spine_async._engine.state.run import Run
from spine_async._model.run_change import Release, RunEnd
from spine_async._model.run_row import DueTime
from spine_async._model.status import RunStatus


async def commit_end(runtime: Runtime, run: Run, outcome: Outcome) -> RunEnd:
    """As `commit_outcome`, for a run that is executed."""
    return await commit_outcome(runtime, run.pending, outcome, run.workflow.name, run.started_at)


async def commit_outcome(
    runtime: Runtime, pending: PendingWrites, outcome: Outcome, workflow: str, started_at: datetime
) -> RunEnd:
    """Commit the run's end, with everything that is pending; returns the end as it is stored.

    A run that has an end keeps it.

    Args:
        runtime: What all runs share.
        pending: The uncommitted rows of the run.
        outcome: How the run ended.
        workflow: Name of its workflow, for metrics.
        started_at: When it was first started, for metrics.

    Raises:
        CommitFailed: The run has another owner, or the store failed.
    """
    if pending.end is not None:
        return pending.end
    end = outcome.at(pending.clock.now())
    pending.close(end)
    await runtime.journal.commit(pending)
    seconds = max(0.0, (end.at - started_at).total_seconds())
    runtime.measurements.run_ended(workflow, end.status, end.error_category, seconds)
    return end


async def commit_release(runtime: Runtime, run: Run, outcome: Outcome, *, counts: bool = False) -> RunEnd:
    """Release the run, with everything that is pending, so that it continues later, here or elsewhere.

    A run that only waits is due when the first of its waits ends. Any other run is due now.

    Args:
        runtime: What all runs share.
        run: The run.
        outcome: What the callers of this execution receive.
        counts: Whether the execution counts towards `max_claims`.

    Returns:
        The end for the callers; it is not stored.

    Raises:
        CommitFailed: The run has another owner, or the store failed.
    """
    pending = run.pending
    if pending.end is not None:
        return pending.end
    end = outcome.at(pending.clock.now())
    pending.give_up(_release(runtime, run, counts=counts), end)
    await runtime.journal.commit(pending)
    return end


def _release(runtime: Runtime, run: Run, *, counts: bool) -> Release:
    idle = run.departure
    if idle is None or run.idleness.has_moved_since(idle):
        return Release(due=DueTime(run.clock.now(), 0.0), counts=counts)
    due = _earlier(idle.due, _deadline(runtime, run))
    # Messages that are known and not taken must not wake the run again and again; a sweep finds the new ones.
    awaits_messages = idle.awaits_messages and run.mailbox.is_empty
    is_decided = run.unwinding is not None  # a stop that was requested has been carried out, or comes too late
    return Release(status=RunStatus.WAITING, due=due, awaits_messages=awaits_messages, ignores_stop=is_decided)


def _deadline(runtime: Runtime, run: Run) -> DueTime | None:
    """When the workflow times out."""
    limit = runtime.config.workflow_timeout
    if limit is None or run.unwinding is not None:
        return None
    left = run.limited_from_mono + limit - run.clock.monotonic()
    return DueTime(run.clock.now() + timedelta(seconds=left), left)


def _earlier(first: DueTime | None, second: DueTime | None) -> DueTime | None:
    if first is None or second is None:
        return first or second
    return min(first, second, key=lambda due: due.at)
