"""The progress that a visit reports: the latest value in memory, and now and then an event that stores it.

A report only replaces the latest value, in any thread. The watcher of the active runs stores new values a few times a
second, and the end of an attempt stores the last one. A row `load@done` is stored with the first event of a visit, so
that a later execution of the run knows which visits have an event to read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from spine_async._engine.state.marker_row import marker_row
from spine_async._model.document import encode, split_values
from spine_async._model.failure import storable_text
from spine_async._model.progress import Progress
from spine_async._model.status import EventType, StepStatus
from spine_async._model.visit_row import EventRow
from spine_async.errors import DefinitionError

if TYPE_CHECKING:
    from spine_async._engine.state.run import Run
    from spine_async._engine.state.scope import Visit

PROGRESS_MARK = "@done"
"""Suffix of the path of the row that marks a visit as having stored its progress."""

_INTERVAL = 0.2
"""Least time in seconds between two stored values of a visit."""


@dataclass(slots=True, eq=False)
class ProgressReport:
    """The progress of one visit.

    Attributes:
        value: The latest value; None before the first report.
        attempt: Number of the attempt that reported it.
        read: For a step that executes others, such as a map: reads its progress. Such a step resumes without it.
        stored: The value that was stored last, or the one with which the step began.
        stored_mono: When it was stored, on the monotonic clock.
    """

    value: Progress | None = None
    attempt: int = 0
    read: Callable[[], Progress] | None = None
    stored: Progress | None = None
    stored_mono: float = field(default=float("-inf"), init=False)

    def latest(self) -> Progress | None:
        """The present value."""
        return self.read() if self.read is not None else self.value


def store_progress(runs: Iterable[Run], now_mono: float) -> list[Run]:
    """Add events with the new values of all open visits to the pending writes; returns the runs that have some."""
    changed = []
    for run in runs:
        due = [each for each in run.pending.open_visits.values() if _is_due(each.report, now_mono)]
        stored = [add_progress_event(each, now_mono) for each in due]  # type: ignore[arg-type]
        if any(stored):
            changed.append(run)
    return changed


def add_progress_event(visit: Visit, now_mono: float) -> bool:
    """Add an event with the latest value of the visit, unless it is stored; returns whether there was a new one."""
    report, pending, scope = visit.report, visit.run.pending, visit.scope
    value = report.latest() if report is not None else None
    if report is None or value is None or value == report.stored:
        return False
    report.stored, report.stored_mono = value, now_mono
    if not pending.records_events or pending.end is not None:
        return False
    now = visit.run.clock.now()
    attempt = report.attempt or visit.attempts
    metadata = {
        "execution": pending.claim.epoch,
        "attempt": attempt,
        "done": value.done,
        "total": value.total,
        "message": storable_text(value.message) if value.message is not None else None,
    }
    event = EventRow(EventType.STEP_PROGRESS, visit.step.name, now, encode(metadata).text, visit.path)
    pending.flush_visit(visit)
    if report.read is not None or scope.reported_path == visit.path:
        pending.add_events(event)
    else:
        scope.reported_path = visit.path
        pending.add_marker(marker_row(visit, visit.path + PROGRESS_MARK, StepStatus.WAITING, now), event)
    return True


def read_progress(metadata: str) -> Progress:
    """The value in the metadata of an event; raises `ValueError`, `KeyError` or `TypeError` if there is none."""
    stored: dict[str, object] = dict(split_values(metadata))
    try:
        return Progress(stored["done"], stored["total"], stored["message"])  # type: ignore[arg-type]
    except DefinitionError as exc:
        raise ValueError("no progress") from exc


def _is_due(report: ProgressReport | None, now_mono: float) -> bool:
    return report is not None and now_mono - report.stored_mono >= _INTERVAL
