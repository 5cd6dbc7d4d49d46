"""A request to execute a workflow: checked, and turned into a run that can be created."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.params import run_params
from spine_async._engine.step.param_documents import check_param_sizes, mapping_documents
from spine_async._model.context import DRY_RUN_PARAM, WorkflowContext
from spine_async._model.context_access import outputs_of, params_of
from spine_async._model.document import EMPTY, Document, encode, join_object, split_object
from spine_async._model.large_document import is_large
from spine_async._model.large_text import LARGE_TEXT, canonical_pieces
from spine_async._model.limits import MAX_RECORD_BYTES
from spine_async._model.naming import MAX_NAME_LENGTH, text_problem
from spine_async._model.run_row import NewRun, StoredRun
from spine_async._model.shown import shown
from spine_async._model.workflow import Workflow
from spine_async.errors import DefinitionError, InvalidParamsError


@dataclass(slots=True)
class Request:
    """The arguments of `execute`."""

    workflow: Workflow
    params: Mapping[str, object] | None
    partition: Mapping[str, object] | None
    context: WorkflowContext | None
    start_from: str | None
    run_id: str
    started_by: str = "execute"


async def prepare_run(runtime: Runtime, request: Request) -> NewRun:
    """The run to create for a request, as `new_run` gives it; large values are encoded on a thread."""
    return await runtime.run_on_thread(new_run, runtime, request) if _is_heavy(request) else new_run(runtime, request)


def new_run(runtime: Runtime, request: Request) -> NewRun:
    """The run to create for a request.

    Raises:
        DefinitionError: The workflow has no name, or not the step to start from.
        InvalidParamsError: The params do not fit, or are too large.
        SerializationError: A param has no strict JSON form.
    """
    workflow, context = request.workflow, request.context
    if not isinstance(workflow, Workflow):
        raise DefinitionError(f"{shown(workflow)} is not a workflow; create one with Workflow(name, steps)")
    if not workflow.name:
        raise DefinitionError("a workflow needs a name to be executed")
    if request.start_from is not None:
        workflow.step(request.start_from)
    inherited, given = _given(runtime, request)
    params = join_object(_params(runtime, workflow, inherited, given, request.params or {}))
    outputs = outputs_of(context) if context else {}
    partition = request.partition if request.partition is not None else (context.partition if context else None)
    limit = runtime.config.max_value_bytes
    new = NewRun(
        run_id=request.run_id,
        workflow_name=workflow.name,
        workflow_version=workflow.version,
        fingerprint=workflow.fingerprint,
        params=params.text,
        params_hash=_digest(params, request.start_from),
        request_hash=_digest(join_object({**inherited, **given}), request.start_from),
        partition=join_object(mapping_documents("partition", partition, limit)).text if partition is not None else None,
        initial_outputs=join_object(outputs).text,
        initial_quality=encode(dict(context.quality)).text if context else EMPTY.text,
        start_from=request.start_from,
        total_steps=len(workflow.steps),
        owner=runtime.owner,
        created_at=runtime.clock.now(),
        records_events=runtime.config.emit_events,
        metadata=encode(_metadata(context)).text if context else EMPTY.text,
        lease_ttl=runtime.config.lease_ttl,
        started_by=request.started_by,
    )
    _check_size(workflow, new)
    return new


def _metadata(context: WorkflowContext) -> dict[str, object]:
    return {name: value for name, value in context.metadata.items() if name != DRY_RUN_PARAM}


def has_same_params(new: NewRun, stored: StoredRun) -> bool:
    """Whether a stored run was started with the params of a new one; compares the params as the callers gave them.

    Runs that an earlier version stored have no digest of the request. Theirs is a digest of the params as the caller
    gave them, or after defaults and models.
    """
    if stored.request_hash is not None:
        return stored.request_hash == new.request_hash
    return stored.params_hash in {new.request_hash, new.params_hash}


def _given(runtime: Runtime, request: Request) -> tuple[dict[str, Document], dict[str, Document]]:
    """The params of the given context, and the given params, which overlay them."""
    limit = runtime.config.max_value_bytes
    from_context = dict(params_of(request.context)) if request.context else {}
    from_context.pop(DRY_RUN_PARAM, None)  # the context may come from a dry run, and this runner may not be dry
    check_param_sizes("params", from_context, limit)
    return from_context, mapping_documents("params", {} if request.params is None else request.params, limit)


def _params(
    runtime: Runtime,
    workflow: Workflow,
    inherited: Mapping[str, Document],
    given: Mapping[str, Document],
    values: Mapping[str, object],
) -> dict[str, Document]:
    """The workflow's defaults, overlaid by what the caller gave; validated by its model."""
    defaults = mapping_documents("defaults", workflow.defaults, runtime.config.max_value_bytes)
    params = run_params(workflow, defaults, inherited, given, values)
    if runtime.is_dry:  # set after validation, because the model may forbid extra fields
        params[DRY_RUN_PARAM] = encode(True)
    return params


def prepared_params(
    runtime: Runtime, workflow: Workflow, text: str, values: Mapping[str, object] | None = None
) -> dict[str, Document]:
    """The params of a run that was enqueued where its workflow is not known, with what the workflow adds to them.

    Args:
        runtime: What all runs share.
        workflow: The workflow.
        text: JSON object text of the params as the caller gave them.
        values: The values that the caller gave, if they are known.

    Raises:
        InvalidParamsError: They do not fit.
        SerializationError: A default has no strict JSON form.
    """
    return _params(runtime, workflow, {}, dict(split_object(text)), values or {})


def unknown_run(
    runtime: Runtime,
    name: str,
    params: Mapping[str, object] | None,
    partition: Mapping[str, object] | None,
    run_id: str,
) -> NewRun:
    """A run to enqueue of a workflow that is not known here; whoever starts it completes its params.

    Raises:
        DefinitionError: The name cannot be the name of a workflow.
        InvalidParamsError: The params are no mapping, or too large.
        SerializationError: A param has no strict JSON form.
    """
    problem = text_problem(name, MAX_NAME_LENGTH)
    if problem is not None:
        raise DefinitionError(f"invalid workflow {shown(name)}: {problem}")
    limit = runtime.config.max_value_bytes
    given = join_object(mapping_documents("params", {} if params is None else params, limit))
    digest = _digest(given, None)
    return NewRun(
        run_id=run_id,
        workflow_name=name,
        workflow_version=0,
        fingerprint="",
        params=given.text,
        params_hash=digest,
        request_hash=digest,
        partition=join_object(mapping_documents("partition", partition, limit)).text if partition is not None else None,
        initial_outputs=EMPTY.text,
        initial_quality=EMPTY.text,
        start_from=None,
        total_steps=0,
        owner=None,
        created_at=runtime.clock.now(),
        records_events=runtime.config.emit_events,
    )


def _is_heavy(request: Request) -> bool:
    if is_large(request.params) or is_large(request.partition) or is_large(getattr(request.workflow, "defaults", None)):
        return True
    context = request.context
    return context is not None and (_are_large(params_of(context)) or _are_large(outputs_of(context)))


def _are_large(documents: Mapping[str, Document]) -> bool:
    return sum(len(each.text) for each in documents.values()) > LARGE_TEXT


def _check_size(workflow: Workflow, new: NewRun) -> None:
    """Refuse a run that cannot be stored in one row."""
    if new.size > MAX_RECORD_BYTES:
        problem = f"params, partition and outputs have {new.size:,} characters as JSON, more than {MAX_RECORD_BYTES:,}"
        raise InvalidParamsError(problem, workflow=workflow.name)


def _digest(params: Document, start_from: str | None) -> str:
    """Digest of params and start; does not depend on the order of keys."""
    if params is EMPTY and start_from is None:
        return _EMPTY_DIGEST
    return _digest_of(start_from, params)


def _digest_of(start_from: str | None, params: Document) -> str:
    """Digest of `json.dumps([start_from, params], sort_keys=True)`."""
    digest = hashlib.sha256(f"[{json.dumps(start_from)}, ".encode())
    for piece in canonical_pieces(params.text):
        digest.update(piece.encode())
    digest.update(b"]")
    return digest.hexdigest()[:32]


_EMPTY_DIGEST = _digest_of(None, EMPTY)
