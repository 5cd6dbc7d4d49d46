"""Executes a workflow step with a queue: the child is a run of its own, which any working runner executes.

The id of the child is derived from the run and the path of the visit, so a crash never starts it twice. The child is
stored before the wait is. The commit of its end adds a message for the run of the step. The message only wakes the
visit, which then reads the state of the child.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping
from dataclasses import replace

from spine_async._engine.handlers.waiting import commit_waiting, read_messages, started_event
from spine_async._engine.runtime.child_runs import ChildRun, ChildRuns, ChildState
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.attempt_frame import visit_of
from spine_async._engine.state.cancellation import CancelReason
from spine_async._engine.state.idleness import Wait
from spine_async._engine.state.interrupts import CommitFailed, ResumeRefused
from spine_async._engine.state.marker_row import WAIT_MARK, marker_row
from spine_async._engine.state.repetition import repetition
from spine_async._engine.state.scope import Visit
from spine_async._engine.step.param_documents import given_params
from spine_async._engine.tasks import CANCELLATION, run_shielded
from spine_async._model.context import DRY_RUN_PARAM, WorkflowContext
from spine_async._model.context_access import params_of
from spine_async._model.document import NULL, encode
from spine_async._model.failure import ErrorCategory, storable_text
from spine_async._model.model_input import fields_of, stored_input
from spine_async._model.naming import MAX_RUN_ID_LENGTH
from spine_async._model.run_change import ended_message
from spine_async._model.status import EventType, RunStatus, StepStatus
from spine_async._model.step_result import StepResult
from spine_async._model.stop_request import StopRequest
from spine_async._model.visit_row import EventRow
from spine_async._model.workflow_step import WorkflowStep
from spine_async.errors import (
    DefinitionError,
    InvalidParamsError,
    RunConflictError,
    SerializationError,
    SharingError,
    StoreError,
    WorkflowChangedError,
)

_KEEPS_CHILD = frozenset({CancelReason.SHUTDOWN, CancelReason.PARKED, CancelReason.LEASE_LOST})
"""Reasons for which this execution ends, but not the run."""

_DECISIONS = frozenset({CancelReason.USER, CancelReason.CANCELLED})
"""Reasons for which the run is stopped."""

_OWN_STOPS = frozenset(reason.value for reason in frozenset(CancelReason) - _KEEPS_CHILD - _DECISIONS)
"""Reasons for which a step stops its child, although its run may continue."""

_DIGEST_LENGTH = 32

_log = logging.getLogger("spine_async")


async def run_queued_child(runtime: Runtime, step: WorkflowStep, context: WorkflowContext) -> StepResult:
    """Start the child unless it is stored, and wait for its end.

    Returns:
        The output of the child's last step; or a failure with the category of the child's failure.
    """
    visit, children = visit_of(context), runtime.child_runs
    if children is None or runtime.is_ephemeral or not runtime.keeps_queues:
        return _no_queues(runtime, step)
    reason = _blocking_reason(runtime, step, visit)
    if reason is not None:
        return _blocked(step, reason)
    run_id = child_run_id(visit)
    try:
        state = await _ended(runtime, children, step, context, run_id)
    except (StoreError, SharingError) as exc:
        await visit.interrupt(CommitFailed(exc))
    except (DefinitionError, SerializationError, RunConflictError) as exc:
        return _cannot_start(step, exc)
    except CANCELLATION:
        cancelled_for = visit.cancel_reason_at(runtime.clock.monotonic())
        if cancelled_for is not None and cancelled_for not in _KEEPS_CHILD:
            await run_shielded(_stop(runtime, children, visit, cancelled_for), "spine_async stop child")
        raise
    return _result(step, run_id, state)


def child_run_id(visit: Visit) -> str:
    """The id of the run that the step of this visit starts: `parent/path`, or a digest of it if it is too long."""
    text = visit.idempotency_key
    if len(text) <= MAX_RUN_ID_LENGTH:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_LENGTH]
    return f"{text[: MAX_RUN_ID_LENGTH - _DIGEST_LENGTH - 1]}~{digest}"


async def _ended(
    runtime: Runtime, children: ChildRuns, step: WorkflowStep, context: WorkflowContext, run_id: str
) -> ChildState | None:
    """The state in which the child has ended; None if it is not stored any more."""
    visit, names = visit_of(context), (ended_message(run_id),)
    metadata = {"child_run_id": run_id, "queue": step.queue}
    late_stops, key = _OWN_STOPS, repetition(visit)
    if visit.path not in visit.scope.waits:
        if not await _start(children, step, context):
            late_stops = await _resume(children, step, context)
        _store_wait(visit, visit.path + WAIT_MARK, key, started_event(visit, metadata))
    elif visit.scope.waits[visit.path] not in {None, key}:
        late_stops = await _resume(children, step, context)
        path = f"{visit.path}{WAIT_MARK}#{visit.run.pending.claim.epoch}.{key}"
        _store_wait(visit, path, key, replace(started_event(visit, metadata), event_type=EventType.CHILD_RESUMED))
    elif not visit.is_announced and not visit.run.is_woken:
        visit.run.pending.add_events(started_event(visit, metadata))
    visit.is_announced = True
    await commit_waiting(runtime, visit)  # an owner that dies while it waits does not count
    while True:
        await read_messages(runtime, visit)
        _discard(visit, names)
        state = await _state(children, step, visit)
        if state is not None and state.status is RunStatus.STOPPED and state.stop_reason in late_stops:
            late_stops = frozenset()
            await children.resume(run_id, step.child)
            continue
        if state is None or state.status.is_final:
            return state
        try:
            with visit.run.idleness.waiting(Wait(None, awaits_messages=True)):
                await _message(visit, names)
        finally:
            visit.run.pending.status = RunStatus.RUNNING


async def _state(children: ChildRuns, step: WorkflowStep, visit: Visit) -> ChildState | None:
    """The state of the child; None if it is not stored.

    If the step has another workflow now, this ends the execution of the step: nobody would execute that workflow.
    """
    run_id = child_run_id(visit)
    state = await children.state(run_id)
    if state is not None and state.workflow_name != step.child.name:
        now = f"its workflow is {step.child.name!r} now"
        problem = f"has started run {run_id!r} of workflow {state.workflow_name!r}, but {now}"
        await visit.interrupt(ResumeRefused(WorkflowChangedError(visit.run.run_id, step.name, problem, role="step")))
    return state


def _store_wait(visit: Visit, path: str, key: str, event: EventRow) -> None:
    """Add the row that stores that this repetition of the visit waits, so that it does not resume the child again."""
    row = marker_row(visit, path, StepStatus.WAITING, visit.run.clock.now(), output=encode(key).text)
    visit.run.pending.add_marker(row, event)
    visit.scope.waits[visit.path] = key


async def _stop(runtime: Runtime, children: ChildRuns, visit: Visit, reason: CancelReason) -> None:
    """Stop the child of a visit that is cancelled.

    If the run is being stopped, this is stored first: its next owner must not take the stop of the child for a
    failure.
    """
    run = visit.run
    request = StopRequest(run.cancellation.text or reason.value, run.cancellation.compensates)
    if reason in _DECISIONS and run.pending.end is None:
        try:
            await runtime.store.request_stop(run.run_id, request.text)
        except StoreError as exc:
            _log.warning("run %s is being stopped, but the request could not be stored: %s", run.run_id, exc)
    await children.stop(child_run_id(visit), request)


async def _start(children: ChildRuns, step: WorkflowStep, context: WorkflowContext) -> bool:
    """Store the child, unless it is stored; returns whether it was not."""
    visit = visit_of(context)
    given = _inherited_params(step, context) if step.params is None else await given_params(step, context)
    run_id, parent_id = child_run_id(visit), visit.run.run_id
    return await children.start(ChildRun(run_id, parent_id, step.child, given, context.partition, step.queue or ""))


async def _resume(children: ChildRuns, step: WorkflowStep, context: WorkflowContext) -> frozenset[str]:
    """Resume the child if its end has been the failure of the step; start it anew if it was deleted.

    Returns:
        Reasons for which the step, or the stop of its run, may have asked the child to stop before. The child may be
        stopped only now, because nobody waited for its end; then it is resumed as well.
    """
    visit = visit_of(context)
    end, run_id = visit.run.previous_end, child_run_id(visit)
    state = await _state(children, step, visit)
    if state is None:
        await _start(children, step, context)
        return frozenset()
    if state.status.is_final:
        if state.status is not RunStatus.COMPLETED:
            await children.resume(run_id, step.child)
        return frozenset()
    return _OWN_STOPS if end is None or end.stop_reason is None else _OWN_STOPS | {end.stop_reason}


async def _message(visit: Visit, names: tuple[str, ...]) -> None:
    """Wait for a message with one of these names; it is left in the mailbox."""
    mailbox = visit.run.mailbox
    while not mailbox.has(names):
        await mailbox.wait()


def _discard(visit: Visit, names: tuple[str, ...]) -> None:
    """Take the messages with these names; the commit of the visit removes them from the store."""
    ids = list(visit.taken)
    while (message := visit.run.mailbox.take(names)) is not None:
        ids.append(message.id)
    visit.taken = tuple(ids)


def _inherited_params(step: WorkflowStep, context: WorkflowContext) -> Mapping[str, object]:
    """The params of the parent; for a child with a `params_model` those that its fields read."""
    params = {key: each for key, each in params_of(context).items() if key != DRY_RUN_PARAM}
    model = step.child.params_model
    if model is None:
        return params
    known = {key: each for key, each in params.items() if fields_of(model, (key,))}
    return stored_input(model, known, visit_of(context).scope.validated_fields())


def _result(step: WorkflowStep, run_id: str, state: ChildState | None) -> StepResult:
    if state is None:
        problem = f"run {run_id!r}, which step {step.name!r} had started, was deleted before it ended"
        return StepResult.fail(problem, ErrorCategory.DEPENDENCY)
    if state.status is RunStatus.COMPLETED:
        return StepResult.ok(state.output or NULL)
    if state.status is RunStatus.STOPPED:
        problem = f"run {run_id!r} of workflow {step.child.name!r} was stopped: {state.stop_reason}"
        return StepResult.fail(storable_text(problem), ErrorCategory.DEPENDENCY)
    problem = f"run {run_id!r} of workflow {step.child.name!r} failed at step {state.error_step!r}: {state.error}"
    return StepResult.fail(storable_text(problem), state.error_category or ErrorCategory.INTERNAL)


def _cannot_start(step: WorkflowStep, error: Exception) -> StepResult:
    category = ErrorCategory.CONFIGURATION
    if isinstance(error, InvalidParamsError):
        category = ErrorCategory.DATA_QUALITY
    elif isinstance(error, SerializationError):
        category = ErrorCategory.INTERNAL
    return StepResult.fail(storable_text(f"step {step.name!r} cannot start its workflow: {error}"), category)


def _blocking_reason(runtime: Runtime, step: WorkflowStep, visit: Visit) -> str | None:
    """Why the run would keep its slot in a limited queue while it waits for a slot of the same queue; or None.

    A run gives its slot up when it is parked. The limit for each key does not matter, because the child has no key.
    """
    limits = runtime.limits_of(visit.run.queue)
    if limits is None or step.queue != visit.run.queue or (limits.concurrency is None and limits.per_process is None):
        return None
    if _has_timeout(visit):
        return "it, or a step around it, has a timeout, so its run is not parked; leave out timeout"
    if not runtime.parks and not runtime.is_draining:
        return "this runner does not work, so it does not park the run; let a working runner execute it"
    return None


def _has_timeout(visit: Visit) -> bool:
    if visit.step.timeout is not None and visit.step.timeout < math.inf:
        return True
    return visit.scope.parent is not None and _has_timeout(visit.scope.parent)


def _blocked(step: WorkflowStep, reason: str) -> StepResult:
    problem = (
        f"step {step.name!r} executes its workflow in the limited queue {step.queue!r} of its own run, which would "
        f"keep its slot meanwhile: {reason}, or choose another queue"
    )
    return StepResult.fail(problem, ErrorCategory.CONFIGURATION)


def _no_queues(runtime: Runtime, step: WorkflowStep) -> StepResult:
    if runtime.is_ephemeral:
        problem = "this runner stores nothing; enable checkpoints"
    else:
        problem = f"{runtime.store_name} keeps no queues; use a database"
    text = f"step {step.name!r} executes its workflow in queue {step.queue!r}, but {problem}, or leave out queue"
    return StepResult.fail(text, ErrorCategory.CONFIGURATION)
