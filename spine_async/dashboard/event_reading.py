"""Reads a limited number of the events of a run."""

from __future__ import annotations

from contextlib import aclosing

from spine_async._model.history import Event, RunRecord
from spine_async.dashboard.site import Visit


async def read_events(visit: Visit, record: RunRecord, after: int, limit: int) -> list[Event]:
    """At most `limit` events with a number above `after`, up to the last one that the record knows of."""
    found: list[Event] = []
    if after >= record.last_seq:
        return found
    async with aclosing(visit.runner.events(record.run_id, after=after)) as stored:
        async for event in stored:
            found.append(event)
            if len(found) >= limit or event.seq >= record.last_seq:
                break
    return found
