"""Rows that steps add to a run: finished visits and events.

A row of a visit holds only what one step visit added. Each run has one counter: every event takes the next number, and
the `seq` of a visit is the number of its end event.

Only the creator of a row changes it. The rows are not frozen, because a run creates several for each step and a frozen
dataclass takes twice as long to create. The records that users receive are frozen (`history`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from spine_async._model.status import StepStatus, StepType

_UNKNOWN = datetime(1970, 1, 1, tzinfo=UTC)  # every row has a time; a default must follow those of `PastVisit`

ONCE_NAME = "@once"
"""The step name of the row that stores the value of a call of `context.once`; its path is `think/@once:<hash>`."""


@dataclass(slots=True)
class PastVisit:
    """The part of a journal entry that a resume reads to rebuild position, context and metrics.

    Attributes:
        path: Position in the run: `fetch`, `review#3` (third visit), `process_all[17]/resize` (inside a map item).
        duration_ms: Milliseconds from the start to the end of the visit.
        output: JSON text of the output, or None if the step has none.
        output_size: Bytes of the output in UTF-8.
        updates: JSON object text of the changed params, or None.
        quality: JSON object text of the quality metrics, or None.
        item_params: On the first row of a scope with params of its own, JSON object text of these: of a map item, the
            item; of an inline workflow, all its params. `updates` override them. None on other rows.
        error: Error text of a failure, reason of a skip, or None.
        target: For a failure that was caught: the step that the scope continued with, or `END`; else None.
        appends: JSON object text of the elements that were appended to params: an array for each; or None.
    """

    path: str
    step_name: str
    step_type: StepType
    status: StepStatus
    attempts: int
    started_at: datetime
    duration_ms: float
    output: str | None
    output_size: int
    updates: str | None
    quality: str | None
    item_params: str | None
    error: str | None = None
    error_category: str | None = None
    target: str | None = None
    appends: str | None = None


@dataclass(slots=True)
class PastPage:
    """A page of the entries that a resume reads.

    Attributes:
        visits: The entries in the order of their numbers.
        last_seq: Number of the last one; 0 if there is none.
    """

    visits: Sequence[PastVisit]
    last_seq: int


@dataclass(slots=True)
class VisitRow(PastVisit):
    """A finished visit of a step, or one of the two other kinds of journal entries (see `StepStatus`).

    The run fills in the result when the step ends. The journal assigns the numbers when it commits the row.

    Attributes:
        scope: The path before the last slash: empty, `process_all[17]`, or `child` for a workflow step.
        item_index: If the scope is that of a map item, its index; else None.
        ends_item: Whether this is the last visit of its scope, unless the scope is the run.
        records_events: Whether events are derived from this row.
        seq: Number of the end event.
        started_seq: Number of `step_started`, or None if that event is stored separately.
        item_seq: Number of `map_item_completed`, or None.
        epoch: Epoch of the claim that committed the row.
        commit_id: Token of the commit that wrote the row.
    """

    scope: str = ""
    completed_at: datetime = _UNKNOWN
    item_index: int | None = None
    ends_item: bool = False
    records_events: bool = True
    seq: int = 0
    started_seq: int | None = None
    item_seq: int | None = None
    epoch: int = 0
    commit_id: str = ""

    @property
    def is_hidden(self) -> bool:
        """Whether only a query for its scope returns the row: it stores a recorded call, and no item of a map."""
        return self.step_name == ONCE_NAME and self.item_params is None


@dataclass(slots=True)
class EventRow:
    """An event that is stored in a row of its own. `metadata` is JSON object text."""

    event_type: str
    step_name: str | None
    timestamp: datetime
    metadata: str = "{}"
    path: str | None = None
    seq: int = 0
