"""Events that are derived from stored rows instead of being stored: step events and the first event of a run.

A visit row also stands for the events that report the visit, so a step costs one insert. The view
`core_workflow_events` (`storage/sql/schema/events_view.py`) derives the same events in SQL; the two must agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from spine_async._model.document import encode
from spine_async._model.run_row import NewRun
from spine_async._model.status import EventType, StepStatus
from spine_async._model.visit_row import EventRow, VisitRow


def started_event(new: NewRun) -> EventRow:
    """The `workflow_started` event of a new run."""
    return EventRow(
        event_type=EventType.WORKFLOW_STARTED,
        step_name=None,
        timestamp=new.created_at,
        metadata=_json({"workflow_version": new.workflow_version, "total_steps": new.total_steps}),
        seq=1,
    )


def has_events(visit: VisitRow) -> bool:
    """Whether events are derived from the row."""
    return visit.records_events and visit.status in _END_EVENT_TYPES


def derive_events(visit: VisitRow) -> Iterator[EventRow]:
    """The events of one row in the order of their numbers; none if `has_events` is false."""
    if not has_events(visit):
        return
    if visit.started_seq is not None:
        yield EventRow(
            event_type=EventType.STEP_STARTED,
            step_name=visit.step_name,
            timestamp=visit.started_at,
            path=visit.path,
            seq=visit.started_seq,
        )
    yield EventRow(
        event_type=_END_EVENT_TYPES[visit.status],
        step_name=visit.step_name,
        timestamp=visit.completed_at,
        metadata=_json(_end_metadata(visit)),
        path=visit.path,
        seq=visit.seq,
    )
    if visit.item_seq is not None:
        yield EventRow(
            event_type=EventType.MAP_ITEM_COMPLETED,
            step_name=map_name(visit.scope),
            timestamp=visit.completed_at,
            metadata=_json({"index": visit.item_index, "output_size": visit.output_size}),
            path=visit.scope,
            seq=visit.item_seq,
        )


def merge_events(stored: Iterable[EventRow], visits: Iterable[VisitRow], after: int, before: int) -> list[EventRow]:
    """Stored events and events derived from visits with `after < seq < before`, ordered by number."""
    derived = chain.from_iterable(map(derive_events, visits))
    return sorted((each for each in chain(stored, derived) if after < each.seq < before), key=lambda each: each.seq)


def map_name(scope: str) -> str:
    """Name of the map that an item's scope belongs to: `b` for `a[1]/b#2[3]`."""
    segment = scope.rpartition("/")[2]
    return segment.partition("[")[0].partition("#")[0]


def _end_metadata(visit: VisitRow) -> Mapping[str, object]:
    if visit.status is StepStatus.SKIPPED:
        return {"reason": visit.error}
    if visit.status is StepStatus.FAILED:
        return {
            "duration_ms": visit.duration_ms,
            "attempts": visit.attempts,
            "error_category": visit.error_category,
            "error": visit.error,
            **({"next_step": visit.target} if visit.target is not None else {}),
        }
    return {"duration_ms": visit.duration_ms, "output_size": visit.output_size, "attempts": visit.attempts}


def _json(value: Mapping[str, object]) -> str:
    return encode(value).text


_END_EVENT_TYPES = {
    StepStatus.COMPLETED: EventType.STEP_COMPLETED,
    StepStatus.SKIPPED: EventType.STEP_SKIPPED,
    StepStatus.FAILED: EventType.STEP_FAILED,
}
