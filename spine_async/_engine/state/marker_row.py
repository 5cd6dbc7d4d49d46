"""Rows that are no visits: they store something about a visit that has not ended, or about the run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from spine_async._model.document import encode
from spine_async._model.status import EventType, StepStatus, StepType
from spine_async._model.visit_row import EventRow, VisitRow

if TYPE_CHECKING:
    from spine_async._engine.state.scope import Scope, Visit

WAIT_MARK = "@until"
"""Suffix of the path of the row that stores when a wait ends."""

RESUME_MARK = "@resume"
"""Step name of the row that stores the param overrides of a resume."""

RETRY_MARK = "@retry"
"""In the path of a row that stores the delay before another attempt; `#` and the number of attempts follow."""

ITEM_MARK = "@item"
"""In the path of the row that stores the params of a scope whose first step executes others."""


def event_marker(
    scope: Scope, name: str, event_type: EventType, output: str, metadata: Mapping[str, object]
) -> tuple[VisitRow, EventRow]:
    """A marker row of the run itself, and the event that reports it.

    Args:
        scope: The run's own scope.
        name: Step name of the row; the number of the claim follows in its path.
        event_type: Type of the event.
        output: JSON text.
        metadata: Metadata of the event.
    """
    at = scope.run.clock.now()
    row = VisitRow(
        path=f"{name}#{scope.run.pending.claim.epoch}",
        step_name=name,
        step_type=StepType.LAMBDA,
        status=StepStatus.OVERRIDE,
        attempts=0,
        started_at=at,
        duration_ms=0.0,
        output=output,
        output_size=0,
        updates=None,
        quality=None,
        item_params=None,
        completed_at=at,
    )
    return row, EventRow(event_type, None, at, encode(metadata).text)


def marker_row(
    visit: Visit,
    path: str,
    status: StepStatus,
    at: datetime,
    *,
    name: str | None = None,
    attempts: int = 0,
    output: str | None = None,
) -> VisitRow:
    """A marker row of a visit. It also stores the item of the scope, if no row stores it yet.

    Args:
        visit: The visit.
        path: Path of the row.
        status: `waiting` or `override`.
        at: Time at which the row was made.
        name: Step name of the row; None: the name of the visit's step.
        attempts: Attempts made before.
        output: JSON text, or None.
    """
    scope = visit.scope
    return VisitRow(
        path=path,
        step_name=visit.step.name if name is None else name,
        step_type=visit.step.step_type,
        status=status,
        attempts=attempts,
        started_at=visit.started_at,
        duration_ms=0.0,
        output=output,
        output_size=0,
        updates=None,
        quality=None,
        item_params=scope.item_params,
        scope=scope.path,
        completed_at=at,
        item_index=scope.item_index,
    )
