"""Forks a stored run: creates a new run that begins with the steps which another run has finished."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from pydantic import ValidationError

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.start.continuation import claim_and_replay, params_row
from spine_async._engine.start.fork_point import ForkPoint, find_fork_point
from spine_async._engine.start.fork_request import ForkRequest, check_same_fork, request_digest
from spine_async._engine.start.opening import open_existing
from spine_async._engine.start.request import prepared_params
from spine_async._engine.start.stored_run import check_version, is_incomplete, load
from spine_async._engine.state.params import overridden_params
from spine_async._engine.state.scope import Scope
from spine_async._engine.step.encoding import encode_output
from spine_async._engine.step.param_documents import check_param_sizes, mapping_documents
from spine_async._engine.tasks import run_shielded
from spine_async._model.context_access import params_of
from spine_async._model.document import Document, encode, encode_object, join_object
from spine_async._model.failure import validation_problems
from spine_async._model.fork import COPIED_MARK, ForkOutcome, NewFork
from spine_async._model.large_text import split_members
from spine_async._model.run_row import DueTime, NewRun, StoredRun
from spine_async._model.status import EventType, StepType
from spine_async._model.visit_row import EventRow, VisitRow
from spine_async._model.workflow import Workflow
from spine_async._model.workflow_result import WorkflowResult
from spine_async.errors import (
    DefinitionError,
    InvalidParamsError,
    RunConflictError,
    RunNotFoundError,
    StoreCapabilityError,
)
from spine_async.ports import forks_runs


async def open_fork(
    runtime: Runtime, workflow: Workflow, source: StoredRun, request: ForkRequest
) -> Scope | WorkflowResult:
    """Create the fork and claim it; returns its scope. A stored fork of the same request is opened if it is due.

    Raises:
        NotClaimable: The stored fork is held by another owner, or is not due yet.
        RunConflictError: The new id belongs to another run.
        SpineError: As `create_fork` and `claim_and_replay`.
    """
    is_new = await create_fork(runtime, workflow, source, request)
    stored = await load(runtime, request.run_id)
    if is_new:
        return await claim_and_replay(runtime, workflow, stored, is_joining=True)
    check_same_fork(request, stored)
    return await open_existing(runtime, workflow, stored)


async def create_fork(runtime: Runtime, workflow: Workflow, stored: StoredRun, request: ForkRequest) -> bool:
    """Store the new run; returns False if its id belongs to another run.

    Args:
        runtime: What all runs share.
        workflow: The definition of the new run.
        stored: The run to fork.
        request: The fork.

    Raises:
        DefinitionError: The path or an output is invalid.
        InvalidParamsError: The params do not fit.
        SerializationError: A param or an output has no strict JSON form.
        WorkflowChangedError: The definition does not fit the steps that are copied.
        RunConflictError: The run belongs to another workflow.
        RunNotFoundError: The run has been deleted meanwhile.
        StoreCapabilityError: The store cannot fork runs.
        StoreError: The store cannot be written.
    """
    store = runtime.store
    if not forks_runs(store):
        way_out = "use the store of a database, or MemoryRunStore"
        raise StoreCapabilityError(runtime.store_name, "cannot fork runs", way_out)
    if stored.workflow_name != workflow.name:
        problem = f"belongs to workflow {stored.workflow_name!r}, not to {workflow.name!r}"
        raise RunConflictError(stored.run_id, f"run {stored.run_id!r} {problem}")
    check_version(workflow, stored)
    point = await find_fork_point(runtime, workflow, stored, request.path)
    new = await _new_fork(runtime, workflow, stored, request, point)
    outcome = await run_shielded(store.fork(new), "spine_async fork")
    if outcome is ForkOutcome.NOT_FOUND:
        raise RunNotFoundError(stored.run_id)
    return outcome is ForkOutcome.FORKED


async def _new_fork(
    runtime: Runtime, workflow: Workflow, stored: StoredRun, request: ForkRequest, point: ForkPoint
) -> NewFork:
    documents = mapping_documents("params", request.params or {}, runtime.config.max_value_bytes)
    base = prepared_params(runtime, workflow, stored.params) if is_incomplete(stored) else None
    current = {**params_of(point.position.context), **(base or {})}
    given = request.params or {}
    changed = {**point.later, **(overridden_params(workflow, current, documents, given) if documents else {})}
    copied, initial = _replaced_outputs(runtime, workflow, stored, request, point)
    params = stored.params if base is None else join_object(base).text
    if point.until == 0 and changed:
        params, changed = join_object({**split_members(params), **changed}).text, {}
    run = replace(_new_run(runtime, workflow, stored, request), params=params, initial_outputs=initial)
    records = run.records_events and point.until > 0
    return NewFork(
        run=run,
        source_id=stored.run_id,
        source_created_at=stored.created_at,
        until=point.until,
        outputs=copied,
        override=_override(run, changed) if changed else None,
        event=_event(run, stored, request) if records else None,
    )


def _new_run(runtime: Runtime, workflow: Workflow, stored: StoredRun, request: ForkRequest) -> NewRun:
    """The new run. Nobody claims it at once, because the runner that forks it does; if it dies, others do."""
    now, seconds = runtime.clock.now(), runtime.config.lease_ttl
    return NewRun(
        run_id=request.run_id,
        workflow_name=workflow.name or "",
        workflow_version=workflow.version,
        fingerprint=workflow.fingerprint,
        params=stored.params,
        params_hash=stored.params_hash,
        request_hash=request_digest(request),
        partition=stored.partition,
        initial_outputs=stored.initial_outputs,
        initial_quality=stored.initial_quality,
        start_from=stored.start_from,
        total_steps=len(workflow.steps),
        owner=None,
        created_at=now,
        records_events=runtime.config.emit_events,
        metadata=stored.metadata,
        due=DueTime(now + timedelta(seconds=seconds), seconds),
        started_by="fork",
    )


def _override(run: NewRun, changed: Mapping[str, Document]) -> VisitRow:
    """The row that stores changed params behind the copied rows."""
    row = params_row(COPIED_MARK, COPIED_MARK, changed, run.created_at)
    return replace(row, records_events=False)


def _event(run: NewRun, stored: StoredRun, request: ForkRequest) -> EventRow:
    metadata = encode({"forked_from": stored.run_id, "before": request.path})
    return EventRow(EventType.WORKFLOW_FORKED, None, run.created_at, metadata.text)


def _replaced_outputs(
    runtime: Runtime, workflow: Workflow, stored: StoredRun, request: ForkRequest, point: ForkPoint
) -> tuple[dict[str, str], str]:
    """The outputs of copied visits to replace, by path; and the outputs with which the run begins.

    Raises:
        DefinitionError: A step has no output before the visit, or is a choice.
    """
    given = {} if request.outputs is None else request.outputs
    initial = split_members(stored.initial_outputs) if given else {}
    copied: dict[str, Document] = {}
    for name, output in given.items():
        document = _output(workflow, name, output)
        if name in point.last_paths:
            copied[point.last_paths[name]] = document
        elif name in initial:
            initial[name] = document
        else:
            problem = f"step {name!r} has no output before {request.path!r} that outputs= could replace"
            raise DefinitionError(problem, workflow=workflow.name)
    check_param_sizes("outputs", copied, runtime.config.max_value_bytes)
    check_param_sizes("outputs", initial, runtime.config.max_value_bytes)
    text = join_object(initial).text if given else stored.initial_outputs
    return {path: each.text for path, each in copied.items()}, text


def _output(workflow: Workflow, name: str, output: object) -> Document:
    """The output of a step in its stored form."""
    if name not in workflow.positions:
        return encode_object({"outputs": output})["outputs"]
    step = workflow.step(name)
    if step.step_type is StepType.CHOICE:
        problem = "outputs= cannot replace the output of a choice, which has decided the path; fork before the choice"
        raise DefinitionError(problem, workflow=workflow.name, step=name)
    try:
        return encode_output(step, output)
    except ValidationError as exc:
        problem = f"the output does not fit its output_model: {validation_problems(exc)}"
        raise InvalidParamsError(problem, workflow=workflow.name, step=name) from None
