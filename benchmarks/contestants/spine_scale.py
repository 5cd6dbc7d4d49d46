"""Queued runs that several processes execute on one database: how the rate grows with the processes, and why not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from benchmarks.child import answer
from benchmarks.contestants.postgres_load import PostgresLoad
from benchmarks.contestants.spine import database_url, make_config
from benchmarks.contestants.spine_worker import FANS_OUT, SCALED, Usage, WorkerProcess, worker_process
from benchmarks.task import Reading, Task
from spine_async import Enqueued, RunStatus, Workflow, WorkflowRunner
from spine_async.storage.sql.schema.tables import runs

_GROUP = 500
_POLL = 0.1


async def scale_runs(task: Task) -> Reading:
    """Stored runs of five steps, from the first start to the last end."""
    async with WorkflowRunner(config=make_config(task), work=False) as runner:
        total = task.size["runs"]
        for first in range(0, total, _GROUP):
            await runner.enqueue_many(SCALED, [Enqueued() for _ in range(min(_GROUP, total - first))])
        return await _measured(task, runner, SCALED, total)


async def scale_map(task: Task) -> Reading:
    """One stored run with a map, whose items are queued children; from its start to its end."""
    async with WorkflowRunner(config=make_config(task), work=False) as runner:
        await runner.enqueue(FANS_OUT, params={"items": task.size["items"]})
        return await _measured(task, runner, FANS_OUT, task.size["items"])


async def _measured(task: Task, runner: WorkflowRunner, workflow: Workflow, units: int) -> Reading:
    """Let the worker processes begin together, and wait until all runs have ended."""
    load = PostgresLoad(task.place) if task.backend == "postgres" else None
    engine = create_async_engine(database_url(task), poolclass=NullPool)
    async with _workers(task) as workers:
        before = [await each.usage() for each in workers]
        with load or nullcontext():
            for each in workers:
                await each.begin()
            await _all_ended(runner, engine)
        after = [await each.usage() for each in workers]
    server_cpu = load.cpu_seconds if load is not None else 0.0
    figures = {
        "cpu_us": (_cpu(after) - _cpu(before) + server_cpu) / units * 1e6,
        "server_cpu_us": server_cpu / units * 1e6,
        "worker_rss_mb": max(each.rss_mb for each in after),
        **(load.figures(units) if load is not None else {}),
    }
    return Reading(await _seconds(engine, workflow), units, figures)


@asynccontextmanager
async def _workers(task: Task) -> AsyncIterator[list[WorkerProcess]]:
    async with AsyncExitStack() as stack:
        starting = [stack.enter_async_context(worker_process(task)) for _ in range(task.size["processes"])]
        yield await asyncio.gather(*starting)


async def _all_ended(runner: WorkflowRunner, engine: AsyncEngine) -> None:
    """Wait until all runs have ended."""
    # A parent goes back and forth between the states, so only one statement for all of them is sure.
    under_way = select(func.count()).where(runs.c.completed_at.is_(None))
    while True:
        for status in (RunStatus.PENDING, RunStatus.RUNNING, RunStatus.WAITING):
            while await runner.list_runs(status=status, limit=1):  # noqa: ASYNC110 - nothing tells of the last end
                await asyncio.sleep(_POLL)
        async with engine.connect() as connection:
            if (await connection.execute(under_way)).scalar_one() == 0:
                break
    if await runner.list_runs(status=RunStatus.FAILED, limit=1):
        raise AssertionError("a run has failed")


async def _seconds(engine: AsyncEngine, workflow: Workflow) -> float:
    """From the start of the first run of a workflow to the end of the last one, as they are stored."""
    asked = select(func.min(runs.c.started_at), func.max(runs.c.completed_at))
    async with engine.connect() as connection:
        row = (await connection.execute(asked.where(runs.c.workflow_name == workflow.name))).one()
    began, ended = (each if isinstance(each, datetime) else datetime.fromisoformat(str(each)) for each in row)
    return (ended - began).total_seconds()


def _cpu(usages: Sequence[Usage]) -> float:
    return sum(each.cpu for each in usages)


if __name__ == "__main__":
    answer({"scale_runs": scale_runs, "scale_map": scale_map})
