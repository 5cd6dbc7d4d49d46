"""Listings and counts of runs.

Theory of operation: each run has an entry in two sorted sets: of its status, and of its workflow and status. An entry
consists of the time of the creation, the key and the hash of the id, so that the order of the texts is the order of a
listing, and a cursor is a place in it. A listing reads the sets of the statuses that the filter allows, at one time,
and the runs of their first entries. Other conditions of the filter are checked on the runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from spine_async._model.run_filter import RunFilter
from spine_async._model.run_row import StoredRun
from spine_async._model.status import RunStatus
from spine_async.errors import CorruptRecordError
from spine_async.storage.redis import rows
from spine_async.storage.redis.keys import Keys, hash_of_entry, hashed, place_prefix, time_prefix
from spine_async.storage.redis.request import Argument, Request
from spine_async.storage.redis.scripts import COUNT, LOAD, PAGE
from spine_async.storage.redis.server import RedisServer
from spine_async.storage.run_selection import matches, without_documents
from spine_async.storage.unreadable import report_unreadable

_PAGE = 200
_LAST = "~"
"""Sorts after all entries that begin with the same digits."""


async def list_runs(server: RedisServer, keys: Keys, chosen: RunFilter) -> list[StoredRun]:
    """The runs that the filter selects, in the order of the listing."""
    found: list[StoredRun] = []
    if chosen.limit <= 0:
        return found
    async for run in _matching(server, keys, chosen):
        found.append(run if chosen.with_documents else without_documents(run))
        if len(found) >= chosen.limit:
            break
    return found


async def count_runs(server: RedisServer, keys: Keys, chosen: RunFilter) -> dict[RunStatus, int]:
    """How many runs the filter selects, by status."""
    if not _needs_runs(chosen):
        arguments: list[Argument] = [*_bounds(chosen), len(chosen.statuses), *_indexes(chosen)]
        (counts,) = await server.read([Request(COUNT, (keys.runs, keys.runs), arguments)])
        pairs = zip(chosen.statuses, counts, strict=True)
        return {status: min(int(count), chosen.limit) for status, count in pairs if count}
    counted: Counter[RunStatus] = Counter()
    for status in chosen.statuses:
        async for run in _matching(server, keys, replace(chosen, status=status, with_documents=False)):
            counted[run.status] += 1
            if counted[run.status] >= chosen.limit:
                break
    return {status: min(count, chosen.limit) for status, count in counted.items()}


async def _matching(server: RedisServer, keys: Keys, chosen: RunFilter) -> AsyncIterator[StoredRun]:
    low, high = _bounds(chosen)
    size = min(_PAGE, chosen.limit) if not _needs_runs(chosen) else _PAGE
    while True:
        entries = await _entries(server, keys, chosen, (low, high), size)
        for run in await _load(server, keys, entries, chosen):
            if run is not None and matches(run, chosen):
                yield run
        if len(entries) < size:
            return
        low, high = (f"({entries[-1]}", high) if chosen.is_oldest_first else (low, f"({entries[-1]}")


async def _entries(server: RedisServer, keys: Keys, chosen: RunFilter, bounds: tuple[str, str], size: int) -> list[str]:
    """The first entries within the bounds, of all statuses that the filter allows."""
    low, high = bounds
    order = ("ZRANGEBYLEX", low, high) if chosen.is_oldest_first else ("ZREVRANGEBYLEX", high, low)
    indexes = _indexes(chosen)
    (pages,) = await server.read([Request(PAGE, (keys.runs, keys.runs), [*order, size, len(indexes), *indexes])])
    entries = sorted((rows.decoded(entry) for page in pages for entry in page), reverse=not chosen.is_oldest_first)
    return entries[:size]


async def _load(server: RedisServer, keys: Keys, entries: Sequence[str], chosen: RunFilter) -> list[StoredRun | None]:
    names = rows.ALL_FIELDS if chosen.with_documents else rows.FIELDS
    requests = [Request(LOAD, (keys.run_of_hash(hash_of_entry(each)), keys.runs), names) for each in entries]
    return [_read(names, answer, chosen) for answer in (await server.read(requests) if requests else ())]


def _read(names: Sequence[str], answer: list[Any] | None, chosen: RunFilter) -> StoredRun | None:
    """The run of an answer; None if it was deleted meanwhile, or cannot be read and the filter skips it."""
    if answer is None:
        return None
    try:
        return rows.read_run(names, answer[1], int(answer[0]))
    except CorruptRecordError as exc:
        if not chosen.skips_unreadable:
            raise
        report_unreadable(exc)
        return None


def _indexes(chosen: RunFilter) -> list[str]:
    workflow = f"{hashed(chosen.workflow_name)}:" if chosen.workflow_name is not None else ""
    return [f"{workflow}{status.value}" for status in chosen.statuses]


def _bounds(chosen: RunFilter) -> tuple[str, str]:
    """The bounds of the entries, as the commands for sorted sets take them."""
    low = f"[{time_prefix(chosen.created_from)}" if chosen.created_from is not None else "-"
    high = f"({time_prefix(chosen.created_until)}" if chosen.created_until is not None else "+"
    if chosen.cursor is None:
        return low, high
    place = place_prefix(chosen.cursor.created_at, chosen.cursor.key)
    if chosen.is_oldest_first:
        behind = f"({place}{_LAST}"
        return (behind if low == "-" or behind[1:] > low[1:] else low), high
    behind = f"({place}"
    return low, (behind if high == "+" or behind[1:] < high[1:] else high)


def _needs_runs(chosen: RunFilter) -> bool:
    """Whether the filter has conditions that the entries do not answer."""
    known = RunFilter(
        workflow_name=chosen.workflow_name,
        status=chosen.status,
        is_under_way=chosen.is_under_way,
        created_from=chosen.created_from,
        created_until=chosen.created_until,
        cursor=chosen.cursor,
        limit=chosen.limit,
        is_oldest_first=chosen.is_oldest_first,
        with_documents=chosen.with_documents,
        skips_unreadable=chosen.skips_unreadable,
    )
    return chosen != known
