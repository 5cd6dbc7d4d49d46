"""What a step's result adds to the run, and where the run goes next. Pure: decides, and writes into values at hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from spine_async._engine.state.cursor import Jump, jump_of
from spine_async._engine.state.outcome import COMPLETED, ScopeEnd
from spine_async._engine.state.scope import Scope, Visit
from spine_async._engine.step.encoding import Accepted, accept
from spine_async._model.document import Document, encode, join_object, split_object
from spine_async._model.failure import ErrorCategory
from spine_async._model.quality import QualityMetrics
from spine_async._model.record import EventRow, PastVisit, VisitRow
from spine_async._model.status import ErrorPolicy, EventType, RunStatus, StepStatus, StepType
from spine_async._model.step_result import StepResult
from spine_async._model.workflow_result import StepMetric

_CHOICE = StepType.CHOICE


def settle(visit: Visit, accepted: Accepted, now: datetime, elapsed_ms: float) -> ScopeEnd | None:
    """Put what the visit came to into its scope and ledger; the scope's end, where this was its last step."""
    is_choice = visit.step.step_type is _CHOICE
    if is_choice:
        accepted = _with_target(visit, accepted)
    if not accepted.result.success and visit.step.on_error is not ErrorPolicy.CONTINUE:
        return _settle_failure(visit, accepted, now, elapsed_ms)
    scope = visit.scope
    ledger, is_run = scope.run.ledger, scope.is_run
    row = _row(visit, accepted, now, elapsed_ms)
    jumped_over = scope.cursor.advance(_jump(visit, accepted) if is_choice else None)
    end = _end_after(visit, accepted)
    row.ends_item = end is COMPLETED and not is_run
    _absorb(scope, row, accepted, jumped_over)
    ledger.settle(visit.open, row, _own_events(visit, accepted, now) if accepted.events else ())
    if jumped_over:
        ledger.note(*(_skipped_event(visit, name, now) for name in jumped_over))
    return end


def _absorb(scope: Scope, row: VisitRow, accepted: Accepted, jumped_over: Sequence[str]) -> None:
    """Put a visit that was just settled into the scope's counts and context."""
    output = accepted.output
    _count(scope, row, output, jumped_over)
    if scope.cursor.step is None and not scope.is_run:
        return  # a map takes an item's last output; nobody reads the context of one that has come to its end
    outputs = {row.step_name: output} if output is not None else None
    scope.context = scope.context.with_documents(accepted.updates, outputs)
    if row.quality is not None:
        scope.context = scope.context.with_quality(row.step_name, read_quality(row.quality))


def _count(scope: Scope, row: PastVisit, output: Document | None, jumped_over: Sequence[str]) -> None:
    """Put a visit into the scope's counts."""
    scope.last_output = output
    if scope.is_run:
        scope.run.tally.add(row, jumped_over)


def replay(scope: Scope, rows: Iterable[PastVisit]) -> None:
    """Move a fresh scope over the rows that a former execution stored for it.

    Raises:
        WorkflowChangedError: The definition no longer fits them.
    """
    updates: dict[str, Document] = {}
    outputs: dict[str, Document] = {}
    run_id, cursor, waiting, override = scope.run.run_id, scope.cursor, StepStatus.WAITING, StepStatus.OVERRIDE
    for row in rows:
        if row.opening is not None:
            scope.opening = None
        if row.status is waiting:
            scope.waits[row.path.removesuffix(WAIT_MARK)] = str(Document(row.output or "null").value())
            continue
        if row.updates:
            updates |= split_object(row.updates)
        if row.status is override:
            continue
        output = Document(row.output) if row.output is not None else None
        _count(scope, row, output, cursor.replay(run_id, row))
        if output is not None:
            outputs[row.step_name] = output
        if row.quality is not None:
            scope.context = scope.context.with_quality(row.step_name, read_quality(row.quality))
    scope.context = scope.context.with_documents(updates, outputs)


WAIT_MARK = "@until"
"""Ends the path of the journal entry that keeps a wait's moment."""


def read_quality(text: str) -> QualityMetrics:
    """Stored quality metrics."""
    return QualityMetrics(**Document(text).value())  # type: ignore[arg-type]


def _with_target(visit: Visit, accepted: Accepted) -> Accepted:
    """A choice that succeeded must name where to go; one that does not has failed."""
    if not accepted.result.success or accepted.result.skip_reason is not None or _jump(visit, accepted) is not None:
        return accepted
    told = f"choice {visit.step.name!r} gave no output with a 'next_step' that is a step of the workflow or None"
    return accept(visit.step, StepResult.fail(told, ErrorCategory.CONFIGURATION))


def _jump(visit: Visit, accepted: Accepted) -> Jump | None:
    if accepted.result.status is not StepStatus.COMPLETED:
        return None
    return jump_of(accepted.output.value() if accepted.output else None, visit.scope.cursor)


def _end_after(visit: Visit, accepted: Accepted) -> ScopeEnd | None:
    if accepted.result.stop_reason is not None:
        return ScopeEnd(RunStatus.STOPPED, reason=accepted.result.stop_reason)
    return COMPLETED if visit.scope.cursor.step is None else None


def _row(visit: Visit, accepted: Accepted, now: datetime, elapsed_ms: float) -> VisitRow:
    result, output, scope, step = accepted.result, accepted.output, visit.scope, visit.step
    opening, scope.opening = scope.opening, None
    return VisitRow(  # by position, which takes a third of the time
        visit.open.path,
        step.name,
        step.step_type,
        result.status,
        visit.attempts,
        visit.open.started_at,
        elapsed_ms,
        output.text if output is not None else None,
        output.size if output is not None else 0,
        join_object(accepted.updates).text if accepted.updates else None,
        accepted.quality.text if accepted.quality is not None else None,
        opening,
        scope.path,
        now,
        result.error or result.skip_reason,
        result.category,
        scope.item_index,
    )


def _settle_failure(visit: Visit, accepted: Accepted, now: datetime, elapsed_ms: float) -> ScopeEnd:
    result, step = accepted.result, visit.step
    told = {
        "duration_ms": elapsed_ms,
        "attempts": visit.attempts,
        "error_category": result.category,
        "error": result.error,
    }
    event = EventRow(EventType.STEP_FAILED, step.name, now, encode(told).text, visit.path)
    visit.run.ledger.settle_failed(visit.open, [*_own_events(visit, accepted, now), event])
    if visit.scope.is_run:
        metric = StepMetric(
            step.name, step.step_type, StepStatus.FAILED, visit.attempts, visit.open.started_at, elapsed_ms, 0
        )
        visit.run.tally.add_failure(metric)
    return ScopeEnd(RunStatus.FAILED, step.name, result.error, result.category)


def _own_events(visit: Visit, accepted: Accepted, now: datetime) -> list[EventRow]:
    return [EventRow(kind, visit.step.name, now, metadata, visit.path) for kind, metadata in accepted.events]


def _skipped_event(visit: Visit, name: str, now: datetime) -> EventRow:
    told = encode({"reason": f"{visit.step.name} went past it"})
    return EventRow(EventType.STEP_SKIPPED, name, now, told.text, visit.scope.child_path(name))
