"""The scope of a run that was claimed, and the end of one that is not executed any more."""

from __future__ import annotations

from dataclasses import replace

from spine_async._engine.run.recording import commit_outcome
from spine_async._engine.run.result import position_result, stored_end
from spine_async._engine.run.unwinding import must_unwind
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.start.stored_run import has_begun, stop_request
from spine_async._engine.state.interrupts import RAISING_ERRORS
from spine_async._engine.state.outcome import Outcome
from spine_async._engine.state.pending_writes import PendingWrites
from spine_async._engine.state.position import Position
from spine_async._engine.state.run import Run
from spine_async._engine.state.scope import Scope
from spine_async._engine.state.wall_clock import RunClock
from spine_async._model.run_claim import Claim
from spine_async._model.run_row import StoredRun
from spine_async._model.status import RunStatus
from spine_async._model.workflow import Workflow
from spine_async._model.workflow_result import WorkflowResult


async def scope_or_end(
    runtime: Runtime, scope: Scope, stored: StoredRun, position: Position, outcome: Outcome
) -> Scope | WorkflowResult:
    """Record the outcome of a claimed run that is not executed any more; or its scope, if it has to unwind before."""
    run = scope.run
    run.cancellation.compensates = stop_request(stored).compensates
    if run.unwinding is None and has_begun(stored) and must_unwind(run, outcome):
        await stop_children(runtime, stored, outcome)
        run.decided = outcome
        return scope
    with RAISING_ERRORS:
        end = await commit_outcome(runtime, run.pending, outcome, stored.workflow_name, stored.started_at)
    await stop_children(runtime, stored, outcome)
    return position_result(scope.workflow, stored, position, end)


async def stop_children(runtime: Runtime, stored: StoredRun, outcome: Outcome) -> None:
    """Stop the child runs of a run that was stopped before its steps could do so."""
    if runtime.child_runs is not None and has_begun(stored) and outcome.status is RunStatus.STOPPED:
        request = replace(stop_request(stored), reason=outcome.stop_reason or "")
        await runtime.child_runs.stop_all(stored.run_id, request)


def new_pending(runtime: Runtime, stored: StoredRun, claim: Claim, clock: RunClock) -> PendingWrites:
    """The uncommitted rows of a run that was claimed."""
    pending = PendingWrites(claim, records_events=runtime.config.emit_events, clock=clock)
    pending.parent_run_id = stored.parent_run_id
    return pending


def new_scope(
    workflow: Workflow,
    stored: StoredRun,
    position: Position,
    pending: PendingWrites,
    *,
    is_resumed: bool,
    is_claimed: bool = False,
) -> Scope:
    """The scope of a run that was claimed, at its position; `is_claimed`: by a worker."""
    clock = pending.clock
    unwinding = position.unwinding
    cursor = position.cursor if unwinding is None or position.cleanup is None else position.cleanup
    run = Run(
        stored.run_id,
        workflow,
        pending,
        stored.started_at,
        clock,
        begun_mono=clock.monotonic() - (clock.now() - stored.started_at).total_seconds(),
        opened_mono=clock.monotonic(),
        is_resumed=is_resumed,
        is_woken=stored.epoch > 0 and pending.claim.epoch > 1 and not is_resumed,
        resumed_path=cursor.segment if stored.epoch > 0 and pending.claim.epoch > 1 else None,
        tally=position.tally,
        previous_end=stored_end(stored) if stored.status.is_final else None,
        started_by=stored.started_by,
        continues=stored.traceparent,
        is_claimed=is_claimed,
        queue=stored.queue,
        queue_key=stored.queue_key,
        unwinding=unwinding,
        cleanup=position.cleanup,
        resumed_epoch=position.resumed_epoch,
    )
    return Scope(
        run,
        workflow,
        "",
        position.cursor,
        position.context,
        position.waits,
        position.last_output,
        retries=position.retries,
        reported_path=position.reported_path,
    )
