"""Opens a run for execution: creates it, or claims and replays the stored one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from spine_async._engine.commit.journal import Creation
from spine_async._engine.run.recording import commit_outcome
from spine_async._engine.run.result import position_result, stored_end, stored_failure, stored_result
from spine_async._engine.run.supervision import give_up
from spine_async._engine.run.unwinding import must_unwind
from spine_async._engine.runtime.plain_reads import last_event
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.start.claim import NotClaimable, claim_run
from spine_async._engine.start.replay import first_position, load_position
from spine_async._engine.start.request import (
    Request,
    has_same_params,
    prepare_run,
    prepared_params,
)
from spine_async._engine.state.interrupts import RAISING_ERRORS
from spine_async._engine.state.outcome import Outcome
from spine_async._engine.state.params import overridden_params
from spine_async._engine.state.pending_writes import PendingWrites
from spine_async._engine.state.scope import RESUME_MARK, Position, Run, Scope
from spine_async._engine.state.unwinding import RESTART_MARK
from spine_async._engine.state.wall_clock import RunClock
from spine_async._engine.step.param_documents import mapping_documents
from spine_async._engine.tasks import CANCELLATION, run_shielded
from spine_async._model.context_access import params_of, with_documents
from spine_async._model.corruption_guard import CorruptionGuard
from spine_async._model.document import Document, encode, join_object
from spine_async._model.failure import ErrorCategory
from spine_async._model.large_text import LARGE_TEXT
from spine_async._model.naming import check_run_id
from spine_async._model.record import Claim, DueTime, EventRow, NewRun, Release, StoredRun, VisitRow
from spine_async._model.status import EventType, RunStatus, StepStatus, StepType
from spine_async._model.stop_request import StopRequest
from spine_async._model.workflow import Workflow
from spine_async._model.workflow_result import WorkflowResult
from spine_async._model.workflow_step import starts_runs
from spine_async.errors import (
    RunBusyError,
    RunConflictError,
    RunNotFoundError,
    RunNotResumableError,
    WorkflowChangedError,
)
from spine_async.ports import RunSpan


async def start_or_load(runtime: Runtime, request: Request) -> Scope | WorkflowResult:
    """Create the run and return its scope. If its id is already stored, return the scope or the result of that run.

    Raises:
        DefinitionError: The workflow has no name, or does not have the step to start from.
        InvalidParamsError: The params do not fit.
        SerializationError: A param has no strict JSON form.
        RunConflictError: The id belongs to a run of another workflow or with other params.
        NotClaimable: The run is held by another owner, is not due yet, or its queue has no room.

    Cancellation:
        A run that was created is given up.
    """
    new = await prepare_run(runtime, request)
    # It begins here, so that it is stored with the run. If the run is not created, its context is never entered.
    span = runtime.observer.run(new.run_id, new.workflow_name, is_resumed=False)
    new.traceparent = span.traceparent
    creation = Creation(new)
    try:
        with RAISING_ERRORS:
            await runtime.journal.create(creation)
    except CANCELLATION:
        if creation.claim is not None:
            await _give_up_unopened(runtime, creation.claim)
        raise
    if creation.claim is None:
        return await _load_existing(runtime, request.workflow, creation.run)
    created = creation.run, creation.claim, span
    if creation.run.size <= LARGE_TEXT:
        return _created_scope(runtime, request.workflow, *created)
    return await runtime.run_on_thread(_created_scope, runtime, request.workflow, *created)


async def _give_up_unopened(runtime: Runtime, claim: Claim) -> None:
    """Release a run that nobody will execute, because the event loop is shutting down."""
    release = Release(due=DueTime(runtime.clock.now(), 0.0))
    await run_shielded(runtime.due_runs.release_run(claim, release), "spine_async release")


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
        RunBusyError: Another owner holds the run, or a step of it that was left behind here may still be at work.
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
    """What is to be done with a stored run, before it is claimed.

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
        event=first_event(stored, at) if begins and runtime.config.emit_events else None,
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
    if plan.is_stored:
        resumed = plan.event or first_event(stored, clock.now())
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


def stop_request(stored: StoredRun) -> StopRequest:
    """The request to stop the run that no owner has carried out; one without a reason if there is none."""
    return StopRequest.read(stored.stop_requested or "")


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
    return {**completed, **(overridden_params(workflow, {**current, **completed}, updates) if updates else {})}


def _release_unopened(runtime: Runtime, stored: StoredRun) -> Release:
    """How to give up a claimed run that could not be opened: as it was before, or due now."""
    if stored.status.is_final:
        return Release(status=stored.status, restored=stored_end(stored))
    return Release(due=DueTime(runtime.clock.now(), 0.0))


def check_version(workflow: Workflow, stored: StoredRun) -> None:
    """Refuse a run of a later version of the workflow than this one.

    Raises:
        WorkflowChangedError: The run has a later version.
    """
    if stored.workflow_version > workflow.version:
        step = stored.start_from or workflow.steps[0].name
        problem = f"belongs to version {stored.workflow_version} of the workflow; this is version {workflow.version}"
        raise WorkflowChangedError(stored.run_id, step, problem, role="step")


EXPIRED = "expired"
"""The `stop_reason` of a run that was not claimed before its `expires_at`."""


async def stop_children(runtime: Runtime, stored: StoredRun, outcome: Outcome) -> None:
    """Stop the child runs of a run that was stopped before its steps could do so."""
    if runtime.child_runs is not None and has_begun(stored) and outcome.status is RunStatus.STOPPED:
        request = replace(stop_request(stored), reason=outcome.stop_reason or "")
        await runtime.child_runs.stop_all(stored.run_id, request)


def early_outcome(stored: StoredRun, position: Position, now: datetime) -> Outcome | None:
    """The outcome of a run that must not be executed any more, or None. An outcome that is decided stays."""
    if stored.stop_requested is not None and position.unwinding is None:
        return Outcome(RunStatus.STOPPED, stop_reason=stop_request(stored).reason)
    if stored.epoch == 0 and stored.expires_at is not None and stored.expires_at <= now:
        return Outcome(RunStatus.STOPPED, stop_reason=EXPIRED)
    return None


def is_incomplete(stored: StoredRun) -> bool:
    """Whether the run was enqueued where its workflow is not known, and its params have not been completed yet."""
    return not stored.fingerprint and not has_begun(stored)


def is_poisoned(runtime: Runtime, stored: StoredRun) -> bool:
    """Whether too many owners of the run died before it finished another step."""
    return not stored.status.is_final and stored.claims_since_progress >= runtime.config.max_claims


def is_parked(stored: StoredRun) -> bool:
    """Whether the run has given up its owner while it waits."""
    return stored.owner is None and stored.status is RunStatus.WAITING


def has_begun(stored: StoredRun) -> bool:
    """Whether an owner has ever committed to the run."""
    return stored.next_seq > 1


def first_event(stored: StoredRun, at: datetime) -> EventRow:
    """The event of a claim: the start of a run of which nothing is stored yet, else a resume."""
    if has_begun(stored):
        return EventRow(EventType.WORKFLOW_RESUMED, None, at)
    metadata = {"workflow_version": stored.workflow_version, "total_steps": stored.total_steps}
    return EventRow(EventType.WORKFLOW_STARTED, None, at, encode(metadata).text)


def _created_scope(runtime: Runtime, workflow: Workflow, new: NewRun, claim: Claim, span: RunSpan) -> Scope:
    stored = StoredRun.from_new(new)
    pending = new_pending(runtime, stored, claim, RunClock(runtime.clock, stored.started_at))
    position = first_position(runtime, workflow, stored, is_resumed=False)
    scope = new_scope(workflow, stored, position, pending, is_resumed=False)
    scope.run.span = span
    return scope


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


async def _load_existing(runtime: Runtime, workflow: Workflow, new: NewRun) -> Scope | WorkflowResult:
    stored = await load(runtime, new.run_id)
    check_same(new, stored)
    return await open_existing(runtime, workflow, stored)


async def open_existing(runtime: Runtime, workflow: Workflow, stored: StoredRun) -> Scope | WorkflowResult:
    """The scope of a stored run that is claimed, or the result of one that has ended.

    Raises:
        NotClaimable: Another owner holds it, it is not due yet, or its queue has no room.
    """
    if not stored.status.is_final:
        if stored.workflow_version > workflow.version:  # a process with the newer definition executes it
            raise NotClaimable(stored.run_id)
        if stored.owner is None and not is_due(stored, runtime.clock.now()):
            raise NotClaimable(stored.run_id)
        try:
            return await claim_and_replay(runtime, workflow, stored, is_joining=True)
        except RunBusyError:
            raise NotClaimable(stored.run_id) from None
        except RunNotResumableError:  # it has ended since it was loaded
            stored = await load(runtime, stored.run_id)
    return await load_result(runtime, workflow, stored)


def check_due(runtime: Runtime, stored: StoredRun) -> None:
    """Check that a queued run which was never started may be started now.

    Raises:
        NotClaimable: It is not due yet.
    """
    is_new = stored.queue and stored.status is RunStatus.PENDING and not has_begun(stored)
    if is_new and not is_due(stored, runtime.clock.now()):
        raise NotClaimable(stored.run_id)


def is_due(stored: StoredRun, now: datetime) -> bool:
    """Whether a run without an owner may be claimed now."""
    return stored.due_at is not None and stored.due_at <= now


async def load_result(runtime: Runtime, workflow: Workflow, stored: StoredRun) -> WorkflowResult:
    """The result of a run that has ended, as it was when it ended."""
    position = await load_position(runtime, workflow, stored, is_resumed=False)
    step = position.cursor.step
    if stored.status is RunStatus.FAILED and step is not None:
        path, store = position.cursor.segment, runtime.store
        failed = await last_event(store, stored.run_id, EventType.STEP_FAILED, path)
        if failed is not None:
            started = await last_event(store, stored.run_id, EventType.STEP_STARTED, path)
            with CorruptionGuard(stored.run_id):
                position.tally.add_failure(stored_failure(step, failed, started))
    return stored_result(workflow, stored, position)


def check_same(new: NewRun, stored: StoredRun) -> None:
    """Check that a request with a stored id is the request that created the run.

    Raises:
        RunConflictError: It has another workflow, other params or another start.
    """
    if stored.workflow_name != new.workflow_name:
        problem = f"belongs to workflow {stored.workflow_name!r}, not to {new.workflow_name!r}"
    elif not has_same_params(new, stored):
        problem = "was started with other params (or another start_from)"
    else:
        return
    raise RunConflictError(
        new.run_id, f"run {new.run_id!r} {problem}; use another run id, or call resume() to continue the stored run"
    )


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
    row = override_row(pending.claim.epoch, updates, stored)
    if is_restart:
        row = replace(row, path=f"{RESTART_MARK}#{pending.claim.epoch}", step_name=RESTART_MARK)
    pending.add_marker(row, resumed)
    with RAISING_ERRORS:
        await runtime.journal.commit(pending)


def poison_outcome(stored: StoredRun, position: Position) -> Outcome:
    """The outcome of a run whose owners died again and again."""
    step = position.cursor.step
    message = (
        f"poison run: it was claimed {stored.claims_since_progress} times without finishing another step, "
        f"each time at step {step.name if step else None!r}; fix the cause, then resume() it"
    )
    return Outcome(RunStatus.FAILED, step.name if step else None, message, ErrorCategory.INTERNAL)


def override_row(epoch: int, updates: Mapping[str, Document], stored: StoredRun) -> VisitRow:
    """The row that stores params which a resume changes."""
    return VisitRow(
        path=f"{RESUME_MARK}#{epoch}",
        step_name=RESUME_MARK,
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
