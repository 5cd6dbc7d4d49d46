"""The timeline of a run: its visits with their times, computed from the events of the run.

Theory of operation: `Timeline.add` takes the events of a run in order and keeps the state of each visit.
`Timeline.rows` returns the visits depth first: a step, then what was executed inside of it. A run that records no
events (`emit_events=False`) has no timeline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from spine_async._model.history import Event
from spine_async._model.naming import COMPENSATION_MARK
from spine_async._model.plan import Plan
from spine_async._model.progress import Progress
from spine_async._model.status import EventType, StepType
from spine_async.views.step_kind import COMPENSATION, kind_at
from spine_async.views.visit_state import STEP_EVENTS, Visit, VisitState, interrupt


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """One visit of a step. Times are aware, in UTC; durations are in seconds.

    Attributes:
        path: Path of the visit, such as `review#2` or `process_all[17]/resize`.
        step_name: Name of the step.
        kind: Kind of the step, such as `lambda`; None if neither the plan nor the events tell it.
        status: State of the visit.
        attempt: Number of the attempt, counted from 1: the running one, or the last one. 0 for a skipped visit.
        started_at: When the visit started; of a skipped visit, when it was skipped.
        start: Seconds from the first event of the run to `started_at`.
        duration: Seconds from the start to the end, or until now if the visit has not ended.
        depth: How many visits enclose it.
        error: Error text of a failure or of the last failed attempt, or the reason of a skip; else None.
        error_category: Category of the error, or None.
        waits_for: What a waiting visit waits for, such as `signal approve`; else None.
        progress: The progress that it reported last, or None.
        entries_completed: Of a map or a parallel step: how many items or branches have completed.
        entries_failed: How many of them have failed.
        hidden: How many of the visits directly inside of it are left out, see `Timeline.rows`.
    """

    path: str
    step_name: str
    kind: str | None
    status: VisitState
    attempt: int
    started_at: datetime
    start: float
    duration: float
    depth: int
    error: str | None = None
    error_category: str | None = None
    waits_for: str | None = None
    progress: Progress | None = None
    entries_completed: int = 0
    entries_failed: int = 0
    hidden: int = 0


class Timeline:
    """The visits of one run.

    Args:
        plan: Plan of the workflow, with the kinds of its steps; None infers some of them from the events.

    Example:
        >>> from datetime import UTC, datetime
        >>> from spine_async import Event
        >>> timeline = Timeline()
        >>> began = datetime(2026, 1, 1, tzinfo=UTC)
        >>> timeline.add(Event("run", 2, "step_started", "load", "load", began, {}))
        >>> timeline.add(Event("run", 3, "step_completed", "load", "load", began, {"duration_ms": 1500, "attempts": 1}))
        >>> [(row.path, row.status.value, row.duration) for row in timeline.rows(now=began)]
        [('load', 'completed', 1.5)]
    """

    def __init__(self, plan: Plan | None = None) -> None:
        self._plan = plan
        self._visits: dict[str, Visit] = {}
        self._roots: list[Visit] = []
        self._began_at: datetime | None = None

    def add(self, event: Event) -> None:
        """Take the next event of the run. Events that handlers have emitted are ignored."""
        if self._began_at is None:
            self._began_at = event.timestamp
        if event.path is None:
            self._add_run_event(event)
        elif event.event_type in _ENTRY_EVENTS:
            self._count_entry(event, event.path)
        elif event.event_type in STEP_EVENTS:
            self._visit(event, event.path).change(event)

    def rows(self, now: datetime, max_inner: int | None = None) -> list[TimelineRow]:
        """The visits, depth first, in the order in which they started.

        Args:
            now: The present time. Visits that have not ended are shown up to it.
            max_inner: Maximum number of returned visits directly inside of one visit; open and failed ones
                before others. None returns all.
        """
        found: list[TimelineRow] = []
        self._append_rows(found, self._roots, 0, now, max_inner)
        return found

    def _append_rows(
        self, found: list[TimelineRow], visits: Iterable[Visit], depth: int, now: datetime, max_inner: int | None
    ) -> None:
        for visit in visits:
            inner = list(visit.inner)
            shown = _chosen(inner, max_inner)
            found.append(self._row(visit, depth, now, hidden=len(inner) - len(shown)))
            self._append_rows(found, shown, depth + 1, now, max_inner)

    def _row(self, visit: Visit, depth: int, now: datetime, hidden: int) -> TimelineRow:
        began_at = self._began_at or visit.started_at
        elapsed = max(((visit.ended_at or now) - visit.started_at).total_seconds(), 0.0)
        failed = sum(visit.entries.values())
        kind = self._kind(visit)
        # The end event of a wait that was parked has the time since it was continued only.
        is_elapsed = visit.duration is None or kind in {StepType.WAIT, StepType.SIGNAL}
        return TimelineRow(
            path=visit.path,
            step_name=visit.step_name,
            kind=kind,
            status=visit.status,
            attempt=visit.attempt,
            started_at=visit.started_at,
            start=max((visit.started_at - began_at).total_seconds(), 0.0),
            duration=elapsed if is_elapsed or visit.duration is None else visit.duration,
            depth=depth,
            error=visit.error,
            error_category=visit.error_category,
            waits_for=visit.waits_for,
            progress=visit.progress,
            entries_completed=len(visit.entries) - failed,
            entries_failed=failed,
            hidden=hidden,
        )

    def _kind(self, visit: Visit) -> str | None:
        planned = kind_at(self._plan, visit.path) if self._plan is not None else None
        return planned or (COMPENSATION if visit.path.endswith(COMPENSATION_MARK) else visit.kind)

    def _add_run_event(self, event: Event) -> None:
        if event.event_type == EventType.WORKFLOW_RESUMED:  # a wait continues without starting again
            interrupt(self._visits.values(), event.timestamp, keeps_waits=True)
        elif event.event_type in _RUN_ENDS:
            interrupt(self._visits.values(), event.timestamp)

    def _count_entry(self, event: Event, path: str) -> None:
        visit = self._visits.get(_enclosing(path))
        if visit is not None:
            visit.kind, visit.entries[path] = _ENTRY_EVENTS[event.event_type]

    def _visit(self, event: Event, path: str) -> Visit:
        """The visit at a path, which is added if this is its first event."""
        if path not in self._visits:
            visit = self._visits[path] = Visit(path, event.step_name or path, event.timestamp)
            self._insert(visit, path.rpartition("/")[0])
        return self._visits[path]

    def _insert(self, visit: Visit, scope: str) -> None:
        parent = self._visits.get(_enclosing(scope))
        if parent is None:
            self._roots.append(visit)
            return
        parent.scopes.setdefault(scope, []).append(visit)
        if parent.path == scope:  # neither an item nor a branch
            parent.kind = StepType.WORKFLOW


def _chosen(visits: list[Visit], limit: int | None) -> list[Visit]:
    """At most `limit` of the visits, in their order; notable ones are preferred."""
    if limit is None or len(visits) <= limit:
        return visits
    ranked = sorted(range(len(visits)), key=lambda number: not visits[number].is_notable)
    return [visits[number] for number in sorted(ranked[:limit])]


def _enclosing(scope: str) -> str:
    """The path of the visit that a scope lies inside: `a/m` for `a/m[1]`, `child` for `child`."""
    return scope.rpartition("[")[0] if scope.endswith("]") else scope


_RUN_ENDS = frozenset(
    {
        EventType.WORKFLOW_ENDING,
        EventType.WORKFLOW_COMPLETED,
        EventType.WORKFLOW_FAILED,
        EventType.WORKFLOW_STOPPED,
    }
)
_ENTRY_EVENTS: Mapping[str, tuple[str, bool]] = {
    EventType.MAP_ITEM_COMPLETED: (StepType.MAP, False),
    EventType.MAP_ITEM_FAILED: (StepType.MAP, True),
    EventType.BRANCH_COMPLETED: (StepType.PARALLEL, False),
    EventType.BRANCH_FAILED: (StepType.PARALLEL, True),
}
"""The kind of the step that reports the event about an item or a branch, and whether that has failed."""
