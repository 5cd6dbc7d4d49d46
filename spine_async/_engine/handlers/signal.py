"""Executes a wait for a signal: takes the oldest message of its names, or waits for one until the deadline.

The visit takes a message from the mailbox of the run, and the commit that ends the visit removes it from the store. A
visit that does not end returns the message to the mailbox.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta

import anyio
from pydantic import ValidationError

from spine_async._engine.handlers.waiting import (
    LONGEST_SLEEP,
    RESOLUTION,
    commit_waiting,
    read_messages,
    started_event,
    store_wait,
)
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.attempt_frame import visit_of
from spine_async._engine.state.idleness import Wait
from spine_async._engine.state.marker_row import marker_row
from spine_async._engine.state.scope import Visit
from spine_async._model.context import WorkflowContext
from spine_async._model.document import NULL, Document, DocumentMapping, encode, join_object
from spine_async._model.due import Message
from spine_async._model.failure import ErrorCategory, describe, validation_problems
from spine_async._model.large_text import LARGE_TEXT
from spine_async._model.model_form import encode_model
from spine_async._model.run_row import DueTime
from spine_async._model.signal_step import SignalStep
from spine_async._model.status import EventType, RunStatus, StepStatus
from spine_async._model.step_result import StepResult
from spine_async._model.visit_row import EventRow, VisitRow
from spine_async.ports import keeps_due_runs

REJECTED_MARK = "@rejected"
"""Suffix of the path of the row that stores that a message was rejected; the id of the message follows."""


async def run_signal(runtime: Runtime, step: SignalStep, context: WorkflowContext) -> StepResult:
    """Wait for the next signal, or for the rest of a wait that began in an earlier execution.

    Returns:
        Output `{"value": …, "received_at": ISO 8601 time, "timed_out": False}`; after the deadline, unless the step
        fails, and in a dry run the value and the time are None.
    """
    visit = visit_of(context)
    if runtime.is_dry:
        return _without_signal(timed_out=False)
    if runtime.is_ephemeral or not keeps_due_runs(runtime.store):
        return _no_signals(runtime, step)
    visit.put_back()  # middleware executes the step once more
    message = await _next_message(runtime, step, visit)
    if message is None:
        return _after_deadline(step)
    try:
        value = await _validated(runtime, step, message)
    except Exception as exc:  # noqa: BLE001 - validators are user code
        return _reject(step, visit, message, exc)
    received_at = encode(message.received_at.isoformat())
    output = {"value": value, "received_at": received_at, "timed_out": encode(False)}
    return StepResult.ok(DocumentMapping(join_object(output)))


async def _next_message(runtime: Runtime, step: SignalStep, visit: Visit) -> Message | None:
    """Take a message, as soon as there is one; None if there is none at the deadline."""
    names = (step.signal, visit.signal_token)
    has_begun = visit.path in visit.scope.waits
    is_news = not visit.is_announced and not (has_begun and visit.run.is_woken)
    visit.is_announced = True  # by this function, because the event contains the deadline
    if visit.take(names) is None:
        await read_messages(runtime, visit)
        visit.take(names)
    until = _deadline(runtime, step, visit)
    metadata = {"signal": step.signal, "until": until.isoformat() if until is not None else None}
    if visit.received is not None or _seconds_left(runtime, step, visit, until) <= RESOLUTION:
        if is_news:
            visit.run.pending.add_events(started_event(visit, metadata))
        return visit.received
    if not has_begun:
        await store_wait(runtime, visit, until, metadata)
    else:
        if is_news:
            visit.run.pending.add_events(started_event(visit, metadata))
        await commit_waiting(runtime, visit)  # an owner that dies while it waits does not count
    return await _wait(runtime, step, visit, until, names)


def _deadline(runtime: Runtime, step: SignalStep, visit: Visit) -> datetime | None:
    if visit.path in visit.scope.waits:
        stored = visit.scope.waits[visit.path]
        return datetime.fromisoformat(stored) if stored is not None else None
    return runtime.clock.now() + timedelta(seconds=step.timeout) if step.timeout is not None else None


def _seconds_left(runtime: Runtime, step: SignalStep, visit: Visit, until: datetime | None) -> float:
    """Seconds until the deadline. While the process lives, they do not depend on the wall clock."""
    if until is None:
        return math.inf
    left = visit.run.clock.seconds_until(until)
    if step.timeout is not None:
        left = min(left, step.timeout)  # a clock that was set back does not prolong the wait
    now_mono = runtime.clock.monotonic()
    return visit.scope.wait_ends_mono.setdefault(visit.path, now_mono + left) - now_mono


async def _wait(
    runtime: Runtime, step: SignalStep, visit: Visit, until: datetime | None, names: Collection[str]
) -> Message | None:
    due = DueTime(until, _seconds_left(runtime, step, visit, until)) if until is not None else None
    try:
        with visit.run.idleness.waiting(Wait(due, awaits_messages=True)):
            while (left := _seconds_left(runtime, step, visit, until)) > RESOLUTION:
                if visit.take(names) is not None:
                    return visit.received
                with anyio.move_on_after(min(left, LONGEST_SLEEP)):
                    await visit.run.mailbox.wait()
    finally:
        visit.run.pending.status = RunStatus.RUNNING
    if visit.take(names) is None:
        await read_messages(runtime, visit)  # one may have arrived since the messages were last read
        visit.take(names)
    return visit.received


async def _validated(runtime: Runtime, step: SignalStep, message: Message) -> Document:
    if step.model is None:
        return Document(message.value)
    if len(message.value) > LARGE_TEXT:
        return await runtime.run_on_thread(_as_model, step, message)
    return _as_model(step, message)


def _as_model(step: SignalStep, message: Message) -> Document:
    if step.model is None:
        return Document(message.value)
    return encode_model(step.model.model_validate_json(message.value, by_alias=True, by_name=True), step.model)


def _reject(step: SignalStep, visit: Visit, message: Message, error: Exception) -> StepResult:
    """Fail the step, and remove the message in the commit of this failure, so that a resume waits for another one."""
    model = step.model.__name__ if step.model is not None else ""
    problem = validation_problems(error) if isinstance(error, ValidationError) else describe(error)
    metadata = {
        "signal": encode(message.name),
        "received_at": encode(message.received_at.isoformat()),
        "problem": encode(problem),
        "value": Document(message.value),
    }
    now = visit.run.clock.now()
    event = EventRow(EventType.SIGNAL_REJECTED, step.name, now, join_object(metadata).text, visit.path)
    visit.run.pending.add_marker(_rejection(visit, message, now), event, (message.id,))
    visit.scope.item_params = None
    visit.received, visit.taken = None, ()
    text = f"signal {message.name!r} does not fit {model}: {problem}; send another one, then resume() the run"
    return StepResult.fail(text, ErrorCategory.DATA_QUALITY)


def _rejection(visit: Visit, message: Message, now: datetime) -> VisitRow:
    path = f"{visit.path}{REJECTED_MARK}#{message.id}"
    return marker_row(visit, path, StepStatus.OVERRIDE, now, name=REJECTED_MARK)


def _after_deadline(step: SignalStep) -> StepResult:
    if step.on_timeout != "fail":
        return _without_signal(timed_out=True)
    error = TimeoutError(f"step {step.name!r} received no signal {step.signal!r} within {step.timeout:g} s")
    return replace(StepResult.fail(str(error), ErrorCategory.TIMEOUT), exception=error)


def _without_signal(*, timed_out: bool) -> StepResult:
    output = {"value": NULL, "received_at": NULL, "timed_out": encode(timed_out)}
    return StepResult.ok(DocumentMapping(join_object(output)))


def _no_signals(runtime: Runtime, step: SignalStep) -> StepResult:
    if runtime.is_ephemeral:
        problem = "this runner stores nothing, so no signal can reach the run; enable checkpoints"
    else:
        problem = f"{runtime.store_name} stores no signals; use a database"
    return StepResult.fail(f"step {step.name!r} waits for a signal, but {problem}", ErrorCategory.CONFIGURATION)
