"""Reads a page of a run's events; the cost depends on the page's size, not on the number of events before it.

Theory of operation: events are stored in the event log or derived from visits. A visit is indexed only by the number of
its end event. Numbers have no gaps, so a page is complete if it contains all numbers of its range. Emitted events fill
many pages by themselves; then no visits are read. Otherwise the first read takes `limit + 1` visits, from the first
number of the page on. This is not enough in two rare cases: a visit began inside the page and ended after many others,
or the run records no events. Then all visits are read.
"""

from __future__ import annotations

from collections.abc import Sequence

from spine_async._model.visit_row import EventRow, VisitRow
from spine_async.storage.derived_events import merge_events
from spine_async.storage.sql.database import SqlDatabase
from spine_async.storage.sql.schema import queries
from spine_async.storage.sql.schema.queries import MAX_SEQ
from spine_async.storage.sql.schema.rows import read_event, read_visit


async def read_event_page(database: SqlDatabase, run_id: str, after: int, limit: int) -> list[EventRow]:
    """At most `limit` events with numbers above `after`, in order."""
    rows = await database.read(queries.KEY_AND_NEXT_SEQ, {"run_id": run_id})
    key, next_seq = (int(str(value)) for value in rows[0]) if rows else (0, 0)
    expected = range(after + 1, min(next_seq, after + 1 + limit))
    if not expected:
        return []
    # Events that are committed during the read have numbers from `next_seq` on and belong to the next page.
    stored = await _stored_events(database, run_id, key, after, limit + 1)
    page = merge_events(stored, (), after, next_seq)[:limit]
    if not _is_whole(page, expected):  # else no event of the page is derived from a visit
        visits = await _visits(database, run_id, key, after, limit + 1)
        page = merge_events(stored, visits, after, next_seq)[:limit]
    if not _is_whole(page, expected):
        stored = await _stored_events(database, run_id, key, after, MAX_SEQ)
        page = merge_events(stored, await _visits(database, run_id, key, 0, MAX_SEQ), after, next_seq)[:limit]
    return page


def _is_whole(page: Sequence[EventRow], expected: Sequence[int]) -> bool:
    return len(page) == len(expected) and all(each.seq == seq for each, seq in zip(page, expected, strict=True))


async def _stored_events(database: SqlDatabase, run_id: str, key: int, after: int, limit: int) -> list[EventRow]:
    rows = await database.read(queries.EVENT_LOG, {"key": key, "after": after, "most": limit})
    return [read_event(run_id, row) for row in rows]


async def _visits(database: SqlDatabase, run_id: str, key: int, from_seq: int, limit: int) -> list[VisitRow]:
    rows = await database.read(queries.VISITS_FOR_EVENTS, {"key": key, "from_seq": from_seq, "most": limit})
    return [read_visit(run_id, row) for row in rows]
