"""Reads the rows of the queries about runs that have not ended: `BACKLOG` and `OPEN_WAITS`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime

from spine_async._model.corruption_guard import CorruptionGuard
from spine_async._model.due import Backlog, OpenWait
from spine_async.storage.sql.schema.rows import Row, parse_timestamp


def read_backlog(rows: Iterable[Row], limit: int) -> Backlog:
    """The backlog of rows of the kind, the queue, the owner or status, the number and the time."""
    counts: dict[str, Counter[str]] = {"due": Counter(), "parked": Counter(), "delayed": Counter()}
    held, totals = Counter[tuple[str, str]](), Counter[str]()
    times: dict[str, dict[str, datetime]] = {"due": {}, "listed": {}}
    for what, queue, detail, number, seconds in rows:
        kind, name, count = str(what), str(queue), int(str(number))
        totals[kind] += count
        if kind in times and seconds is not None:
            times[kind][name] = datetime.fromtimestamp(float(str(seconds)), UTC)
        if kind == "held":
            held[str(detail), name] += count
        elif kind in counts:
            counts[kind][name] += count
        elif kind == "later" and detail == "pending":
            counts["delayed"][name] += count
    is_partial = any(count >= limit for count in totals.values())
    return Backlog(
        counts["due"], counts["parked"], counts["delayed"], held, times["due"], times["listed"], is_partial=is_partial
    )


def read_open_waits(rows: Iterable[Row]) -> list[OpenWait]:
    """The waits of rows of `OPEN_WAITS`. The last row of a visit counts."""
    waits: dict[tuple[object, object], OpenWait] = {}
    for run_id, path, name, since, metadata in rows:
        with CorruptionGuard(str(run_id)):
            waits[run_id, path] = OpenWait(str(run_id), str(path), str(name), parse_timestamp(since), str(metadata))
    return list(waits.values())
