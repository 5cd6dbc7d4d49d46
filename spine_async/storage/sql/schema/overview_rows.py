"""Reads the rows of queries for pages that show the work of a store: `BACKLOG`, `OPEN_WAITS`, `ITEM_STATES`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime

from spine_async._model.corruption_guard import CorruptionGuard
from spine_async._model.document import split_values
from spine_async._model.due import Backlog, OpenWait
from spine_async._model.visit_record import ItemState
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


def read_item_states(rows: Iterable[Row], path: str) -> list[ItemState]:
    """The items of the map at `path`, of rows of `ITEM_STATES`.

    An item that failed, and completed after a resume, has completed.
    """
    states: dict[int, ItemState] = {}
    failures: list[ItemState] = []
    for index, has_ended, milliseconds, attempts, item_path, metadata in rows:
        if metadata is not None:
            failed = _failed_item(str(metadata))
            failures += [failed] if item_path == f"{path}[{failed.index}]" else []
        else:
            seconds = float(str(milliseconds)) / 1000
            number = int(str(index))
            states[number] = ItemState(number, has_ended=bool(has_ended), duration=seconds, attempts=int(str(attempts)))
    for each in failures:
        known = states.get(each.index)
        if known is None or not known.has_ended:
            states[each.index] = each
    return [states[index] for index in sorted(states)]


def _failed_item(metadata: str) -> ItemState:
    found = split_values(metadata)
    return ItemState(
        int(str(found["index"])),
        has_ended=True,
        duration=0.0,
        attempts=0,
        error=str(found["error"]),
        error_category=str(found["category"]),
    )
