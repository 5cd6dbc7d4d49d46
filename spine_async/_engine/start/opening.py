"""How a run comes to be executed: created, found again, or taken up after an interruption."""

from __future__ import annotations

from collections.abc import Mapping

from spine_async._engine.commit.journal import Creation
from spine_async._engine.run.result import live_result, stored_end, stored_failure
from spine_async._engine.run.transition import replay
from spine_async._engine.runtime.runtime import Engine
from spine_async._engine.start.admission import admit, stop_unstarted
from spine_async._engine.start.claim import claim_run
from spine_async._engine.start.origin import first_scope, unclaimed
from spine_async._engine.start.request import Request, mapping_documents, new_run
from spine_async._engine.state.interrupts import RAISING_STORE_ERRORS
from spine_async._engine.state.pending_writes import Ledger
from spine_async._engine.state.scope import Scope
from spine_async._engine.tasks import CANCELLATION, run_through
from spine_async._model.corruption_guard import Reading
from spine_async._model.creation import as_stored
from spine_async._model.document import Document, join_object
from spine_async._model.failure import ErrorCategory
from spine_async._model.naming import check_run_id
from spine_async._model.record import Claim, EventRow, NewRun, RunEnd, StoredRun, VisitRow
from spine_async._model.status import EventType, RunStatus, StepStatus, StepType
from spine_async._model.workflow import Workflow
from spine_async._model.workflow_result import WorkflowResult
from spine_async.errors import (
    RunConflictError,
    RunNotFoundError,
    RunNotResumableError,
)


async def open_new(engine: Engine, request: Request) -> Scope | WorkflowResult:
    """A new run's scope; or, where its id is stored already, that run's to go on with, or its result.

    Raises:
        DefinitionError: The workflow has no name, or not the step to start from.
        InvalidParamsError: The params do not fit.
        SerializationError: A param has no strict JSON form.
        RunConflictError: The id belongs to a run of another workflow or with other params.
    """
    creation = Creation(new_run(engine, request))
    try:
        with RAISING_STORE_ERRORS:
            await engine.journal.create(creation)
    except CANCELLATION:
        if creation.claim is not None:
            await stop_unstarted(engine, _opened(engine, request, creation.run, creation.claim))
        raise
    if creation.claim is not None:
        return _opened(engine, request, creation.run, creation.claim)
    return await admit(engine, _found_again(engine, request, creation.run))


def _opened(engine: Engine, request: Request, new: NewRun, claim: Claim) -> Scope:
    return first_scope(engine, request.workflow, as_stored(new), claim, is_resumed=False)


async def _found_again(engine: Engine, request: Request, new: NewRun) -> Scope | WorkflowResult:
    stored = await load(engine, new.run_id)
    _check_same(new, stored)
    if not stored.status.is_final:
        try:
            return await take_up(engine, request.workflow, stored)
        except RunNotResumableError:  # it has ended since
            stored = await load(engine, new.run_id)
    return await stored_result(engine, request.workflow, stored)


async def load(engine: Engine, run_id: str) -> StoredRun:
    """The stored run.

    Raises:
        RunNotFoundError: There is none.
    """
    stored = await run_through(engine.store.load(check_run_id(run_id)), "spine_async load")
    if stored is None:
        raise RunNotFoundError(run_id)
    return stored


async def take_up(
    engine: Engine,
    workflow: Workflow,
    stored: StoredRun,
    override: Mapping[str, object] | None = None,
) -> Scope | WorkflowResult:
    """Claim a stored run and put its scope behind the last committed step.

    Returns:
        The scope; the result of a poison run, which was taken over again and again without getting any further.

    Raises:
        RunBusyError: Somebody else owns the run.
        RunConflictError: The run is one of another workflow.
        RunNotResumableError: It has completed.
        WorkflowChangedError: The definition no longer fits its finished steps; nothing is claimed then.
    """
    if stored.status is RunStatus.COMPLETED:
        raise RunNotResumableError(stored.run_id, f"run {stored.run_id!r} has completed; there is nothing to resume")
    if stored.workflow_name != workflow.name:
        raise RunConflictError(
            stored.run_id,
            f"run {stored.run_id!r} is one of workflow {stored.workflow_name!r}, not of {workflow.name!r}",
        )
    updates = _override_documents(override)
    is_poison = not stored.status.is_final and stored.claims_since_progress >= engine.config.max_claims
    scope = await _replayed(engine, workflow, stored, unclaimed(stored))
    resumed = EventRow(EventType.WORKFLOW_RESUMED, None, engine.clock.now())
    # The claim tells of the resume itself, unless there is more to tell with it.
    event = resumed if engine.config.emit_events and not updates and not is_poison else None
    claim = await claim_run(engine, stored.run_id, event, unless_ended=not stored.status.is_final)
    if claim.next_seq != stored.next_seq + (event is not None):  # somebody committed between the load and the claim
        scope = await _replayed(engine, workflow, stored, claim)
    scope.run.ledger = Ledger(claim, emits=engine.config.emit_events)
    if is_poison:
        return await _end_poison(engine, scope, stored.claims_since_progress)
    if updates:
        await _record_override(engine, scope, updates, resumed)
    return scope


async def stored_result(engine: Engine, workflow: Workflow, stored: StoredRun) -> WorkflowResult:
    """The result of a run that has ended, as it was when it ended."""
    scope = await _replayed(engine, workflow, stored, unclaimed(stored))
    if stored.status is RunStatus.FAILED:
        after = scope.run.ledger.claim.next_seq
        events = await engine.store.events(stored.run_id, 0, after)
        with Reading(stored.run_id):
            failure = stored_failure(scope, events)
        if failure is not None:
            scope.run.tally.add_failure(failure)
    return live_result(scope, stored_end(stored))


def _check_same(new: NewRun, stored: StoredRun) -> None:
    if stored.workflow_name != new.workflow_name:
        told = f"is one of workflow {stored.workflow_name!r}, not of {new.workflow_name!r}"
    elif stored.params_hash != new.params_hash:
        told = "was started with other params (or another start_from)"
    else:
        return
    raise RunConflictError(
        new.run_id, f"run {new.run_id!r} {told}; use another run id, or resume() to go on with the stored run"
    )


async def _replayed(engine: Engine, workflow: Workflow, stored: StoredRun, claim: Claim) -> Scope:
    rows = await run_through(engine.store.past_visits(stored.run_id), "spine_async load")
    with Reading(stored.run_id):
        scope = first_scope(engine, workflow, stored, claim, is_resumed=True)
        replay(scope, rows)
    return scope


def _override_documents(override: Mapping[str, object] | None) -> dict[str, Document]:
    return mapping_documents("params_override", override) if override else {}


async def _record_override(engine: Engine, scope: Scope, updates: Mapping[str, Document], resumed: EventRow) -> None:
    """Store what the resume changes before any step sees it."""
    ledger = scope.run.ledger
    scope.context = scope.context.with_documents(updates)
    ledger.keep(_override_row(ledger.claim.epoch, updates, scope), resumed)
    with RAISING_STORE_ERRORS:
        await engine.journal.commit(ledger)


async def _end_poison(engine: Engine, scope: Scope, claims: int) -> WorkflowResult:
    step = scope.cursor.step
    told = (
        f"poison run: it was taken over {claims} times without finishing another step, each time at step "
        f"{step.name if step else None!r}; resume() it once the cause is mended"
    )
    end = RunEnd(RunStatus.FAILED, engine.clock.now(), step.name if step else None, told, ErrorCategory.INTERNAL)
    scope.run.ledger.close(end)
    with RAISING_STORE_ERRORS:
        await engine.journal.commit(scope.run.ledger)
    return live_result(scope, end)


def _override_row(epoch: int, updates: Mapping[str, Document], scope: Scope) -> VisitRow:
    now = scope.run.started_at
    return VisitRow(
        path=f"@resume#{epoch}",
        step_name="@resume",
        step_type=StepType.LAMBDA,
        status=StepStatus.OVERRIDE,
        attempts=0,
        started_at=now,
        duration_ms=0.0,
        output=None,
        output_size=0,
        updates=join_object(updates).text,
        quality=None,
        opening=None,
        scope="",
        completed_at=now,
    )
