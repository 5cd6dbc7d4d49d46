"""The graph and the timeline of a run.

Theory of operation: a run with up to a thousand events is drawn from its events, which also tell what happens inside
of maps and branches. Of a larger run only the visits of its own steps are read, so that a page about a map of ten
thousand items costs no more than one about three steps. The step that is open is then the one that the latest events
belong to, because the steps of a run follow each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from spine_async._model.history import Event, RunRecord
from spine_async._model.plan import Plan
from spine_async._model.status import EventType, RunStatus, StepType
from spine_async._model.visit_record import VisitRecord
from spine_async.dashboard.event_reading import read_events
from spine_async.dashboard.site import Visit
from spine_async.views.graph import graph_of
from spine_async.views.step_kind import kind_at
from spine_async.views.svg import bar_svg, graph_svg
from spine_async.views.timeline import Timeline, TimelineRow
from spine_async.views.visit_state import VisitState

MOST_EVENTS = 1000
MOST_VISITS = 300
_INNER = 30
_TAIL = 50
_ITEM = re.compile(r"\[\d+\]")
_NUMBER = re.compile(r"#\d+")
_RUN_STATES = {RunStatus.WAITING: VisitState.WAITING, RunStatus.RUNNING: VisitState.RUNNING}


@dataclass(frozen=True, slots=True)
class Bar:
    """A row of the timeline with its bar."""

    row: TimelineRow
    svg: Markup


@dataclass(frozen=True, slots=True)
class Picture:
    """What a page draws of a run.

    Attributes:
        graph: SVG of the workflow; None if this process does not know the workflow.
        bars: The timeline.
        is_whole: Whether the timeline contains all visits, also those inside of others.
        is_cut: Whether even visits of the run's own steps are left out.
        events: The last events of the run, in order.
    """

    graph: Markup | None
    bars: list[Bar]
    is_whole: bool
    is_cut: bool
    events: Sequence[Event]

    @property
    def traceback(self) -> str | None:
        """The traceback of the last failure, if it was stored."""
        failures = (event for event in reversed(self.events) if event.event_type == EventType.STEP_FAILED)
        texts = (event.metadata.get("traceback") for event in failures)
        return next((str(text) for text in texts if text is not None), None)


async def picture_of(visit: Visit, record: RunRecord) -> Picture:
    """The graph and the timeline of a run."""
    workflow = visit.runner.workflows.get(record.workflow_name)
    plan = workflow.plan() if workflow is not None else None
    is_whole = record.last_seq <= MOST_EVENTS
    events = await read_events(visit, record, 0 if is_whole else record.last_seq - _TAIL, MOST_EVENTS)
    if is_whole:
        rows, is_cut = _from_events(visit, events, plan), False
    else:
        rows, is_cut = await _from_visits(visit, record, plan, events)
    total = max((row.start + row.duration for row in rows), default=0.0)
    bars = [_bar(row, total) for row in rows]
    return Picture(_graph(visit, record, plan, rows), bars, is_whole, is_cut, events)


def _bar(row: TimelineRow, total: float) -> Bar:
    return Bar(row, Markup(bar_svg(row.start, row.duration, total, row.status)))  # noqa: S704 - it escapes


def _graph(visit: Visit, record: RunRecord, plan: Plan | None, rows: Iterable[TimelineRow]) -> Markup | None:
    if plan is None:
        return None
    states, maps = dict[str, str](), dict[str, str]()
    for row in rows:
        if not _ITEM.search(row.path):
            place = _NUMBER.sub("", row.path)
            states[place] = row.status
            if row.kind == StepType.MAP:
                maps[place] = row.path

    def link(path: str) -> str | None:
        return visit.url("/run/map", id=record.run_id, path=maps[path]) if path in maps else None

    return Markup(graph_svg(graph_of(plan), states, link, f"steps of {record.workflow_name}"))  # noqa: S704 - it escapes


def _from_events(visit: Visit, events: Iterable[Event], plan: Plan | None) -> list[TimelineRow]:
    timeline = Timeline(plan)
    for event in events:
        timeline.add(event)
    return timeline.rows(visit.now, max_inner=_INNER)


async def _from_visits(
    visit: Visit, record: RunRecord, plan: Plan | None, events: Sequence[Event]
) -> tuple[list[TimelineRow], bool]:
    visits = await visit.runner.list_visits(record.run_id, limit=MOST_VISITS)
    rows = [_row(each, record) for each in visits]
    is_cut = len(visits) == MOST_VISITS
    if not record.status.is_final and not is_cut:
        rows += _open_row(visit, record, plan, visits, events)
    return rows, is_cut


def _row(visit: VisitRecord, record: RunRecord) -> TimelineRow:
    return TimelineRow(
        path=visit.path,
        step_name=visit.step_name,
        kind=visit.kind,
        status=VisitState(visit.status),
        attempt=visit.attempts,
        started_at=visit.started_at,
        start=max((visit.started_at - record.started_at).total_seconds(), 0.0),
        duration=visit.duration,
        depth=0,
        error=visit.error,
        error_category=visit.error_category,
    )


def _open_row(
    visit: Visit, record: RunRecord, plan: Plan | None, visits: list[VisitRecord], events: Sequence[Event]
) -> list[TimelineRow]:
    """The row of the step that has not ended, according to the latest events."""
    path = next((event.path for event in reversed(events) if event.path is not None), None)
    if path is None:
        return []
    outermost = path.partition("[")[0].partition("/")[0]
    if any(each.path == outermost for each in visits):
        return []
    ends = [each.started_at.timestamp() + each.duration for each in visits]
    began = max(ends, default=record.started_at.timestamp())
    start = max(began - record.started_at.timestamp(), 0.0)
    return [
        TimelineRow(
            path=outermost,
            step_name=_NUMBER.sub("", outermost),
            kind=kind_at(plan, outermost) if plan is not None else None,
            status=_RUN_STATES.get(record.status, VisitState.INTERRUPTED),
            attempt=1,
            started_at=record.started_at,
            start=start,
            duration=max((visit.now - record.started_at).total_seconds() - start, 0.0),
            depth=0,
        )
    ]
