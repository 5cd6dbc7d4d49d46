"""PgQueuer's queue: this process enqueues jobs in groups, and two other processes execute them.

The workers fetch 50 jobs at a time; all other settings are the defaults. A job is one row; it has no steps.
With the verb `work` this program is one of the workers: it works until its standard input ends.
"""

from __future__ import annotations

import asyncio
import time

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from benchmarks.child import answer, start_clock
from benchmarks.contestants.peers.workers import work_until_told, worker_process
from benchmarks.task import Reading, Task

_MODULE = "benchmarks.contestants.peers.pgqueuer_queue"
_BATCH = 50
_WARM_UP = 20
_GROUP = 500
_POLL = 0.02


async def queued(task: Task) -> Reading:
    """From the first enqueued group until two worker processes have ended all jobs."""
    runs = task.size["runs"]
    connection = await asyncpg.connect(task.place)
    queries = Queries(AsyncpgDriver(connection))
    await queries.install()
    async with worker_process(task, _MODULE), worker_process(task, _MODULE):
        await _enqueue(queries, _WARM_UP)
        await _all_ended(queries)
        began = start_clock()
        for first in range(0, runs, _GROUP):
            await _enqueue(queries, min(_GROUP, runs - first))
        enqueued = time.perf_counter() - began
        await _all_ended(queries)
        seconds = time.perf_counter() - began
    await connection.close()
    return Reading(seconds, runs, {"enqueue_s": enqueued})


async def _enqueue(queries: Queries, jobs: int) -> None:
    await queries.enqueue(["queued"] * jobs, [None] * jobs, [0] * jobs)


async def _all_ended(queries: Queries) -> None:
    while await queries.queue_size():  # noqa: ASYNC110 - nothing tells of the last end
        await asyncio.sleep(_POLL)


async def work(task: Task) -> Reading:
    connection = await asyncpg.connect(task.place)
    queue = PgQueuer(AsyncpgDriver(connection))

    @queue.entrypoint("queued")
    async def queued_job(job: Job) -> None:
        """A job that does nothing."""

    working = asyncio.create_task(queue.run(batch_size=_BATCH))
    await work_until_told()
    queue.shutdown.set()
    await working
    return Reading(0.0, 0)


if __name__ == "__main__":
    answer({"queued": queued, "work": work}, ["pgqueuer"])
