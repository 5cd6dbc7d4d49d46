"""Applies a step's result to the scope, the cursor and the pending writes. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from datetime import datetime

from spine_async._engine.run.stored_values import StoredValues, failure_of, grown_lists, read_quality, with_synonyms
from spine_async._engine.state.cursor import Jump, jump_of, timeout_jump
from spine_async._engine.state.marker_row import ITEM_MARK, RESUME_MARK, RETRY_MARK, WAIT_MARK, marker_row
from spine_async._engine.state.outcome import COMPLETED, Outcome
from spine_async._engine.state.position import Position, StoredRetry
from spine_async._engine.state.progress_report import PROGRESS_MARK
from spine_async._engine.state.scope import Scope, Visit
from spine_async._engine.state.unwinding import (
    OUTCOME_MARK,
    RESTART_MARK,
    Unwinding,
    begin_cleanup,
    is_compensation,
)
from spine_async._engine.step.encoding import EncodedResult
from spine_async._model.choice_step import ChoiceStep
from spine_async._model.context_access import has_failures, params_of, with_documents, with_failure
from spine_async._model.document import Document, encode, join_object
from spine_async._model.redaction import MAX_STORED_TRACEBACK, traceback_text
from spine_async._model.signal_step import SignalStep
from spine_async._model.status import ErrorPolicy, EventType, RunStatus, StepStatus
from spine_async._model.step_result import StepResult
from spine_async._model.target import caught_by, position_of
from spine_async._model.visit_row import ONCE_NAME, EventRow, PastVisit, VisitRow
from spine_async._model.workflow_result import StepMetric


def apply_result(visit: Visit, encoded: EncodedResult, now: datetime, elapsed_ms: float) -> Outcome | None:
    """Apply the result of a visit; returns the outcome of the scope if this was its last step."""
    target = None
    if not encoded.result.success:
        target = caught_by(visit.step.catch, encoded.result.category)
        if target is None and visit.step.on_error is not ErrorPolicy.CONTINUE:
            return _apply_failure(visit, encoded, now, elapsed_ms)
    scope = visit.scope
    pending, is_run = scope.run.pending, scope.is_run
    row = _row(visit, encoded, now, elapsed_ms)
    scope.item_params = None
    if scope.nested:
        scope.end_nested()
    if target is not None:
        row.target = target
        jump: Jump | None = Jump(position_of(target))
    else:
        jump = _jump(visit, encoded) if isinstance(visit.step, _JUMPING) else None
    jumped_over = scope.cursor.advance(jump)
    outcome = _outcome_after(visit, encoded)
    row.ends_item = outcome is COMPLETED and not is_run
    if is_run:
        scope.run.tally.add(row, jumped_over)
    _update_context(scope, row, encoded)
    pending.add_visit(visit, row, _own_events(visit, encoded, now) if encoded.events else ())
    if jumped_over and not visit.is_stored:
        pending.add_events(*(_skipped_event(visit, name, now) for name in jumped_over))
    return outcome


def add_result(visit: Visit, encoded: EncodedResult, now: datetime, elapsed_ms: float) -> None:
    """Add the rows of a success to the pending writes, and leave the scope as it is.

    They are committed by themselves. If that succeeds, `apply_result` applies the result to the scope.
    """
    scope = visit.scope
    row, cursor = _row(visit, encoded, now, elapsed_ms), copy(scope.cursor)
    jumped_over = cursor.advance()
    row.ends_item = cursor.step is None and encoded.result.stop_reason is None and not scope.is_run
    scope.run.pending.add_visit(visit, row, _own_events(visit, encoded, now))
    scope.run.pending.add_events(*(_skipped_event(visit, name, now) for name in jumped_over))


_JUMPING = (ChoiceStep, SignalStep)
"""Steps whose output decides where the run continues."""


def apply_compensation(visit: Visit, encoded: EncodedResult, now: datetime, elapsed_ms: float) -> None:
    """Add the row of a compensation. It changes neither the context nor the position of the run."""
    row = _row(visit, encoded, now, elapsed_ms)
    row.updates = row.appends = None
    visit.run.pending.add_visit(visit, row, _own_events(visit, encoded, now) if encoded.events else ())


def store_params(visit: Visit) -> None:
    """Store the params of a scope whose first step executes others, before any row inside that step.

    Normally the first row of a scope's own steps stores its params. Here rows of inner scopes come earlier. So a marker
    row stores the params, together with the `step_started` event of the step. A marker row is not a visit. It adds only
    the params to the checkpoints.
    """
    scope, step = visit.scope, visit.step
    path = scope.child_path(ITEM_MARK) if scope.item_index is None else scope.path + ITEM_MARK
    row = marker_row(visit, path, StepStatus.OVERRIDE, visit.started_at, name=ITEM_MARK)
    scope.item_params = None
    visit.is_announced = True
    event = EventRow(EventType.STEP_STARTED, step.name, visit.started_at, path=visit.path)
    scope.run.pending.add_marker(row, event)


def replay(position: Position, run_id: str, rows: Iterable[PastVisit]) -> None:
    """Move a position from the first step past the rows that an earlier execution stored for its scope.

    Raises:
        WorkflowChangedError: The definition no longer fits the rows.
    """
    values = StoredValues(position.context, position.cursor.workflow)
    for row in rows:
        if row.status is StepStatus.WAITING:
            _replay_pending(position, row)
            continue
        if position.unwinding is not None and is_compensation(row):
            position.unwinding.add(row)
            continue
        values.add_params(row)
        if row.status is StepStatus.OVERRIDE:
            _replay_override(position, row)
            continue
        cursor = position.cursor
        if position.unwinding is not None and position.cleanup is not None:
            cursor = position.cleanup
        position.tally.add(row, cursor.replay(run_id, row))
        position.last_output = values.add_result(row)
    position.context = values.applied()


def _replay_override(position: Position, row: PastVisit) -> None:
    """Note that the steps of the run have ended, or that it was resumed."""
    if row.step_name in {RESTART_MARK, RESUME_MARK}:
        position.resumed_epoch = int(row.path.rpartition("#")[2])
    if row.step_name == RESTART_MARK:
        position.unwinding = None
    elif row.step_name == OUTCOME_MARK:
        position.unwinding = Unwinding.read(row.output)
        position.cleanup = begin_cleanup(position.cleanup, position.cursor.workflow)


def _replay_pending(position: Position, row: PastVisit) -> None:
    """Note a wait or a delay that had begun, or that a visit has stored its progress or recorded calls."""
    if row.path.endswith(PROGRESS_MARK):
        position.reported_path = row.path.removesuffix(PROGRESS_MARK)
        return
    if row.step_name == ONCE_NAME:
        position.has_calls = True
        return
    stored = Document(row.output or "null").value()
    path, mark, _ = row.path.partition(RETRY_MARK)
    if mark:
        position.retries[path] = StoredRetry.from_dict(stored)
    else:
        path, _, _ = row.path.partition(WAIT_MARK)
        position.waits[path] = None if stored is None else str(stored)


def _update_context(scope: Scope, row: VisitRow, encoded: EncodedResult) -> None:
    output = encoded.output
    scope.last_output = output
    if scope.cursor.step is None and not scope.is_run:
        return  # nothing reads the context of a finished scope; its step uses the last output
    outputs = {row.step_name: output} if output is not None else None
    updates = with_synonyms(scope.workflow, scope.context, encoded.updates) if encoded.updates else None
    if encoded.appends is not None:
        lists = with_synonyms(scope.workflow, scope.context, grown_lists(encoded.appends, params_of(scope.context).get))
        updates = lists if updates is None else {**updates, **lists}
    scope.context = with_documents(scope.context, updates, outputs)
    if not encoded.result.success:
        scope.context = with_failure(scope.context, row.step_name, failure_of(row), has_output=output is not None)
    elif output is None and has_failures(scope.context):  # with an output, the failure has been replaced
        scope.context = with_failure(scope.context, row.step_name, None)
    if row.quality is not None:
        scope.context = scope.context.with_quality(row.step_name, read_quality(row.quality))


def _jump(visit: Visit, encoded: EncodedResult) -> Jump | None:
    if encoded.result.status is not StepStatus.COMPLETED:
        return None
    if isinstance(visit.step, SignalStep):
        if visit.step.timeout_target is None or encoded.output is None:
            return None
        return timeout_jump(visit.step, encoded.output.value())
    return jump_of(encoded.output.value() if encoded.output else None, visit.scope.cursor)


def _outcome_after(visit: Visit, encoded: EncodedResult) -> Outcome | None:
    if encoded.result.stop_reason is not None:
        return Outcome(RunStatus.STOPPED, stop_reason=encoded.result.stop_reason)
    return COMPLETED if visit.scope.cursor.step is None else None


def _row(visit: Visit, encoded: EncodedResult, now: datetime, elapsed_ms: float) -> VisitRow:
    result, output, scope, step = encoded.result, encoded.output, visit.scope, visit.step
    appends = encoded.appends
    return VisitRow(  # positional: keywords for 19 fields cost 5 % of a step without a store (W5)
        visit.path,
        step.name,
        step.step_type,
        result.status,
        visit.attempts,
        visit.started_at,
        elapsed_ms,
        output.text if output is not None else None,
        output.size if output is not None else 0,
        join_object(encoded.updates).text if encoded.updates else None,
        encoded.quality.text if encoded.quality is not None else None,
        scope.item_params,
        result.error or result.skip_reason,
        result.category,
        None,
        join_object(appends).text if appends is not None else None,
        scope.path,
        now,
        scope.item_index,
    )


def _stored_traceback(visit: Visit, result: StepResult) -> Mapping[str, str]:
    """The traceback of a failure without messages; nothing for an error of a step inside, which has it already."""
    error = result.exception
    if error is None or error.__traceback__ is None or error is visit.inner_error:
        return {}
    text = traceback_text(error)[-MAX_STORED_TRACEBACK:]
    return {"traceback": text.encode("utf-8", "backslashreplace").decode()}  # names of files may have surrogates


def _apply_failure(visit: Visit, encoded: EncodedResult, now: datetime, elapsed_ms: float) -> Outcome:
    result, step = encoded.result, visit.step
    visit.put_back()
    metadata = {
        "duration_ms": elapsed_ms,
        "attempts": visit.attempts,
        "error_category": result.category,
        "error": result.error,
        **_stored_traceback(visit, result),
    }
    event = EventRow(EventType.STEP_FAILED, step.name, now, encode(metadata).text, visit.path)
    visit.run.pending.add_failed_visit(visit, [*_own_events(visit, encoded, now), event])
    if visit.scope.is_run:
        metric = StepMetric(
            step.name, step.step_type, StepStatus.FAILED, visit.attempts, visit.started_at, elapsed_ms, 0
        )
        visit.run.tally.add_failure(metric)
        visit.run.exception = result.exception
    return Outcome(RunStatus.FAILED, step.name, result.error, result.category, exception=result.exception)


def _own_events(visit: Visit, encoded: EncodedResult, now: datetime) -> list[EventRow]:
    return [EventRow(kind, visit.step.name, now, metadata, visit.path) for kind, metadata in encoded.events]


def _skipped_event(visit: Visit, name: str, now: datetime) -> EventRow:
    metadata = encode({"reason": f"{visit.step.name} went past it"})
    return EventRow(EventType.STEP_SKIPPED, name, now, metadata.text, visit.scope.child_path(name))
