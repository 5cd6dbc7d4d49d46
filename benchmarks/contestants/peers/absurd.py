"""Absurd: async tasks with steps, executed by a worker on one connection, as in its SDK."""

from __future__ import annotations

import asyncio
import time

import absurdctl
import psycopg
from absurd_sdk import AsyncAbsurd, AsyncTaskContext

from benchmarks.child import answer, first_new, latency_figures, payload_text, start_clock, timed
from benchmarks.task import Reading, Task


async def opened(task: Task, *, is_new: bool = True) -> AsyncAbsurd:
    """A client on the task's database, with Absurd's schema and a queue in it, and the tasks registered."""
    if is_new:
        async with await psycopg.AsyncConnection.connect(task.place, autocommit=True) as connection:
            await connection.execute(absurdctl.BUNDLED_SCHEMA_SQL)
    app = AsyncAbsurd(task.place, queue_name="bench")
    if is_new:
        await app.create_queue("bench")
    register(app)
    return app


def register(app: AsyncAbsurd) -> None:
    @app.register_task(name="chain")
    async def chain(params: dict[str, int], context: AsyncTaskContext) -> None:
        payload = params.get("payload", 0)
        for index in range(params["steps"]):

            async def step(index: int = index) -> str:
                return payload_text(index, payload)

            await context.step(f"step-{index}", step)
        if params.get("fails"):
            raise RuntimeError("another process continues")

    @app.register_task(name="mapped")
    async def mapped(params: dict[str, int], context: AsyncTaskContext) -> None:
        limit = asyncio.Semaphore(params["concurrency"])

        async def step() -> None:
            return None

        async def one(index: int) -> None:
            async with limit:
                await context.step(f"item-{index}", step)

        await asyncio.gather(*(one(index) for index in range(params["items"])))


async def run(app: AsyncAbsurd, name: str, params: dict[str, int]) -> None:
    """Spawn one task and execute it at once."""
    await app.spawn(name, params)
    await app.work_batch()


async def sequential(task: Task) -> Reading:
    app = await opened(task)
    await run(app, "chain", {"steps": 2})
    reading = await timed(run(app, "chain", dict(task.size)), task.size["steps"])
    await app.close()
    return reading


async def fan_out(task: Task) -> Reading:
    app = await opened(task)
    await run(app, "chain", {"steps": 2})
    reading = await timed(run(app, "mapped", dict(task.size)), task.size["items"])
    await app.close()
    return reading


async def many_runs(task: Task) -> Reading:
    """Spawned one after the other, then executed by a worker with room for all of them."""
    app = await opened(task)
    await run(app, "chain", {"steps": 2})
    runs, latencies = task.size["runs"], list[float]()

    @app.register_task(name="counted")
    async def counted(params: dict[str, int], context: AsyncTaskContext) -> None:
        async def step() -> None:
            return None

        for index in range(params["steps"]):
            await context.step(f"step-{index}", step)
        latencies.append(time.perf_counter() - began)
        if len(latencies) == runs:
            app.stop_worker()

    began = start_clock()
    for _ in range(runs):
        await app.spawn("counted", {"steps": task.size["steps"]})
    await app.start_worker(concurrency=runs)
    reading = Reading(time.perf_counter() - began, runs, latency_figures(latencies))
    await app.close()
    return reading


async def prepare(task: Task) -> Reading:
    """A run that fails after its steps and is queued again at once, without a worker."""
    app = await opened(task)
    params = {"steps": task.size["steps"], "fails": 1}
    await app.spawn("chain", params, max_attempts=2, retry_strategy={"kind": "none"})
    reading = await timed(app.work_batch(), task.size["steps"])
    await app.close()
    return reading


async def resume(task: Task) -> Reading:
    """From the claim of a worker in a new process to the first new step."""
    app = await opened(task, is_new=False)
    reached: list[tuple[int, float]] = []

    @app.register_task(name="chain")
    async def chain(params: dict[str, int], context: AsyncTaskContext) -> None:
        for index in range(params["steps"] + 1):

            async def step(index: int = index) -> None:
                reached.append((index, time.perf_counter()))

            await context.step(f"step-{index}", step)

    began = time.perf_counter()
    await app.work_batch()
    reading = first_new(task, reached, began)
    await app.close()
    return reading


if __name__ == "__main__":
    verbs = {"sequential": sequential, "fan_out": fan_out, "many_runs": many_runs, "prepare": prepare, "resume": resume}
    answer(verbs, ["absurd-sdk"])
