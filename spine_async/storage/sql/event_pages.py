"""Reading a run's events page by page, at a cost that depends on what is new and not on what there is.

Theory of operation: events are spread over the event log and the journal entries that tell of them, where an entry is
found by the number of its end only. Numbers have no gaps, so a page is complete when it holds each number that it must.
The first look takes the entries from the asked number on, as many as the page is long, and that suffices except in odd
cases: an entry whose start has a smaller number than ends before it, a run without events. Then the rest is read.
"""

from __future__ import annotations

from spine_async._model.record import EventRow
from spine_async.storage.derived_events import merge_events
from spine_async.storage.sql.database import SqlDatabase
from spine_async.storage.sql.schema import queries
from spine_async.storage.sql.schema.rows import read_event, read_visit

MAX_NUMBER = 2**31 - 1


async def read_events(database: SqlDatabase, run_id: str, after: int, limit: int) -> list[EventRow]:
    """At most `limit` events with numbers above `after`, in order."""
    found = await database.read(queries.LAST_NUMBER, {"run_id": run_id})
    key, next_seq = (int(str(value)) for value in found[0]) if found else (0, 0)
    missing = range(after + 1, min(next_seq, after + 1 + limit))
    if not missing:
        return []
    # What is committed while we read has numbers from next_seq on and is left for the next page.
    page = await _merged(database, run_id, key, after, next_seq, visits_from=after, most=limit + 1)
    if [each.seq for each in page[:limit]] != list(missing):
        page = await _merged(database, run_id, key, after, next_seq, visits_from=0, most=MAX_NUMBER)
    return page[:limit]


async def _merged(
    database: SqlDatabase, run_id: str, key: int, after: int, before: int, *, visits_from: int, most: int
) -> list[EventRow]:
    log = await database.read(queries.EVENT_LOG, {"key": key, "after": after, "most": most})
    told = await database.read(queries.EVENT_VISITS, {"key": key, "from_seq": visits_from, "most": most})
    events = [read_event(run_id, row) for row in log]
    visits = [read_visit(run_id, row) for row in told]
    return merge_events(events, visits, after, before)
