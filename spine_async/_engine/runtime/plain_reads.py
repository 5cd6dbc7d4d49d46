"""Reads for which a store may have a capability; other stores are read page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

from spine_async._model.naming import is_path
from spine_async._model.run_filter import RunCursor, RunFilter
from spine_async._model.run_row import StoredRun
from spine_async._model.status import FINISHED, RunStatus
from spine_async._model.visit_filter import OWN_VISITS, VisitFilter
from spine_async._model.visit_row import EventRow, PastPage, VisitRow
from spine_async.ports import RunStore, finds_last_rows, reads_outlines, summarizes_runs

_PAGE = 500


async def past_visits(store: RunStore, run_id: str, after: int, limit: int) -> PastPage:
    """As `OutlineStore.past_visits`."""
    if reads_outlines(store):
        return await store.past_visits(run_id, after, limit)
    page = await store.visits(run_id, replace(OWN_VISITS, after=after, limit=limit))
    return PastPage(page, page[-1].seq if page else 0)


async def last_visit(store: RunStore, run_id: str, step: str) -> VisitRow | None:
    """As `LastRowStore.last_visit`."""
    if finds_last_rows(store):
        return await store.last_visit(run_id, step)
    is_one_visit, last, after = is_path(step), None, 0
    scope = step.rpartition("/")[0] if is_one_visit else ""
    while page := await store.visits(run_id, VisitFilter([scope], after=after, limit=_PAGE)):
        for row in page:
            if step == (row.path if is_one_visit else row.step_name) and row.status in FINISHED:
                last = row
        after = page[-1].seq
    return last


async def last_event(store: RunStore, run_id: str, event_type: str, path: str) -> EventRow | None:
    """As `LastRowStore.last_event`; it may find an event that is derived from a visit."""
    if finds_last_rows(store):
        return await store.last_event(run_id, event_type, path)
    last, after = None, 0
    while page := await store.events(run_id, after, _PAGE):
        last = next((each for each in reversed(page) if (each.event_type, each.path) == (event_type, path)), last)
        after = page[-1].seq
    return last


async def count_runs(store: RunStore, chosen: RunFilter) -> dict[RunStatus, int]:
    """As `SummaryStore.count_runs`; reads at most `chosen.limit` runs of each status."""
    if summarizes_runs(store):
        return await store.count_runs(chosen)
    counts: dict[RunStatus, int] = {}
    for status in chosen.statuses:
        async for page in _pages(store, replace(chosen, status=status), chosen.limit):
            counts[status] = counts.get(status, 0) + len(page)
    return counts


async def workflow_names(store: RunStore) -> list[str]:
    """As `SummaryStore.workflow_names`; reads all runs."""
    if summarizes_runs(store):
        return await store.workflow_names()
    return sorted({run.workflow_name async for page in _pages(store, RunFilter(), None) for run in page})


async def _pages(store: RunStore, chosen: RunFilter, most: int | None) -> AsyncIterator[list[StoredRun]]:
    """The pages of a listing without documents, `most` runs together."""
    cursor, left = chosen.cursor, most
    while left is None or left > 0:
        size = _PAGE if left is None else min(left, _PAGE)
        page = await store.runs(replace(chosen, cursor=cursor, limit=size, with_documents=False, skips_unreadable=True))
        if not page:
            return
        yield page
        cursor = RunCursor(page[-1].created_at, page[-1].key)
        left = left - len(page) if left is not None else None
