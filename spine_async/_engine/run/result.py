"""The result of a run, from the run itself or from what is stored of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from spine_async._engine.state.scope import Scope
from spine_async._model.document import Document
from spine_async._model.record import EventRow, RunEnd, StoredRun
from spine_async._model.status import EventType, StepStatus
from spine_async._model.workflow_result import StepMetric, WorkflowResult


def live_result(scope: Scope, end: RunEnd) -> WorkflowResult:
    """The result of a run that ended here."""
    run, tally = scope.run, scope.run.tally
    return WorkflowResult(
        run_id=run.run_id,
        workflow_name=run.workflow.name,
        status=end.status,
        context=scope.context.outside_steps(),
        completed_steps=tally.completed,
        skipped_steps=tally.skipped,
        failed_steps=tally.failed,
        total_steps=len(run.workflow.steps),
        error_step=end.error_step,
        error=end.error,
        error_category=end.error_category,
        stop_reason=end.stop_reason,
        started_at=run.started_at,
        completed_at=end.at,
        duration_ms=_elapsed_ms(run.started_at, end.at),
        step_metrics=tally.metrics,
    )


def stored_end(stored: StoredRun) -> RunEnd:
    """How a stored run ended."""
    return RunEnd(
        stored.status,
        stored.completed_at or stored.updated_at,
        stored.error_step,
        stored.error,
        stored.error_category,
        stored.stop_reason,
    )


def stored_failure(scope: Scope, events: Sequence[EventRow]) -> StepMetric | None:
    """The visit that failed a stored run, as its last `step_failed` event tells; it has no row of its own."""
    failed = [each for each in events if each.event_type == EventType.STEP_FAILED and each.path == _next_path(scope)]
    step = scope.cursor.step
    if not failed or step is None:
        return None
    told = Document(failed[-1].metadata).value()
    numbers = told if isinstance(told, dict) else {}
    started = [each for each in events if each.event_type == EventType.STEP_STARTED and each.path == failed[-1].path]
    return StepMetric(
        step.name,
        step.step_type,
        StepStatus.FAILED,
        int(numbers.get("attempts", 1)),  # type: ignore[arg-type]
        (started or failed)[-1].timestamp,
        float(numbers.get("duration_ms", 0.0)),  # type: ignore[arg-type]
        0,
    )


def _next_path(scope: Scope) -> str:
    return scope.child_path(scope.cursor.segment)


def _elapsed_ms(started_at: datetime, ended_at: datetime) -> float:
    return round((ended_at - started_at).total_seconds() * 1000, 3)
