"""Events that are made rather than given: the first of a run, and those that a visit tells of itself.

A journal entry and the events that report it are one row, so that a step costs one insert. The view
`core_workflow_events` says the same in SQL (`storage/sql/schema/events_view.py`); the two must agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from spine_async._model.document import encode
from spine_async._model.record import EventRow, NewRun, VisitRow
from spine_async._model.status import EventType, StepStatus


def started_event(new: NewRun) -> EventRow:
    """The first event of a run."""
    metadata = encode({"workflow_version": new.workflow_version, "total_steps": new.total_steps}).text
    return EventRow(EventType.WORKFLOW_STARTED, None, new.created_at, metadata, seq=1)


def tells(visit: VisitRow) -> bool:
    """Whether the journal entry has events of its own."""
    return visit.emits and visit.status in _TELLING


def expand_visit(visit: VisitRow) -> Iterator[EventRow]:
    """The events of one journal entry, in the order of their numbers; none for what is no visit."""
    if not tells(visit):
        return
    if visit.started_seq is not None:
        yield EventRow(
            EventType.STEP_STARTED, visit.step_name, visit.started_at, path=visit.path, seq=visit.started_seq
        )
    yield _end_event(visit)
    if visit.item_seq is not None:
        metadata = _document({"index": visit.item_index, "output_size": visit.output_size})
        name, path = map_of(visit.scope), visit.scope
        yield EventRow(EventType.MAP_ITEM_COMPLETED, name, visit.completed_at, metadata, path, visit.item_seq)


def merge_events(log: Iterable[EventRow], visits: Iterable[VisitRow], after: int, before: int) -> list[EventRow]:
    """Stored events and those that visits tell of, in order, with `after < number < before`."""
    told = chain.from_iterable(map(expand_visit, visits))
    return sorted((each for each in chain(log, told) if after < each.seq < before), key=lambda each: each.seq)


def map_of(scope: str) -> str:
    """Name of the map whose item the scope is: `b` for `a[1]/b#2[3]`."""
    segment = scope.rpartition("/")[2]
    return segment.partition("[")[0].partition("#")[0]


def _end_event(visit: VisitRow) -> EventRow:
    event_type, metadata = _ENDS[visit.status], _document(_end_metadata(visit))
    return EventRow(event_type, visit.step_name, visit.completed_at, metadata, visit.path, visit.seq)


def _end_metadata(visit: VisitRow) -> Mapping[str, object]:
    if visit.status is StepStatus.SKIPPED:
        return {"reason": visit.error}
    if visit.status is StepStatus.FAILED:
        return {
            "duration_ms": visit.duration_ms,
            "attempts": visit.attempts,
            "error_category": visit.error_category,
            "error": visit.error,
        }
    return {"duration_ms": visit.duration_ms, "output_size": visit.output_size, "attempts": visit.attempts}


def _document(value: Mapping[str, object]) -> str:
    return encode(value).text


_ENDS = {
    StepStatus.COMPLETED: EventType.STEP_COMPLETED,
    StepStatus.SKIPPED: EventType.STEP_SKIPPED,
    StepStatus.FAILED: EventType.STEP_FAILED,
}
_TELLING = frozenset(_ENDS)
