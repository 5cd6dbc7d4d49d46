"""Builds the `WorkflowResult` of a run that this runner executed, or of a stored run."""

from __future__ import annotations

from datetime import datetime

from spine_async._engine.state.position import Position
from spine_async._engine.state.scope import Scope
from spine_async._engine.state.tally import Tally
from spine_async._engine.state.unwinding import Unwinding
from spine_async._model.context import WorkflowContext
from spine_async._model.context_access import outside_steps
from spine_async._model.document import Document
from spine_async._model.run_change import RunEnd
from spine_async._model.run_row import StoredRun
from spine_async._model.status import RunStatus, StepStatus
from spine_async._model.step import Definition, Step
from spine_async._model.visit_row import EventRow
from spine_async._model.workflow_result import StepMetric, WorkflowResult


def live_result(scope: Scope, end: RunEnd) -> WorkflowResult:
    """The result of a run that this runner executed."""
    run = scope.run
    return _result(
        run.workflow.name,
        len(run.workflow.steps),
        scope.context,
        run.tally,
        run.started_at,
        end,
        round(max(0.0, run.clock.monotonic() - run.begun_mono) * 1000, 3),
        run.exception if end.status is RunStatus.FAILED else None,
        run.unwinding,
    )


def stored_result(workflow: Definition, stored: StoredRun, position: Position) -> WorkflowResult:
    """The result of a stored run that has ended, from its replayed position."""
    return position_result(workflow, stored, position, stored_end(stored))


def stored_result_of(
    stored: StoredRun, context: WorkflowContext, tally: Tally, unwinding: Unwinding | None
) -> WorkflowResult:
    """The result of a stored run that has ended, whose definition is not known."""
    return _result(
        stored.workflow_name,
        stored.total_steps,
        context,
        tally,
        stored.started_at,
        stored_end(stored),
        unwinding=unwinding,
    )


def position_result(workflow: Definition, stored: StoredRun, position: Position, end: RunEnd) -> WorkflowResult:
    """The result of a stored run that ends at its replayed position."""
    return _result(
        workflow.name,
        len(workflow.steps),
        position.context,
        position.tally,
        stored.started_at,
        end,
        unwinding=position.unwinding,
    )


def stored_failure(step: Step, failed: EventRow, started: EventRow | None) -> StepMetric:
    """The metrics of the visit that failed a stored run, from its events, because a failed visit has no row."""
    metadata = Document(failed.metadata).value()
    numbers = metadata if isinstance(metadata, dict) else {}
    return StepMetric(
        step.name,
        step.step_type,
        StepStatus.FAILED,
        int(numbers.get("attempts", 1)),  # type: ignore[arg-type]
        (started or failed).timestamp,
        float(numbers.get("duration_ms", 0.0)),  # type: ignore[arg-type]
        0,
    )


def stored_end(stored: StoredRun) -> RunEnd:
    """The end of a stored run that has ended."""
    return RunEnd(
        stored.status,
        stored.completed_at or stored.updated_at,
        error_step=stored.error_step,
        error=stored.error,
        error_category=stored.error_category,
        stop_reason=stored.stop_reason,
    )


def _result(  # noqa: PLR0917 - in the order of the result's fields
    name: str,
    total_steps: int,
    context: WorkflowContext,
    tally: Tally,
    started_at: datetime,
    end: RunEnd,
    duration_ms: float | None = None,
    exception: BaseException | None = None,
    unwinding: Unwinding | None = None,
) -> WorkflowResult:
    return WorkflowResult(
        run_id=context.run_id,
        workflow_name=name,
        status=end.status,
        context=outside_steps(context),
        completed_steps=tally.completed,
        skipped_steps=tally.skipped,
        failed_steps=tally.failed,
        total_steps=total_steps,
        error_step=end.error_step,
        error=end.error,
        error_category=end.error_category,
        stop_reason=end.stop_reason,
        started_at=started_at,
        completed_at=end.at,
        duration_ms=_elapsed_ms(started_at, end.at) if duration_ms is None else duration_ms,
        step_metrics=tally.metrics,
        exception=exception,
        compensated_steps=list(unwinding.compensated) if unwinding is not None else [],
    )


def _elapsed_ms(started_at: datetime, ended_at: datetime) -> float:
    return round(max(0.0, (ended_at - started_at).total_seconds()) * 1000, 3)
