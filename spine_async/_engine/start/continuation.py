"""Claims a stored run and continues it after its committed steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from spine_async._engine.run.release import give_up
from spine_async._engine.run.result import stored_end
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.start.claim import NotClaimable, claim_run
from spine_async._engine.start.replay import load_position
from spine_async._engine.start.request import prepared_params
from spine_async._engine.start.run_scope import new_pending, new_scope, scope_or_end
from spine_async._engine.start.stored_run import (
    check_version,
    definition_of,
    early_outcome,
    first_event,
    has_begun,
    is_incomplete,
    is_parked,
    is_poisoned,
    load,
    poison_outcome,
    with_definition,
)
from spine_async._engine.state.interrupts import RAISING_ERRORS
from spine_async._engine.state.marker_row import RESUME_MARK
from spine_async._engine.state.outcome import Outcome
from spine_async._engine.state.params import overridden_params
from spine_async._engine.state.pending_writes import PendingWrites
from spine_async._engine.state.position import Position
from spine_async._engine.state.scope import Scope
from spine_async._engine.state.unwinding import RESTART_MARK
from spine_async._engine.state.wall_clock import RunClock
from spine_async._engine.step.param_documents import mapping_documents
from spine_async._model.context_access import params_of, with_documents
from spine_async._model.document import Document, join_object
from spine_async._model.run_change import Release
from spine_async._model.run_claim import Claim
from spine_async._model.run_row import DueTime, StoredRun
from spine_async._model.status import RunStatus, StepStatus, StepType
from spine_async._model.visit_row import EventRow, VisitRow
from spine_async._model.workflow import Workflow
from spine_async._model.workflow_result import WorkflowResult
from spine_async._model.workflow_step import starts_runs
from spine_async.errors import RunBusyError, RunConflictError, RunNotResumableError


async def claim_and_replay(
    runtime: Runtime,
    workflow: Workflow,
    stored: StoredRun,
    override: Mapping[str, object] | None = None,
    *,
    is_joining: bool = False,
) -> Scope | WorkflowResult:
    """Claim a stored run and replay its committed steps.

    Args:
        runtime: What all runs share.
        workflow: The run's definition.
        stored: The run.
        override: Params to change.
        is_joining: Whether the caller wants the run to end, and did not ask to resume it. Then a run that only waited
            continues as if its owner had waited, an owner that is alive is spared although its lease has ended, and a
            run that has expired is not executed.

    Returns:
        The run's scope, positioned after the last committed step; or the result of a run that is not executed: of a
        poison run, which was claimed again and again without finishing a step, or of one that has expired.

    Raises:
        InvalidParamsError: The params of a run that was enqueued by the name of its workflow do not fit the workflow.
        RunBusyError: Another owner holds the run, or a step of it that was left behind here may still be running.
        RunConflictError: The run belongs to another workflow.
        RunNotResumableError: It has completed.
        WorkflowChangedError: The definition no longer fits its finished steps; the run is not claimed then.
        NotClaimable: The limits of its queue leave no room.
    """
    if stored.status is RunStatus.COMPLETED:
        raise RunNotResumableError(stored.run_id, f"run {stored.run_id!r} has completed; there is nothing to resume")
    if stored.workflow_name != workflow.name:
        raise RunConflictError(
            stored.run_id,
            f"run {stored.run_id!r} belongs to workflow {stored.workflow_name!r}, not to {workflow.name!r}",
        )
    check_version(workflow, stored)
    if stored.owner == runtime.owner and runtime.is_left_at_work(stored.run_id):
        raise RunBusyError(stored.run_id, stored.owner)
    plan = await _plan(runtime, workflow, stored, override, is_joining=is_joining)
    is_under_way = not stored.status.is_final
    event = plan.event if not plan.is_stored and plan.outcome is None else None
    claim = await claim_run(
        runtime,
        stored.run_id,
        event,
        unless_ended=is_under_way,
        limits=runtime.limits_of(stored.queue),
        stored=stored if is_under_way else None,
        spares_living=is_joining,
    )
    try:
        written = int(event is not None)
        if claim.epoch != stored.epoch + 1 or claim.next_seq != stored.next_seq + written:
            stored = await _reload(runtime, stored, claim, written)
            if is_joining and stored.workflow_version > workflow.version:
                raise NotClaimable(stored.run_id)
            check_version(workflow, stored)
            plan = await _plan(runtime, workflow, stored, override, is_joining=is_joining)
        return await _open_claimed(runtime, workflow, plan, claim, is_announced=event is not None)
    except Exception:
        await give_up(runtime, claim, _release_unopened(runtime, stored))
        raise


@dataclass(slots=True, kw_only=True)
class _Plan:
    """The plan for a stored run, made before the run is claimed.

    Attributes:
        stored: The run.
        position: Its position after the committed steps.
        is_resumed: Whether it was interrupted, or has ended.
        event: The event of its start or resume, or None.
        outcome: The outcome of a run that is not executed any more, or None.
        updates: Params to store.
        is_stored: Whether a row is stored before it continues.
        is_restart: Whether it has ended after it had unwound.
    """

    stored: StoredRun
    position: Position
    is_resumed: bool
    event: EventRow | None
    outcome: Outcome | None
    updates: dict[str, Document]
    is_stored: bool
    is_restart: bool


async def _plan(
    runtime: Runtime,
    workflow: Workflow,
    stored: StoredRun,
    override: Mapping[str, object] | None,
    *,
    is_joining: bool,
) -> _Plan:
    is_first = stored.epoch == 0
    if is_first:
        stored = replace(stored, started_at=runtime.clock.now())
    is_resumed = not is_first and not (is_joining and is_parked(stored))
    position = await load_position(runtime, workflow, stored, is_resumed=is_resumed)
    early = early_outcome(stored, position, runtime.clock.now()) if is_joining else None
    is_restart = restarts(stored, position)
    updates = _param_updates(runtime, workflow, stored, position, override) if early is None else {}
    begins = is_resumed or (is_first and not has_begun(stored))  # a fork has its event since its creation
    at = RunClock(runtime.clock, stored.updated_at).now()
    return _Plan(
        stored=stored,
        position=position,
        is_resumed=is_resumed,
        event=first_event(with_definition(stored, workflow), at) if begins and runtime.config.emit_events else None,
        outcome=poison_outcome(stored, position) if is_poisoned(runtime, stored) else early,
        updates=updates,
        # Stored, so that a crash before a child is resumed is not taken for one in the middle of the wait for it.
        is_stored=bool(updates) or is_restart or (stored.status.is_final and starts_runs(workflow)),
        is_restart=is_restart,
    )


async def _reload(runtime: Runtime, stored: StoredRun, claim: Claim, written: int) -> StoredRun:
    """The run as it was before its claim; other owners had it since `stored` was loaded.

    Args:
        runtime: What all runs share.
        stored: The run as it was loaded.
        claim: The claim.
        written: Number of events that the claim has written.
    """
    loaded = await load(runtime, stored.run_id)
    has_ended = stored.status.is_final  # the claim has removed the end
    return replace(
        loaded,
        status=stored.status if has_ended else RunStatus.RUNNING,
        epoch=claim.epoch - 1,
        owner=None,
        next_seq=claim.next_seq - written,
        claims_since_progress=max(0, loaded.claims_since_progress - 1),
        stop_requested=stored.stop_requested,  # the claim has removed it too
        completed_at=stored.completed_at,
        error_step=stored.error_step,
        error=stored.error,
        error_category=stored.error_category,
        stop_reason=stored.stop_reason,
    )


async def _open_claimed(
    runtime: Runtime, workflow: Workflow, plan: _Plan, claim: Claim, *, is_announced: bool
) -> Scope | WorkflowResult:
    """Carry out the plan for a run that was claimed; `is_announced`: with the event of its start or resume."""
    stored, position = plan.stored, plan.position
    clock = RunClock(runtime.clock, stored.updated_at)
    pending = new_pending(runtime, stored, claim, clock)
    if plan.outcome is not None:
        scope = new_scope(workflow, stored, position, pending, is_resumed=plan.is_resumed)
        return await scope_or_end(runtime, scope, stored, position, plan.outcome)
    if is_incomplete(stored):
        pending.definition = definition_of(workflow)
    if plan.is_stored:
        resumed = plan.event or first_event(with_definition(stored, workflow), clock.now())
        await commit_override(runtime, pending, plan.updates, stored, resumed, is_restart=plan.is_restart)
        position.context = with_documents(position.context, plan.updates)
        position.unwinding, position.resumed_epoch = None, claim.epoch
    elif plan.event is not None and not is_announced:
        pending.add_events(plan.event)
    return new_scope(workflow, stored, position, pending, is_resumed=plan.is_resumed)


def restarts(stored: StoredRun, position: Position) -> bool:
    """Whether the run has ended after it had unwound, so that a row must tell that it was resumed.

    Raises:
        RunNotResumableError: Its finished steps have been compensated.
    """
    if position.unwinding is None or not stored.status.is_final:
        return False
    if position.unwinding.has_compensated:
        problem = "its finished steps have been compensated; fork() it at the step from which it shall be repeated"
        raise RunNotResumableError(stored.run_id, f"run {stored.run_id!r} cannot be resumed, because {problem}")
    return True


def _param_updates(
    runtime: Runtime,
    workflow: Workflow,
    stored: StoredRun,
    position: Position,
    override: Mapping[str, object] | None,
) -> dict[str, Document]:
    """The params to store: those that complete a run which was enqueued without its workflow, and the override.

    Raises:
        InvalidParamsError: They do not fit.
    """
    limit, current = runtime.config.max_value_bytes, params_of(position.context)
    completed = prepared_params(runtime, workflow, stored.params) if is_incomplete(stored) else {}
    updates = mapping_documents("params_override", override, limit) if override is not None else {}
    if not override:
        return completed
    return {**completed, **overridden_params(workflow, {**current, **completed}, updates, override)}


def _release_unopened(runtime: Runtime, stored: StoredRun) -> Release:
    """How to release a claimed run that could not be opened: as it was before, or due now."""
    if stored.status.is_final:
        return Release(status=stored.status, restored=stored_end(stored))
    return Release(due=DueTime(runtime.clock.now(), 0.0))


async def commit_override(
    runtime: Runtime,
    pending: PendingWrites,
    updates: Mapping[str, Document],
    stored: StoredRun,
    resumed: EventRow,
    *,
    is_restart: bool,
) -> None:
    """Store the params that a resume changes, before any step sees them, and whether the run had unwound before."""
    row = override_row(RESTART_MARK if is_restart else RESUME_MARK, pending.claim.epoch, updates, stored)
    pending.add_marker(row, resumed)
    with RAISING_ERRORS:
        await runtime.journal.commit(pending)


def override_row(mark: str, epoch: int, updates: Mapping[str, Document], stored: StoredRun) -> VisitRow:
    """The row that stores params which a resume changes."""
    return params_row(f"{mark}#{epoch}", mark, updates, stored.started_at)


def params_row(path: str, mark: str, updates: Mapping[str, Document], at: datetime) -> VisitRow:
    """A row that belongs to no step and stores changed params."""
    return VisitRow(
        path=path,
        step_name=mark,
        step_type=StepType.LAMBDA,
        status=StepStatus.OVERRIDE,
        attempts=0,
        started_at=at,
        duration_ms=0.0,
        output=None,
        output_size=0,
        updates=join_object(updates).text,
        quality=None,
        item_params=None,
        scope="",
        completed_at=at,
    )
