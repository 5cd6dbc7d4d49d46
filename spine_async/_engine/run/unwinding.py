"""What happens between the end of a run's steps and its outcome: compensations, then cleanup steps."""

from __future__ import annotations

from spine_async._engine.run.compensation import compensate
from spine_async._engine.run.loop import run_steps
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.interrupts import StopRequested
from spine_async._engine.state.marker_row import event_marker
from spine_async._engine.state.outcome import COMPLETED, Outcome
from spine_async._engine.state.run import Run
from spine_async._engine.state.scope import Scope
from spine_async._engine.state.unwinding import OUTCOME_MARK, Unwinding, begin_cleanup
from spine_async._model.status import EventType, RunStatus


def must_unwind(run: Run, outcome: Outcome) -> bool:
    """Whether the run has cleanup steps or compensations to execute before it gets this outcome."""
    return bool(run.workflow.cleanup) or _compensates(run, outcome)


async def begin_unwinding(runtime: Runtime, scope: Scope, outcome: Outcome) -> None:
    """Store the outcome as the intended one, with everything that is pending. The run is still running.

    Raises:
        CommitFailed: The run has another owner, or the store failed.
    """
    run = scope.run
    unwinding = run.unwinding = Unwinding(outcome, _compensates(run, outcome))
    run.cleanup = begin_cleanup(run.cleanup, run.workflow)
    metadata = {"status": outcome.status.value, "compensates": unwinding.compensates}
    marker = event_marker(scope, OUTCOME_MARK, EventType.WORKFLOW_ENDING, unwinding.intention(), metadata)
    run.pending.status = RunStatus.RUNNING
    run.pending.add_marker(*marker)
    await runtime.journal.commit(run.pending)


async def unwind(runtime: Runtime, scope: Scope, unwinding: Unwinding) -> Outcome:
    """Execute the compensations and the cleanup steps that remain; returns the outcome of the run.

    Raises:
        CommitFailed: The run has another owner, or the store failed.
        Draining: The runner is shutting down; no further step begins.
    """
    if scope.run.pending.entry_count:  # a cancellation has ended the wait for the commit of the intention
        await runtime.journal.commit(scope.run.pending)
    if unwinding.compensates and not unwinding.is_compensated:
        await compensate(runtime, scope, unwinding)
    failure = await _clean_up(runtime, scope)
    return failure if failure is not None and unwinding.outcome.status is RunStatus.COMPLETED else unwinding.outcome


def _compensates(run: Run, outcome: Outcome) -> bool:
    if not run.workflow.compensates:
        return False
    return outcome.status is RunStatus.FAILED or (outcome.status is RunStatus.STOPPED and run.cancellation.compensates)


async def _clean_up(runtime: Runtime, scope: Scope) -> Outcome | None:
    """Execute the cleanup steps; returns the failure of the first one that failed, or None."""
    run, cursor = scope.run, scope.run.cleanup
    if cursor is None:
        return None
    inner = Scope(
        run,
        cursor.workflow,
        "",
        cursor,
        scope.context,
        scope.waits,
        scope.last_output,
        retries=scope.retries,
        reported_path=scope.reported_path,
    )
    try:
        outcome = await run_steps(runtime, inner)
    except StopRequested:  # an item of a map ended the cleanup
        outcome = COMPLETED
    scope.context = inner.context
    for step in run.workflow.cleanup:
        failure = inner.context.get_error(step.name)
        if failure is None or step.continues_after(failure["category"]):
            continue
        return Outcome(RunStatus.FAILED, step.name, failure["error"], failure["category"])
    return outcome if outcome.status is RunStatus.FAILED else None
