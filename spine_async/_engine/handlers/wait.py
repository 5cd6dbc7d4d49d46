"""Waits until a moment that is stored before the waiting begins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import cast

import anyio

from spine_async._engine.run.transition import WAIT_MARK
from spine_async._engine.runtime.runtime import Engine
from spine_async._engine.state.scope import Visit, visit_of
from spine_async._model.context import WorkflowContext
from spine_async._model.document import encode
from spine_async._model.record import EventRow, VisitRow
from spine_async._model.status import EventType, RunStatus, StepStatus
from spine_async._model.step import WaitStep, as_moment
from spine_async._model.step_result import StepResult

_LONGEST_SLEEP = 3600.0  # seconds; a wait of days follows the wall clock even if that is set meanwhile


async def run_wait(engine: Engine, step: WaitStep, context: WorkflowContext) -> StepResult:
    """Wait for what is left until the step's moment.

    Returns:
        Output `{"until": ISO 8601 moment}`.
    """
    visit = visit_of(context)
    stored = visit.scope.waits.get(visit.path)
    until = datetime.fromisoformat(stored) if stored else _moment(engine, step, context)
    if not engine.is_dry and until > engine.clock.now():
        if stored is None:
            await _store(engine, visit, until)
        await _sleep(engine, visit, until)
    return StepResult.ok({"until": until.isoformat()})


def _moment(engine: Engine, step: WaitStep, context: WorkflowContext) -> datetime:
    if step.seconds is not None:
        return engine.clock.now() + timedelta(seconds=cast("float", step.seconds))
    return as_moment(step.until(context) if callable(step.until) else step.until).astimezone(UTC)


async def _store(engine: Engine, visit: Visit, until: datetime) -> None:
    now = engine.clock.now()
    text = encode(until.isoformat()).text
    row = VisitRow(
        path=visit.path + WAIT_MARK,
        step_name=visit.step.name,
        step_type=visit.step.step_type,
        status=StepStatus.WAITING,
        attempts=0,
        started_at=visit.open.started_at,
        duration_ms=0.0,
        output=text,
        output_size=0,
        updates=None,
        quality=None,
        opening=None,
        scope=visit.scope.path,
        completed_at=now,
        item_index=visit.scope.item_index,
    )
    told = encode({"until": until.isoformat()}).text
    visit.open.is_announced = True
    event = EventRow(EventType.STEP_STARTED, visit.step.name, visit.open.started_at, told, visit.path)
    visit.run.ledger.keep(row, event)
    visit.scope.waits[visit.path] = until.isoformat()
    visit.run.ledger.status = RunStatus.WAITING if visit.scope.is_run else RunStatus.RUNNING
    await engine.journal.commit(visit.run.ledger)


async def _sleep(engine: Engine, visit: Visit, until: datetime) -> None:
    try:
        while (left := (until - engine.clock.now()).total_seconds()) > 0:  # noqa: ASYNC110 - it waits for time itself
            await anyio.sleep(min(left, _LONGEST_SLEEP))
    finally:
        visit.run.ledger.status = RunStatus.RUNNING
