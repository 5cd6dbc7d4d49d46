"""How a run comes to be executed: created, found again, or taken up after an interruption."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from spine_async._engine.background import run_through
from spine_async._engine.cursor import Cursor
from spine_async._engine.engine import Engine
from spine_async._engine.ledger import Ledger
from spine_async._engine.report import live_result, stored_end, stored_failure
from spine_async._engine.scope import Run, Scope
from spine_async._engine.settling import replay
from spine_async._engine.signals import CommitFailed
from spine_async._model.context import DRY_RUN_PARAM, WorkflowContext
from spine_async._model.document import Document, encode, encode_object, join_object, split_object
from spine_async._model.failure import validation_problems
from spine_async._model.naming import check_run_id
from spine_async._model.record import Claim, EventRow, NewRun, StoredRun, VisitRow
from spine_async._model.result import WorkflowResult
from spine_async._model.status import EventType, RunStatus, StepStatus, StepType
from spine_async._model.workflow import Workflow
from spine_async.errors import (
    DefinitionError,
    InvalidParamsError,
    RunConflictError,
    RunNotFoundError,
    RunNotResumableError,
    SerializationError,
)


@dataclass(frozen=True, slots=True)
class Request:
    """What `execute` was asked for."""

    workflow: Workflow
    params: Mapping[str, object] | None = None
    partition: Mapping[str, object] | None = None
    context: WorkflowContext | None = None
    start_from: str | None = None
    run_id: str | None = None
    owner: str = ""


async def open_new(engine: Engine, request: Request) -> Scope | WorkflowResult:
    """A new run's scope; or, where its id is stored already, that run's to go on with, or its result.

    Raises:
        DefinitionError: The workflow has no name, or not the step to start from.
        InvalidParamsError: The params do not fit.
        SerializationError: A param has no strict JSON form.
        RunConflictError: The id belongs to a run of another workflow or with other params.
    """
    new = _new_run(engine, request)
    try:
        claim = await engine.journal.create(new)
    except CommitFailed as exc:
        raise exc.error from exc.error.__cause__
    if claim is not None:
        return _scope_of(engine, request.workflow, _as_stored(new), claim, is_resumed=False)
    stored = await load(engine, new.run_id)
    _check_same(new, stored)
    if stored.status.is_final:
        return await stored_result(engine, request.workflow, stored)
    return await take_up(engine, request.workflow, stored, request.owner)


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
    owner: str,
    override: Mapping[str, object] | None = None,
) -> Scope:
    """Claim a stored run and put its scope behind the last committed step.

    Raises:
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
    scope = await _replayed(engine, workflow, stored, _unclaimed(stored))
    claim = await run_through(engine.store.claim(stored.run_id, owner, None), "spine_async claim")
    if claim is None:
        raise RunNotResumableError(stored.run_id, f"run {stored.run_id!r} has completed meanwhile")
    if claim.next_seq != stored.next_seq:  # somebody committed between the load and the claim
        scope = await _replayed(engine, workflow, stored, claim)
    scope.run.ledger = Ledger(claim, emits=engine.config.emit_events)
    await _record_resume(engine, scope, updates)
    return scope


async def stored_result(engine: Engine, workflow: Workflow, stored: StoredRun) -> WorkflowResult:
    """The result of a run that has ended, as it was when it ended."""
    scope = await _replayed(engine, workflow, stored, _unclaimed(stored))
    if stored.status is RunStatus.FAILED:
        after = scope.run.ledger.claim.next_seq
        events = await engine.store.events(stored.run_id, 0, after)
        failure = stored_failure(scope, events)
        if failure is not None:
            scope.run.tally.add_failure(failure)
    return live_result(scope, stored_end(stored))


def _new_run(engine: Engine, request: Request) -> NewRun:
    workflow, context = request.workflow, request.context
    if not isinstance(workflow, Workflow):
        raise DefinitionError(f"{workflow!r} is not a workflow; build one with Workflow(name, steps)")
    if not workflow.name:
        raise DefinitionError("a workflow that is executed by itself needs a name")
    if request.start_from is not None:
        workflow.step(request.start_from)
    run_id = check_run_id(request.run_id) if request.run_id is not None else str(uuid.uuid4())
    params = join_object(_params(engine, request))
    outputs = context.documents[1] if context else {}
    partition = request.partition if request.partition is not None else (context.partition if context else None)
    return NewRun(
        run_id=run_id,
        workflow_name=workflow.name,
        workflow_version=workflow.version,
        fingerprint=workflow.fingerprint,
        params=params.text,
        params_hash=_digest(params.text, request.start_from),
        partition=join_object(_mapping("partition", partition)).text if partition is not None else None,
        initial_outputs=join_object(outputs).text,
        initial_quality=encode(dict(context.quality) if context else {}).text,
        start_from=request.start_from,
        total_steps=len(workflow.steps),
        owner=request.owner,
        created_at=engine.clock.now(),
        emits=engine.config.emit_events,
        metadata=encode(dict(context.metadata) if context else {}).text,
    )


def _params(engine: Engine, request: Request) -> dict[str, Document]:
    """Defaults, then the context's params, then the given ones; as the workflow's model reads them."""
    workflow = request.workflow
    from_context = dict(request.context.documents[0]) if request.context else {}
    given = {**encode_object(workflow.defaults), **from_context, **_mapping("params", request.params or {})}
    if engine.is_dry:
        given[DRY_RUN_PARAM] = encode(True)
    if workflow.params_model is None:
        return dict(sorted(given.items()))
    try:
        model = workflow.params_model.model_validate_json(join_object(given).text)
    except ValidationError as exc:
        told = f"the params do not fit {validation_problems(exc)}"
        raise InvalidParamsError(told, workflow=workflow.name) from None
    return dict(sorted({**given, **split_object(encode(model).text)}.items()))


def _mapping(what: str, given: object) -> dict[str, Document]:
    if not isinstance(given, Mapping):
        raise InvalidParamsError(f"{what} is of type {type(given).__name__}; it must be a mapping of names to values")
    try:
        return encode_object(given)
    except SerializationError as exc:
        raise exc.within(f".{what}") from None


def _digest(params: str, start_from: str | None) -> str:
    return hashlib.sha256(f"{start_from or ''}\n{params}".encode()).hexdigest()[:32]


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
    scope = _scope_of(engine, workflow, stored, claim, is_resumed=True)
    rows = await run_through(engine.store.visits(stored.run_id), "spine_async load")
    replay(scope, rows)
    return scope


def _scope_of(engine: Engine, workflow: Workflow, stored: StoredRun, claim: Claim, *, is_resumed: bool) -> Scope:
    ledger = Ledger(claim, emits=engine.config.emit_events)
    run = Run(stored.run_id, workflow, ledger, stored.started_at, is_resumed=is_resumed)
    return Scope(run, workflow, "", Cursor(workflow, stored.start_from), _first_context(workflow, stored, is_resumed))


def _first_context(workflow: Workflow, stored: StoredRun, is_resumed: bool) -> WorkflowContext:
    quality = Document(stored.initial_quality).value()
    context = WorkflowContext.from_dict(
        {
            "run_id": stored.run_id,
            "workflow_name": stored.workflow_name,
            "quality": quality,
            "partition": Document(stored.partition).value() if stored.partition is not None else None,
            "metadata": {**split_values(stored.metadata), "resumed": is_resumed},
            "started_at": stored.started_at.isoformat(),
        }
    )
    outputs = split_object(stored.initial_outputs)
    return context.with_models(workflow.models).with_documents(split_object(stored.params), outputs)


def split_values(text: str) -> dict[str, object]:
    """A stored JSON object as values."""
    return {key: each.value() for key, each in split_object(text).items()}


def _override_documents(override: Mapping[str, object] | None) -> dict[str, Document]:
    return _mapping("params_override", override) if override else {}


async def _record_resume(engine: Engine, scope: Scope, updates: Mapping[str, Document]) -> None:
    ledger, now = scope.run.ledger, engine.clock.now()
    resumed = EventRow(EventType.WORKFLOW_RESUMED, None, now)
    if updates:
        scope.context = scope.context.with_documents(updates)
        ledger.keep(_override_row(ledger.claim.epoch, updates, scope), resumed)
    else:
        ledger.note(resumed)
    try:
        await engine.journal.commit(ledger)
    except CommitFailed as exc:
        raise exc.error from exc.error.__cause__


def _override_row(epoch: int, updates: Mapping[str, Document], scope: Scope) -> VisitRow:
    now = scope.run.started_at
    return VisitRow(
        path=f"@resume#{epoch}",
        scope="",
        step_name="@resume",
        step_type=StepType.LAMBDA,
        status=StepStatus.OVERRIDE,
        attempts=0,
        started_at=now,
        completed_at=now,
        duration_ms=0.0,
        updates=join_object(updates).text,
    )


def _as_stored(new: NewRun) -> StoredRun:
    return StoredRun(
        run_id=new.run_id,
        workflow_name=new.workflow_name,
        workflow_version=new.workflow_version,
        fingerprint=new.fingerprint,
        params=new.params,
        params_hash=new.params_hash,
        partition=new.partition,
        initial_outputs=new.initial_outputs,
        initial_quality=new.initial_quality,
        start_from=new.start_from,
        total_steps=new.total_steps,
        status=RunStatus.RUNNING,
        epoch=1,
        owner=new.owner,
        next_seq=1,
        error_step=None,
        error=None,
        error_category=None,
        stop_reason=None,
        created_at=new.created_at,
        started_at=new.created_at,
        updated_at=new.created_at,
        completed_at=None,
        metadata=new.metadata,
    )


def _unclaimed(stored: StoredRun) -> Claim:
    return Claim(stored.run_id, 0, stored.epoch, stored.next_seq)
