"""Waits until a time that is stored before the wait begins."""

from __future__ import annotations

import inspect
from datetime import datetime, timedelta
from typing import cast

import anyio

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.idleness import Wait
from spine_async._engine.state.interrupts import CommitFailed
from spine_async._engine.state.scope import WAIT_MARK, Visit, visit_of
from spine_async._model.context import WorkflowContext
from spine_async._model.document import encode
from spine_async._model.record import DueTime, EventRow, VisitRow
from spine_async._model.status import EventType, RunStatus, StepStatus
from spine_async._model.step import WaitStep
from spine_async._model.step_result import StepResult
from spine_async._model.time_option import as_moment, in_utc
from spine_async.errors import StepError


async def run_wait(runtime: Runtime, step: WaitStep, context: WorkflowContext) -> StepResult:
    """Wait until the step's time, or for the rest of a wait that began in an earlier execution.

    Returns:
        Output `{"until": ISO 8601 time}`.
    """
    visit = visit_of(context)
    stored = visit.scope.waits.get(visit.path)
    visit.is_announced = visit.is_announced or (stored is not None and visit.run.is_woken)
    until = datetime.fromisoformat(stored) if stored else await _moment(runtime, step, context)
    left = (until - runtime.clock.now()).total_seconds()
    if step.seconds is not None and not runtime.is_dry:
        # After a restart the stored end time counts, but a clock that was set back does not prolong the wait.
        left = min(left, cast("float", step.seconds))
        ends_mono = visit.scope.wait_ends_mono.setdefault(visit.path, runtime.clock.monotonic() + left)
        left = ends_mono - runtime.clock.monotonic()
    if not runtime.is_dry and left > 0:
        if stored is None:
            await _store(runtime, visit, until)
        await _sleep(runtime, visit, until)
    return StepResult.ok({"until": until.isoformat()})


async def _moment(runtime: Runtime, step: WaitStep, context: WorkflowContext) -> datetime:
    if step.seconds is not None:
        return runtime.clock.now() + timedelta(seconds=cast("float", step.seconds))
    moment = step.until(context) if callable(step.until) else step.until
    if inspect.isawaitable(moment):
        moment = await moment
    try:
        return in_utc(as_moment(moment))
    except ValueError as exc:
        raise StepError(f"wait {step.name!r}: {exc}", category="CONFIGURATION") from None


async def _store(runtime: Runtime, visit: Visit, until: datetime) -> None:
    now = visit.run.clock.now()
    text = encode(until.isoformat()).text
    row = VisitRow(
        path=visit.path + WAIT_MARK,
        step_name=visit.step.name,
        step_type=visit.step.step_type,
        status=StepStatus.WAITING,
        attempts=0,
        started_at=visit.started_at,
        duration_ms=0.0,
        output=text,
        output_size=0,
        updates=None,
        quality=None,
        item_params=visit.scope.item_params,  # stored again later: checkpoints ignore a pending wait
        scope=visit.scope.path,
        completed_at=now,
        item_index=visit.scope.item_index,
    )
    metadata = encode({"until": until.isoformat()}).text
    visit.is_announced = True
    event = EventRow(EventType.STEP_STARTED, visit.step.name, visit.started_at, metadata, visit.path)
    visit.run.pending.add_marker(row, event)
    visit.scope.waits[visit.path] = until.isoformat()
    visit.run.pending.status = RunStatus.WAITING if visit.scope.is_run else RunStatus.RUNNING
    try:
        await runtime.journal.commit(visit.run.pending)
    except CommitFailed as exc:
        await visit.interrupt(exc)


async def _sleep(runtime: Runtime, visit: Visit, until: datetime) -> None:
    ends_mono = visit.scope.wait_ends_mono.get(visit.path)
    left = ends_mono - runtime.clock.monotonic() if ends_mono is not None else None
    try:
        with visit.run.idleness.waiting(Wait(DueTime(until, left))):
            if ends_mono is None:
                await runtime.wall_clock.sleep_until(until)
            else:
                await _sleep_monotonic(runtime, ends_mono)
    finally:
        visit.run.pending.status = RunStatus.RUNNING


async def _sleep_monotonic(runtime: Runtime, ends_mono: float) -> None:
    # A timer of less than a microsecond may not advance the clock, because floats near its reading are further apart.
    while (left := ends_mono - runtime.clock.monotonic()) > _RESOLUTION:  # noqa: ASYNC110 - only the time can end it
        await anyio.sleep(min(left, _LONGEST_SLEEP))


_RESOLUTION = 1e-6  # seconds
_LONGEST_SLEEP = 86_400.0  # seconds; timers of event loops have a limit
