"""The pages of one run: its state, its context, its events, the items of its maps."""

from __future__ import annotations

from functools import partial

import anyio.to_thread
from starlette.responses import Response

from spine_async._model.history import RunRecord
from spine_async._model.status import RunStatus
from spine_async.dashboard.event_reading import read_events
from spine_async.dashboard.event_text import describe
from spine_async.dashboard.forms import FormError
from spine_async.dashboard.map_view import map_view
from spine_async.dashboard.run_picture import picture_of
from spine_async.dashboard.site import Visit
from spine_async.errors import RunNotFoundError

LATEST_EVENTS = 30
EVENTS = 200
VISITS = 50
_CHILDREN = 20


async def run(visit: Visit) -> Response:
    """The state of a run: its graph, its timeline, its latest events, and what can be done with it."""
    record = await _record(visit)
    runner = visit.runner
    picture = await picture_of(visit, record)
    children = await runner.list_runs(parent_run_id=record.run_id, limit=_CHILDREN)
    waits = await runner.signal_waits_of(record.run_id) if not record.status.is_final else []
    return visit.page(
        "run.html",
        run=record,
        picture=picture,
        children=children,
        waits=waits,
        events=[describe(each, visit.permission) for each in picture.events[-LATEST_EVENTS:]],
        has_more_events=record.last_seq > LATEST_EVENTS,
        is_known=record.workflow_name in runner.workflows,
        can_resume=record.status in {RunStatus.FAILED, RunStatus.STOPPED},
        live=visit.url("/run/live", id=record.run_id, after=record.last_seq) if not record.status.is_final else None,
    )


async def context(visit: Visit) -> Response:
    """The context of a run: its values now, and what each of its own steps has added."""
    record = await _record(visit)
    after = _number(visit, "after")
    visits, snapshot, params = [], None, None
    if visit.permission.sees_values:
        visits = await visit.runner.list_visits(record.run_id, after=after, limit=VISITS + 1, with_values=True)
        params = record.params
        if visits:
            checkpoint = await visit.runner.get_checkpoint(record.run_id, visits[-1].path)
            snapshot = checkpoint.context_snapshot if checkpoint is not None else None
    show = partial(
        visit.page,
        "context.html",
        run=record,
        params=params,
        snapshot=snapshot,
        visits=visits[:VISITS],
        after=after,
        next_after=visits[VISITS - 1].seq if len(visits) > VISITS else None,
    )
    return await anyio.to_thread.run_sync(show)  # values may be large


async def events(visit: Visit) -> Response:
    """The events of a run, from a number on."""
    record = await _record(visit)
    after = _number(visit, "after")
    found = await read_events(visit, record, after, EVENTS)
    return visit.page(
        "events.html",
        run=record,
        events=[describe(each, visit.permission) for each in found],
        after=after,
        next_after=found[-1].seq if found and found[-1].seq < record.last_seq else None,
        last_page=max(record.last_seq - EVENTS, 0),
        live=visit.url("/run/live", id=record.run_id, after=record.last_seq)
        if not record.status.is_final and len(found) < EVENTS
        else None,
    )


async def items(visit: Visit) -> Response:
    """The items of a map: a strip with a cell for each, and the failed ones."""
    record = await _record(visit)
    path, first = visit.query("path") or "", _number(visit, "from")
    index = _number(visit, "item") if visit.query("item") is not None else None
    found = await visit.runner.map_items(record.run_id, path)

    def link(index: int) -> str:
        return visit.url("/run/map", id=record.run_id, path=path, item=index)

    return visit.page(
        "items.html",
        run=record,
        path=path,
        view=await anyio.to_thread.run_sync(map_view, found, first, index, link),
        index=index,
        visits=await visit.runner.list_visits(record.run_id, inside=f"{path}[{index}]") if index is not None else [],
        live=visit.url("/run/live", id=record.run_id, after=record.last_seq) if not record.status.is_final else None,
    )


async def _record(visit: Visit) -> RunRecord:
    """The run that the address names.

    Raises:
        RunNotFoundError: There is none.
    """
    run_id = visit.request.query_params.get("id", "")
    if not run_id:
        raise RunNotFoundError(run_id)
    return await visit.runner.get_run(run_id, with_outputs=False)


def _number(visit: Visit, name: str) -> int:
    text = visit.query(name) or "0"
    if not text.isascii() or not text.isdecimal() or len(text) > 15:
        raise FormError(f"{name} is {text!r:.40}; it must be a number")
    return int(text)
