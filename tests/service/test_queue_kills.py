"""Workers with limited queues are killed by SIGKILL: no limit is exceeded, and no slot leaks. Part of `nox -s chaos`.

The database is looked at all the time: one query, and so one moment, gives all held runs. The notes of the steps tell
which of them were at work at the same time, and the rows of the runs when each began.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import pytest

from spine_async import Enqueued, RunStatus, WorkflowRunner
from tests.chaos.size import draws, report, size
from tests.crash.conftest import Rows
from tests.service.conftest import StartService
from tests.service.flows import Notes

pytestmark = pytest.mark.anyio

WORKERS = 3
CONCURRENCY, PER_PROCESS, PER_KEY, RUNS, PER = 6, 3, 2, 12, 0.25
MAIL = {
    "name": "mail",
    "concurrency": CONCURRENCY,
    "per_process": PER_PROCESS,
    "per_key": PER_KEY,
    "rate": (RUNS, PER),
}
KEYS = "abcde"
TOLERANCE = 0.1
"""Seconds that may pass between two readings of clocks in a process that gets no processor time."""

HELD = "SELECT owner, queue_key FROM core_workflow_runs WHERE queue = 'mail' AND owner IS NOT NULL AND NOT ready"
BEGUN = "SELECT started_at FROM core_workflow_runs WHERE queue = 'mail' AND epoch > 0 ORDER BY started_at"


class Ledger:
    """What was held at each moment at which the database was looked at."""

    def __init__(self, query: Callable[..., Rows]) -> None:
        self._query = query
        self.looks = 0
        self.most = 0

    def look(self) -> None:
        """Check that no limit is exceeded now."""
        held = self._query(HELD)
        self.looks += 1
        self.most = max(self.most, len(held))
        assert len(held) <= CONCURRENCY, held
        assert max(Counter(owner for owner, _ in held).values(), default=0) <= PER_PROCESS, held
        assert max(Counter(key for _, key in held).values(), default=0) <= PER_KEY, held

    async def watch(self, is_over: asyncio.Event) -> None:
        while not is_over.is_set():
            await asyncio.to_thread(self.look)
            await asyncio.sleep(0.005)


def check_notes(notes: Notes, killed: dict[int, float]) -> None:
    """Check how many steps were at work at the same time. The steps of a killed process end before it is killed."""
    moments: list[tuple[float, int, str, int]] = []
    open_steps: dict[tuple[int, str], float] = {}
    for note in notes.read():
        key, pid, run = note["run"][0], note["pid"], note["run"]
        if note["what"] == "began":
            open_steps[pid, run] = note["time"]
        else:
            moments += [(open_steps.pop((pid, run)), 1, key, pid), (note["time"], -1, key, pid)]
    for (pid, run), began in open_steps.items():
        moments += [(began, 1, run[0], pid), (max(began, killed[pid]), -1, run[0], pid)]
    at_work: Counter[object] = Counter()
    for _, change, key, pid in sorted(moments):
        at_work.update({"all": change, key: change, pid: change})
        assert at_work["all"] <= CONCURRENCY
        assert at_work[key] <= PER_KEY
        assert at_work[pid] <= PER_PROCESS


def check_rate(begun: Sequence[datetime]) -> None:
    """Check that no more runs began within any window than the rate allows."""
    for first, next_one in zip(begun, begun[RUNS:], strict=False):
        assert (next_one - first).total_seconds() >= PER - TOLERANCE


async def enqueue(observer: WorkflowRunner, first: int, count: int) -> list[str]:
    runs = [Enqueued(run_id=f"{KEYS[n % len(KEYS)]}{n}", key=KEYS[n % len(KEYS)]) for n in range(first, first + count)]
    return [handle.run_id for handle in await observer.enqueue_many("brief", runs, queue="mail")]


@pytest.mark.slow
async def test_no_limit_is_exceeded_and_no_slot_leaks(
    service: StartService, observer: WorkflowRunner, query: Callable[..., Rows], notes: Notes, database_url: str
) -> None:
    wanted = size(12, 1000)
    name = database_url.split("+", maxsplit=1)[0]
    draw, killed, began_at = draws("queues", name), dict[int, float](), time.monotonic()
    config = {"max_claims": 1000, "poll_interval": 0.1}
    ids = await enqueue(observer, 0, 60)
    workers = [await service(queues=[MAIL], config=config) for _ in range(WORKERS)]
    ledger, is_over = Ledger(query), asyncio.Event()
    watching = asyncio.create_task(ledger.watch(is_over))
    while len(killed) < wanted:
        await asyncio.sleep(draw.uniform(0.0, 0.12))
        victim = draw.randrange(WORKERS)
        killed[workers[victim].pid] = time.time()
        await workers[victim].kill()
        workers[victim] = await service(queues=[MAIL], config=config)
        if len(killed) % 2 == 0:
            ids += await enqueue(observer, len(ids), 8)
    for run_id in ids:
        assert (await observer.handle(run_id).result(timeout=60)).status is RunStatus.COMPLETED
    is_over.set()
    await watching
    assert query(HELD) == []
    begun = [_moment(row[0]) for row in query(BEGUN)]
    assert len(begun) == len(ids)
    check_rate(begun)
    check_notes(notes, killed)
    seconds = round(time.monotonic() - began_at, 1)
    report(f"queues[{name}]", kills=len(killed), runs=len(ids), looks=ledger.looks, most=ledger.most, seconds=seconds)
    assert ledger.most > 1, "the workers never worked side by side"


def _moment(value: Any) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)
