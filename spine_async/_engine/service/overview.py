"""Reads what a store has under way: its queues, the workers, and the waits for signals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime

from pydantic_core import from_json

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.service.query import run_records
from spine_async._engine.start.owner import is_gone, place_of
from spine_async._model.corruption_guard import CorruptionGuard
from spine_async._model.due import Backlog, OpenWait
from spine_async._model.history import RunRecord
from spine_async._model.overview import QueueRecord, SignalWait, SignalWaits, WorkerRecord
from spine_async._model.queue import Queue
from spine_async._model.run_filter import RunCursor, RunFilter
from spine_async._model.status import RunStatus

MOST = 10_000
"""Number at which the counting of each kind of runs ends."""

_PAGE = 200
_PAGES = 5


async def queue_records(runtime: Runtime, known: Mapping[str, Queue | None]) -> list[QueueRecord]:
    """The queues that have runs, or that a runner listed, or that are known here; ordered by name.

    Args:
        runtime: What all runs share.
        known: The queues that this runner works on, with their limits.
    """
    backlog = await runtime.due_runs.backlog(MOST)
    held = Counter[str]()
    for (_, queue), count in backlog.held.items():
        held[queue] += count
    names = {*known, *backlog.due, *backlog.parked, *backlog.delayed, *held, *backlog.listed} - {""}
    now = runtime.clock.now()
    return [_queue_record(name, known.get(name), backlog, held, now) for name in [*sorted(names), ""]]


def _queue_record(
    name: str, limits: Queue | None, backlog: Backlog, held: Mapping[str, int], now: datetime
) -> QueueRecord:
    oldest = backlog.oldest.get(name)
    return QueueRecord(
        name=name or None,
        limits=limits,
        waiting=backlog.due.get(name, 0),
        held=held.get(name, 0),
        delayed=backlog.delayed.get(name, 0),
        parked=backlog.parked.get(name, 0),
        oldest_due_at=oldest,
        oldest_wait=max(0.0, (now - oldest).total_seconds()) if oldest is not None else None,
        listed_at=backlog.listed.get(name),
        is_exact=not backlog.is_partial,
    )


async def worker_records(runtime: Runtime) -> list[WorkerRecord]:
    """The runners that hold runs, ordered by name."""
    backlog = await runtime.due_runs.backlog(MOST)
    held: dict[str, dict[str | None, int]] = {}
    for (owner, queue), count in sorted(backlog.held.items()):
        held.setdefault(owner, {})[queue or None] = count
    return await runtime.run_on_thread(_workers, held, runtime.owner)  # it reads files


def _workers(held: Mapping[str, Mapping[str | None, int]], own: str) -> list[WorkerRecord]:
    return [
        WorkerRecord(owner, *place_of(owner), counts, owner == own, is_gone(owner)) for owner, counts in held.items()
    ]


async def signal_waits(runtime: Runtime, limit: int, cursor: RunCursor | None) -> SignalWaits:
    """At least `limit` waits for signals, if the next thousand waiting runs have that many."""
    waits: list[SignalWait] = []
    after, size = cursor, min(limit, _PAGE)
    for _ in range(_PAGES):
        chosen = RunFilter(status=RunStatus.WAITING, limit=size, cursor=after, with_documents=False)
        runs = await run_records(runtime, chosen)
        waits += await waits_of(runtime, runs)
        after = RunCursor.parse(runs[-1].cursor) if len(runs) == size else None
        if after is None or len(waits) >= limit:
            break
        size = _PAGE
    return SignalWaits(tuple(waits), str(after) if after is not None else None)


async def waits_of(runtime: Runtime, runs: Iterable[RunRecord]) -> list[SignalWait]:
    """The waits for signals of these runs, in the order of the runs."""
    by_id = {run.run_id: run for run in runs if not run.status.is_final}
    places = {run_id: place for place, run_id in enumerate(by_id)}
    found = await runtime.due_runs.open_waits(list(by_id)) if by_id else []
    return [_signal_wait(each, by_id[each.run_id]) for each in sorted(found, key=lambda each: places[each.run_id])]


def _signal_wait(wait: OpenWait, run: RunRecord) -> SignalWait:
    with CorruptionGuard(wait.run_id):
        metadata = from_json(wait.metadata)
        until = metadata.get("until")
        return SignalWait(
            run=run,
            name=str(metadata["signal"]),
            path=wait.path,
            step_name=wait.step_name,
            since=wait.since,
            until=datetime.fromisoformat(until) if until is not None else None,
        )
