"""DBOS's queue: this process enqueues through the client, and two other processes execute, all with default settings.

With the verb `work` this program is one of them: it works until its standard input ends.
"""

from __future__ import annotations

import asyncio
import time

from dbos import DBOS, DBOSClient

from benchmarks.child import answer, start_clock
from benchmarks.contestants.peers.workers import work_until_told, worker_process
from benchmarks.task import Reading, Task

_QUEUE = "bench"
_OPTIONS = {"queue_name": _QUEUE, "workflow_name": "queued", "app_version": "1"}
_WARM_UP = 20
_POLL = 0.1
_CONCURRENT = 50
_MODULE = "benchmarks.contestants.peers.dbos_queue"


@DBOS.step()
async def step() -> None:
    """A step that does nothing."""


@DBOS.workflow(name="queued")
async def queued_workflow() -> None:
    await step()


def url_of(task: Task) -> str:
    return f"sqlite:///{task.place}" if task.backend == "sqlite" else task.place


async def queued(task: Task) -> Reading:
    """From the first call of `enqueue` until two worker processes have ended all workflows."""
    runs = task.size["runs"]
    async with worker_process(task, _MODULE), worker_process(task, _MODULE):
        client = DBOSClient(system_database_url=url_of(task))
        await _enqueue(client, _WARM_UP)
        await _all_ended(client)
        began = start_clock()
        await _enqueue(client, runs)
        enqueued = time.perf_counter() - began
        await _all_ended(client)
        return Reading(time.perf_counter() - began, runs, {"enqueue_s": enqueued})


async def _enqueue(client: DBOSClient, runs: int) -> None:
    limit = asyncio.Semaphore(_CONCURRENT)

    async def one() -> None:
        async with limit:
            await client.enqueue_async(_OPTIONS)

    await asyncio.gather(*(one() for _ in range(runs)))


async def _all_ended(client: DBOSClient) -> None:
    while await client.list_workflows_async(status=["ENQUEUED", "PENDING"], limit=1):  # noqa: ASYNC110 - nothing tells of the last end
        await asyncio.sleep(_POLL)


async def work(task: Task) -> Reading:
    url = url_of(task)
    DBOS(config={"name": "bench", "system_database_url": url, "log_level": "CRITICAL", "application_version": "1"})
    DBOS.launch()
    await DBOS.register_queue_async(_QUEUE)
    await work_until_told()
    DBOS.destroy()
    return Reading(0.0, 0)


if __name__ == "__main__":
    answer({"queued": queued, "work": work}, ["dbos"])
