"""Opens a run for execution: creates it, or claims and replays the stored one."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping

from spine_async._engine.commit.journal import Creation
from spine_async._engine.run.recording import commit_outcome, record_cancelled
from spine_async._engine.run.result import position_result, stored_failure, stored_result
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.start.claim import claim_run
from spine_async._engine.start.replay import first_position, load_position
from spine_async._engine.start.request import Request, has_same_params, mapping_documents, prepare_run
from spine_async._engine.state.interrupts import RAISING_ERRORS
from spine_async._engine.state.outcome import Outcome
from spine_async._engine.state.params import overridden_params
from spine_async._engine.state.pending_writes import PendingWrites
from spine_async._engine.state.scope import Position, Run, Scope
from spine_async._engine.state.wall_clock import RunClock
from spine_async._engine.tasks import CANCELLATION, await_shielded, run_shielded, spawn
from spine_async._model.context_access import params_of, with_documents
from spine_async._model.corruption_guard import CorruptionGuard
from spine_async._model.document import Document, join_object
from spine_async._model.failure import ErrorCategory
from spine_async._model.large_text import LARGE_TEXT
from spine_async._model.naming import check_run_id
from spine_async._model.record import Claim, EventRow, NewRun, StoredRun, VisitRow
from spine_async._model.status import EventType, RunStatus, StepStatus, StepType
from spine_async._model.workflow import Workflow
from spine_async._model.workflow_result import WorkflowResult
from spine_async.errors import RunConflictError, RunNotFoundError, RunNotResumableError


async def start_or_load(runtime: Runtime, request: Request) -> Scope | WorkflowResult:
    """Create the run and return its scope. If its id is already stored, return the scope or the result of that run.

    Raises:
        DefinitionError: The workflow has no name, or does not have the step to start from.
        InvalidParamsError: The params do not fit.
        SerializationError: A param has no strict JSON form.
        RunConflictError: The id belongs to a run of another workflow or with other params.
    """
    creation = Creation(await prepare_run(runtime, request))
    try:
        with RAISING_ERRORS:
            await runtime.journal.create(creation)
    except CANCELLATION:
        if creation.claim is not None:
            clock = RunClock(runtime.clock, creation.run.created_at)
            await record_cancelled(runtime, _pending(runtime, creation.claim, clock))
        raise
    if creation.claim is not None:
        created = creation.run, creation.claim
        if creation.run.size <= LARGE_TEXT:
            return _created_scope(runtime, request.workflow, *created)
        opening = runtime.run_on_thread(_created_scope, runtime, request.workflow, *created)
        return await run_uncancelled(runtime, opening)
    return await run_uncancelled(runtime, _load_existing(runtime, request, creation.run))


async def run_uncancelled(
    runtime: Runtime, opening: Coroutine[object, object, Scope | WorkflowResult]
) -> Scope | WorkflowResult:
    """Finish opening a run despite cancellation, so that no claimed run is left without an executor.

    Cancellation:
        Raised once the opening has ended; a run that it claimed is recorded as stopped before.
    """
    task = spawn(opening, "spine_async open")
    try:
        return await await_shielded(task)
    except CANCELLATION:
        opened = task.result() if not task.cancelled() and task.exception() is None else None
        if isinstance(opened, Scope):
            await record_cancelled(runtime, opened.run.pending)
        raise


async def load(runtime: Runtime, run_id: str) -> StoredRun:
    """The stored run.

    Raises:
        RunNotFoundError: The run is not stored.
    """
    stored = await run_shielded(runtime.store.load(check_run_id(run_id)), "spine_async load")
    if stored is None:
        raise RunNotFoundError(run_id)
    return stored


async def claim_and_replay(
    runtime: Runtime,
    workflow: Workflow,
    stored: StoredRun,
    override: Mapping[str, object] | None = None,
    *,
    spares_living: bool = False,
) -> Scope | WorkflowResult:
    """Claim a stored run and replay its committed steps.

    Args:
        runtime: What all runs share.
        workflow: The run's definition.
        stored: The run.
        override: Params to change.
        spares_living: Whether to refuse a run with an ended lease whose owner is provably alive.

    Returns:
        The run's scope, positioned after the last committed step; or the result of a poison run, which was claimed
        again and again without finishing a step.

    Raises:
        RunBusyError: Another owner holds the run.
        RunConflictError: The run belongs to another workflow.
        RunNotResumableError: It has completed.
        WorkflowChangedError: The definition no longer fits its finished steps; the run is not claimed then.
    """
    if stored.status is RunStatus.COMPLETED:
        raise RunNotResumableError(stored.run_id, f"run {stored.run_id!r} has completed; there is nothing to resume")
    if stored.workflow_name != workflow.name:
        raise RunConflictError(
            stored.run_id,
            f"run {stored.run_id!r} belongs to workflow {stored.workflow_name!r}, not to {workflow.name!r}",
        )
    limit = runtime.config.max_value_bytes
    updates = mapping_documents("params_override", override, limit) if override is not None else {}
    is_poison = not stored.status.is_final and stored.claims_since_progress >= runtime.config.max_claims
    position = await load_position(runtime, workflow, stored)
    if updates:
        updates = overridden_params(workflow, params_of(position.context), updates)
    clock = RunClock(runtime.clock, stored.updated_at)
    resumed = EventRow(EventType.WORKFLOW_RESUMED, None, clock.now())
    # The claim writes the resume event. With an override the override's commit writes it; a poison run gets none.
    event = resumed if runtime.config.emit_events and not updates and not is_poison else None
    is_under_way = not stored.status.is_final
    claim = await claim_run(
        runtime,
        stored.run_id,
        event,
        unless_ended=is_under_way,
        stored=stored if is_under_way else None,
        spares_living=spares_living,
    )
    if claim.next_seq != stored.next_seq + (event is not None):  # another owner committed between load and claim
        position = await load_position(runtime, workflow, stored)
    pending = _pending(runtime, claim, clock)
    if is_poison:
        return await _end_poison_run(runtime, workflow, stored, position, pending)
    if updates:
        await _commit_override(runtime, pending, updates, stored, resumed)
        position.context = with_documents(position.context, updates)
    return _scope(runtime, workflow, stored, position, pending, is_resumed=True)


def _created_scope(runtime: Runtime, workflow: Workflow, new: NewRun, claim: Claim) -> Scope:
    stored = StoredRun.from_new(new)
    pending = _pending(runtime, claim, RunClock(runtime.clock, stored.started_at))
    position = first_position(runtime, workflow, stored, is_resumed=False)
    return _scope(runtime, workflow, stored, position, pending, is_resumed=False)


def _pending(runtime: Runtime, claim: Claim, clock: RunClock) -> PendingWrites:
    return PendingWrites(claim, records_events=runtime.config.emit_events, clock=clock)


def _scope(
    runtime: Runtime,
    workflow: Workflow,
    stored: StoredRun,
    position: Position,
    pending: PendingWrites,
    *,
    is_resumed: bool,
) -> Scope:
    clock = pending.clock
    run = Run(
        stored.run_id,
        workflow,
        pending,
        stored.started_at,
        clock,
        begun_mono=clock.monotonic() - (clock.now() - stored.started_at).total_seconds(),
        is_resumed=is_resumed,
        resumed_path=position.cursor.segment if is_resumed else None,
        tally=position.tally,
    )
    return Scope(run, workflow, "", position.cursor, position.context, position.waits, position.last_output)


async def _load_existing(runtime: Runtime, request: Request, new: NewRun) -> Scope | WorkflowResult:
    stored = await load(runtime, new.run_id)
    _check_same(new, stored)
    if not stored.status.is_final:
        try:
            return await claim_and_replay(runtime, request.workflow, stored)
        except RunNotResumableError:  # it has ended since it was loaded
            stored = await load(runtime, new.run_id)
    return await _load_result(runtime, request.workflow, stored)


async def _load_result(runtime: Runtime, workflow: Workflow, stored: StoredRun) -> WorkflowResult:
    """The result of a run that has ended, as it was when it ended."""
    position = await load_position(runtime, workflow, stored)
    step = position.cursor.step
    if stored.status is RunStatus.FAILED and step is not None:
        path, store = position.cursor.segment, runtime.store
        failed = await store.last_event(stored.run_id, EventType.STEP_FAILED, path)
        if failed is not None:
            started = await store.last_event(stored.run_id, EventType.STEP_STARTED, path)
            with CorruptionGuard(stored.run_id):
                position.tally.add_failure(stored_failure(step, failed, started))
    return stored_result(workflow, stored, position)


def _check_same(new: NewRun, stored: StoredRun) -> None:
    if stored.workflow_name != new.workflow_name:
        problem = f"belongs to workflow {stored.workflow_name!r}, not to {new.workflow_name!r}"
    elif not has_same_params(new, stored):
        problem = "was started with other params (or another start_from)"
    else:
        return
    raise RunConflictError(
        new.run_id, f"run {new.run_id!r} {problem}; use another run id, or call resume() to continue the stored run"
    )


async def _commit_override(
    runtime: Runtime, pending: PendingWrites, updates: Mapping[str, Document], stored: StoredRun, resumed: EventRow
) -> None:
    """Store the params that a resume changes, before any step sees them."""
    pending.add_marker(_override_row(pending.claim.epoch, updates, stored), resumed)
    with RAISING_ERRORS:
        await runtime.journal.commit(pending)


async def _end_poison_run(
    runtime: Runtime, workflow: Workflow, stored: StoredRun, position: Position, pending: PendingWrites
) -> WorkflowResult:
    step = position.cursor.step
    message = (
        f"poison run: it was claimed {stored.claims_since_progress} times without finishing another step, "
        f"each time at step {step.name if step else None!r}; fix the cause, then resume() it"
    )
    outcome = Outcome(RunStatus.FAILED, step.name if step else None, message, ErrorCategory.INTERNAL)
    with RAISING_ERRORS:
        end = await commit_outcome(runtime, pending, outcome)
    return position_result(workflow, stored, position, end)


def _override_row(epoch: int, updates: Mapping[str, Document], stored: StoredRun) -> VisitRow:
    return VisitRow(
        path=f"@resume#{epoch}",
        step_name="@resume",
        step_type=StepType.LAMBDA,
        status=StepStatus.OVERRIDE,
        attempts=0,
        started_at=stored.started_at,
        duration_ms=0.0,
        output=None,
        output_size=0,
        updates=join_object(updates).text,
        quality=None,
        item_params=None,
        scope="",
        completed_at=stored.started_at,
    )
