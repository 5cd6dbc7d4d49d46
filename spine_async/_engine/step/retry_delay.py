"""The delay before another attempt of a step.

A long delay is stored before it begins, with the number of attempts made. So neither a crash nor parking makes the
policy count from the start again. Any delay is stored if the run may be parked in the next attempt.
"""

from __future__ import annotations

from datetime import timedelta

import anyio

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.idleness import Wait
from spine_async._engine.state.marker_row import RETRY_MARK, marker_row
from spine_async._engine.state.position import StoredRetry
from spine_async._engine.state.repetition import attempts, is_repeated_from_outside
from spine_async._engine.state.scope import Visit
from spine_async._model.document import encode
from spine_async._model.run_row import DueTime
from spine_async._model.signal_step import SignalStep
from spine_async._model.status import EventType, StepStatus
from spine_async._model.step import Step
from spine_async._model.step_result import StepResult
from spine_async._model.visit_row import EventRow, VisitRow
from spine_async._model.wait_step import WaitStep
from spine_async._model.workflow_step import WorkflowStep


async def wait_for_retry(runtime: Runtime, visit: Visit, result: StepResult, delay: float) -> None:
    """Record that the visit is retried, and wait for `delay` seconds."""
    metadata = {"attempt": visit.attempts, "delay": delay, "error_category": result.category, "error": result.error}
    now = visit.run.clock.now()
    event = EventRow(EventType.STEP_RETRYING, visit.step.name, now, encode(metadata).text, visit.path)
    due = DueTime(now + timedelta(seconds=delay), delay)
    if delay >= runtime.config.park_after or not _stays_in_memory(visit.step):
        visit.run.pending.flush_visit(visit)
        visit.run.pending.add_marker(_row(visit, due), event)
        # Not awaited: if this commit fails, the next commit of the run fails in the same way and reports it.
        runtime.journal.enqueue(visit.run.pending)
    else:
        visit.events = (*visit.events, event)
    await _wait(visit, due)


async def continue_retry(visit: Visit) -> int:
    """Wait for the rest of a delay that an earlier execution stored; returns the number of attempts made before."""
    stored = visit.scope.retries.pop(visit.path, None)
    if stored is None:
        return 0
    visit.attempts = stored.attempts
    visit.is_announced = visit.is_announced or visit.run.is_woken
    seconds = max(0.0, visit.run.clock.seconds_until(stored.until))
    await _wait(visit, DueTime(stored.until, seconds))
    return stored.attempts


async def _wait(visit: Visit, due: DueTime) -> None:
    with visit.run.idleness.waiting(Wait(due)):
        await anyio.sleep(due.seconds or 0.0)


def _stays_in_memory(step: Step) -> bool:
    """Whether a run is never parked in the next attempt of the step, so that its attempts are counted in memory."""
    if isinstance(step, (WaitStep, SignalStep)) or (isinstance(step, WorkflowStep) and step.queue is not None):
        return False
    return all(_stays_in_memory(each) for inner in step.inner.values() for each in inner.steps)


def _row(visit: Visit, due: DueTime) -> VisitRow:
    stored = StoredRetry(visit.attempts, due.at)
    # The item of its scope is stored again later: checkpoints ignore a pending wait.
    number = str(visit.attempts)
    if is_repeated_from_outside(visit):  # it counts from 1 again
        number = f"{number}.{visit.run.pending.claim.epoch}.{attempts(visit)}"
    path, output = f"{visit.path}{RETRY_MARK}#{number}", encode(stored.as_dict()).text
    at = visit.run.clock.now()
    return marker_row(visit, path, StepStatus.WAITING, at, attempts=visit.attempts, output=output)
