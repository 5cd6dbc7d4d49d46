"""The waits of the runs of the memory store, and their owners."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice

from spine_async._model.due import Backlog, OpenWait
from spine_async._model.status import EventType, RunStatus
from spine_async.storage.memory_run import MemoryRun, is_parked

_SIGNAL = '{"signal":'


def backlog(runs: Iterable[MemoryRun], listed: Mapping[str, datetime], limit: int) -> Backlog:
    """The numbers of the runs that have not ended; the counting of each kind stops at the limit."""
    open_runs = [each for each in runs if not each.status.is_final]
    due = list(islice((each for each in open_runs if each.is_ready), limit))
    parked = list(islice((each for each in open_runs if is_parked(each)), limit))
    delayed = list(islice((each for each in open_runs if _is_delayed(each)), limit))
    held = list(islice((each for each in open_runs if each.is_held and not each.is_ready), limit))
    return Backlog(
        Counter(each.stored.queue for each in due),
        Counter(each.stored.queue for each in parked),
        Counter(each.stored.queue for each in delayed),
        Counter((str(each.stored.owner), each.stored.queue) for each in held),
        _oldest(due),
        listed,
        is_partial=limit in {len(due), len(parked), len(delayed), len(held)},
    )


def _is_delayed(found: MemoryRun) -> bool:
    is_free = found.run.owner is None and not found.is_ready
    return is_free and found.due_mono is not None and found.status is RunStatus.PENDING


def _oldest(due: Collection[MemoryRun]) -> dict[str, datetime]:
    turns: dict[str, float] = {}
    for each in due:
        if each.stored.epoch == 0:
            turns[each.stored.queue] = min(each.turn, turns.get(each.stored.queue, each.turn))
    return {queue: datetime.fromtimestamp(turn, UTC) for queue, turn in turns.items()}


def open_waits(found: MemoryRun) -> Iterator[OpenWait]:
    """The visits of the run that wait for a signal, ordered by path."""
    waits: dict[str, OpenWait] = {}
    for event in found.events:
        if event.event_type == EventType.STEP_STARTED and event.path and event.metadata.startswith(_SIGNAL):
            name = event.step_name or ""
            waits[event.path] = OpenWait(found.stored.run_id, event.path, name, event.timestamp, event.metadata)
    ended = {row.path for row in found.visits} if waits else frozenset()
    for path, wait in sorted(waits.items()):
        if path not in ended and outermost(path) not in ended:
            yield wait


def outermost(path: str) -> str:
    """The path of the step of the run itself that a visit is inside of, or the path itself."""
    return path.partition("[")[0].partition("/")[0]
