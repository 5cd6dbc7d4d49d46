"""Procrastinate's queue: this process defers jobs in groups, and two other processes execute them.

The workers run 50 jobs at the same time; all other settings are the defaults. A job is one row; it has no steps.
With the verb `work` this program is one of the workers: it works until its standard input ends.
"""

from __future__ import annotations

import asyncio
import time

from procrastinate import App, PsycopgConnector

from benchmarks.child import answer, start_clock
from benchmarks.contestants.peers.workers import work_until_told, worker_process
from benchmarks.task import Reading, Task

_MODULE = "benchmarks.contestants.peers.procrastinate_queue"
_CONCURRENCY = 50
_WARM_UP = 20
_GROUP = 500
_POLL = 0.02


def new_app(task: Task) -> App:
    """The application on the task's database, with one task that does nothing."""
    app = App(connector=PsycopgConnector(conninfo=task.place))

    @app.task(name="queued", queue="bench")
    async def queued_task() -> None:
        """A task that does nothing."""

    return app


async def queued(task: Task) -> Reading:
    """From the first deferred group until two worker processes have ended all jobs."""
    runs, app = task.size["runs"], new_app(task)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        async with worker_process(task, _MODULE), worker_process(task, _MODULE):
            await _defer(app, _WARM_UP)
            await _all_ended(app)
            began = start_clock()
            for first in range(0, runs, _GROUP):
                await _defer(app, min(_GROUP, runs - first))
            enqueued = time.perf_counter() - began
            await _all_ended(app)
            return Reading(time.perf_counter() - began, runs, {"enqueue_s": enqueued})


async def _defer(app: App, jobs: int) -> None:
    await app.configure_task("queued", queue="bench").batch_defer_async(*({} for _ in range(jobs)))


async def _all_ended(app: App) -> None:
    query = "SELECT count(*) AS open FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"
    while (await app.connector.execute_query_one_async(query))["open"]:  # noqa: ASYNC110 - nothing tells of the last end
        await asyncio.sleep(_POLL)


async def work(task: Task) -> Reading:
    app = new_app(task)
    async with app.open_async():
        working = asyncio.create_task(app.run_worker_async(concurrency=_CONCURRENCY, install_signal_handlers=False))
        await work_until_told()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    return Reading(0.0, 0)


if __name__ == "__main__":
    answer({"queued": queued, "work": work}, ["procrastinate"])
