"""Reads a page of a run's events; the cost depends on the page's size, not on the number of events before it.

Theory of operation: events are stored in the event log or derived from visits. A visit is indexed only by the number of
its end event. Numbers have no gaps, so a page is complete if it contains all numbers of its range. The first read takes
`limit + 1` visits, from the first number of the page on. This is not enough in two rare cases: a visit began inside the
page and ended after many others, or the run records no events. Then all visits are read.
"""

from __future__ import annotations

from spine_async._model.record import EventRow
from spine_async.storage.derived_events import merge_events
from spine_async.storage.sql.database import SqlDatabase
from spine_async.storage.sql.schema import queries
from spine_async.storage.sql.schema.rows import read_event, read_visit

MAX_SEQ = 2**31 - 1


async def read_event_page(database: SqlDatabase, run_id: str, after: int, limit: int) -> list[EventRow]:
    """At most `limit` events with numbers above `after`, in order."""
    rows = await database.read(queries.KEY_AND_NEXT_SEQ, {"run_id": run_id})
    key, next_seq = (int(str(value)) for value in rows[0]) if rows else (0, 0)
    expected = range(after + 1, min(next_seq, after + 1 + limit))
    if not expected:
        return []
    # Events that are committed during the read have numbers from `next_seq` on and belong to the next page.
    page = await _read_events(database, run_id, key, after, next_seq, visits_from=after, max_rows=limit + 1)
    if [each.seq for each in page[:limit]] != list(expected):
        page = await _read_events(database, run_id, key, after, next_seq, visits_from=0, max_rows=MAX_SEQ)
    return page[:limit]


async def _read_events(
    database: SqlDatabase, run_id: str, key: int, after: int, before: int, *, visits_from: int, max_rows: int
) -> list[EventRow]:
    stored = await database.read(queries.EVENT_LOG, {"key": key, "after": after, "most": max_rows})
    rows = await database.read(queries.VISITS_FOR_EVENTS, {"key": key, "from_seq": visits_from, "most": max_rows})
    events = [read_event(run_id, row) for row in stored]
    visits = [read_visit(run_id, row) for row in rows]
    return merge_events(events, visits, after, before)
