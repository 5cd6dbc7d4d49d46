"""What the next execution of a stored run depends on: its versions, limits, requests and earlier claims."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.start.claim import NotClaimable
from spine_async._engine.start.request import has_same_params
from spine_async._engine.state.outcome import Outcome
from spine_async._engine.state.position import Position
from spine_async._engine.tasks import run_shielded
from spine_async._model.document import encode
from spine_async._model.failure import ErrorCategory
from spine_async._model.naming import check_run_id
from spine_async._model.run_change import RunDefinition
from spine_async._model.run_row import NewRun, StoredRun
from spine_async._model.status import EventType, RunStatus
from spine_async._model.stop_request import StopRequest
from spine_async._model.visit_row import EventRow
from spine_async._model.workflow import Workflow
from spine_async.errors import RunConflictError, RunNotFoundError, WorkflowChangedError
from spine_async.ports import writes_within


async def load(runtime: Runtime, run_id: str) -> StoredRun:
    """The stored run.

    Raises:
        RunNotFoundError: The run is not stored.
    """
    stored = await run_shielded(runtime.store.load(check_run_id(run_id)), "spine_async load")
    if stored is None:
        raise RunNotFoundError(run_id)
    return stored


async def find(runtime: Runtime, run_id: str, connection: object) -> StoredRun | None:
    """The stored run, or None.

    Args:
        runtime: What all runs share.
        run_id: The run.
        connection: The caller's own connection, whose transaction may have stored the run; or None.
    """
    store = runtime.store
    stored = await store.load_within(connection, run_id) if connection is not None and writes_within(store) else None
    return stored or await run_shielded(store.load(run_id), "spine_async load")


def stop_request(stored: StoredRun) -> StopRequest:
    """The request to stop the run that no owner has carried out; one without a reason if there is none."""
    return StopRequest.read(stored.stop_requested or "")


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


def definition_of(workflow: Workflow) -> RunDefinition:
    """What a run stores of its definition."""
    return RunDefinition(workflow.version, workflow.fingerprint, len(workflow.steps))


def with_definition(stored: StoredRun, workflow: Workflow) -> StoredRun:
    """The run with what it stores of its definition; `is_incomplete` is false for it."""
    if not is_incomplete(stored):
        return stored
    definition = definition_of(workflow)
    return replace(
        stored,
        workflow_version=definition.workflow_version,
        fingerprint=definition.fingerprint,
        total_steps=definition.total_steps,
    )


def is_poisoned(runtime: Runtime, stored: StoredRun) -> bool:
    """Whether too many owners of the run died before it finished another step."""
    return not stored.status.is_final and stored.claims_since_progress >= runtime.config.max_claims


def is_parked(stored: StoredRun) -> bool:
    """Whether the run waits without an owner."""
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


def poison_outcome(stored: StoredRun, position: Position) -> Outcome:
    """The outcome of a run whose owners died again and again."""
    step = position.cursor.step
    message = (
        f"poison run: it was claimed {stored.claims_since_progress} times without finishing another step, "
        f"each time at step {step.name if step else None!r}; fix the cause, then resume() it"
    )
    return Outcome(RunStatus.FAILED, step.name if step else None, message, ErrorCategory.INTERNAL)
