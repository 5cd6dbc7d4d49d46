"""Runs, scopes, visits and rows for tests of the engine that need neither a store nor an event loop."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from spine_async import Step, Workflow, WorkflowContext
from spine_async._engine.state.cursor import Cursor
from spine_async._engine.state.pending_writes import PendingWrites
from spine_async._engine.state.run import Run
from spine_async._engine.state.scope import Scope, Visit
from spine_async._engine.state.wall_clock import RunClock
from spine_async._model.run_claim import Claim
from spine_async._model.status import StepStatus, StepType
from spine_async._model.visit_row import PastVisit, VisitRow

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EPOCH = 7
FIRST_SEQ = 10


class FixedClock:
    """A clock that stands still until a test sets it."""

    def __init__(self) -> None:
        self.mono = 0.0

    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return self.mono


def plain(name: str, **options: Any) -> Step:
    """A lambda step; these tests never call its handler."""
    return Step.lambda_(name, lambda context, config: None, **options)


def a_claim() -> Claim:
    return Claim(run_id="r", key=3, epoch=EPOCH, next_seq=FIRST_SEQ)


def a_run(workflow: Workflow, *, records_events: bool = True, clock: FixedClock | None = None) -> Run:
    pending = PendingWrites(a_claim(), records_events=records_events)
    return Run("r", workflow, pending, NOW, RunClock(clock or FixedClock()))


def run_scope(workflow: Workflow, **context: Any) -> Scope:
    """The scope of a new run of the workflow."""
    return Scope(a_run(workflow), workflow, "", Cursor(workflow), WorkflowContext(**context))


def next_visit(scope: Scope, *, attempts: int = 1) -> Visit:
    """A visit of the step at the scope's cursor, which has begun."""
    step = scope.cursor.step
    assert step is not None
    visit = Visit(
        path=scope.child_path(scope.cursor.segment),
        step_name=step.name,
        started_at=NOW,
        started_mono=0.0,
        scope=scope,
        step=step,
        attempts=attempts,
    )
    scope.run.pending.begin_visit(visit)
    return visit


def past_visit(
    path: str,
    *,
    name: str | None = None,
    kind: StepType = StepType.LAMBDA,
    status: StepStatus = StepStatus.COMPLETED,
    **columns: Any,
) -> PastVisit:
    """A stored visit, as a resume reads it."""
    return PastVisit(**_columns(path, name, kind, status, columns))


def visit_row(path: str, *, name: str | None = None, scope: str = "", **columns: Any) -> VisitRow:
    """A visit of a lambda that completed, as a store keeps it."""
    past = _columns(path, name, StepType.LAMBDA, StepStatus.COMPLETED, columns)
    return VisitRow(**past, scope=scope, completed_at=NOW)


def _columns(
    path: str, name: str | None, kind: StepType, status: StepStatus, columns: dict[str, Any]
) -> dict[str, Any]:
    past = {
        "path": path,
        "step_name": name or path.rpartition("/")[2].partition("#")[0],
        "step_type": kind,
        "status": status,
        "attempts": 1,
        "started_at": NOW,
        "duration_ms": 1.0,
        "output": None,
        "output_size": 0,
        "updates": None,
        "quality": None,
        "item_params": None,
    }
    return past | columns
