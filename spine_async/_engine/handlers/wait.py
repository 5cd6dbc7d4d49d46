"""Waits until a time that is stored before the wait begins."""

from __future__ import annotations

import inspect
from datetime import datetime, timedelta
from typing import cast

from spine_async._engine.handlers.waiting import commit_waiting, sleep_until_mono, store_wait
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.attempt_frame import visit_of
from spine_async._engine.state.idleness import Wait
from spine_async._engine.state.scope import Visit
from spine_async._model.context import WorkflowContext
from spine_async._model.run_row import DueTime
from spine_async._model.status import RunStatus
from spine_async._model.step_result import StepResult
from spine_async._model.time_option import as_moment, in_utc
from spine_async._model.wait_step import WaitStep
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
        left = min(visit.run.clock.seconds_until(until), cast("float", step.seconds))
        ends_mono = visit.scope.wait_ends_mono.setdefault(visit.path, runtime.clock.monotonic() + left)
        left = ends_mono - runtime.clock.monotonic()
    if not runtime.is_dry and left > 0:
        if stored is None:
            await store_wait(runtime, visit, until, {"until": until.isoformat()})
        elif not visit.run.is_woken:
            await commit_waiting(runtime, visit)  # an owner that dies while it waits does not count
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


async def _sleep(runtime: Runtime, visit: Visit, until: datetime) -> None:
    ends_mono = visit.scope.wait_ends_mono.get(visit.path)
    left = ends_mono - runtime.clock.monotonic() if ends_mono is not None else None
    try:
        with visit.run.idleness.waiting(Wait(DueTime(until, left))):
            if ends_mono is None:
                await runtime.wall_clock.sleep_until(until)
            else:
                await sleep_until_mono(runtime, ends_mono)
    finally:
        visit.run.pending.status = RunStatus.RUNNING
