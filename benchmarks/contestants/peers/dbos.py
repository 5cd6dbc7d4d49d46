"""DBOS: async workflows and steps on its system database, with its default settings.

Between steps its workflows only look up the recorded result. DBOS recovers runs when it launches.
"""

from __future__ import annotations

import asyncio
import time

from dbos import DBOS, SetWorkflowID

from benchmarks.child import answer, die_after, first_new, latency_figures, payload_text, start_clock, timed
from benchmarks.task import Reading, Task

_reached: list[tuple[int, float]] = []
_ends_at: list[int] = []
_began = time.perf_counter()


@DBOS.step()
async def step(index: int, payload: int) -> str | None:
    if _ends_at and index == _ends_at[0]:
        die_after(Reading(time.perf_counter() - _began, index))
    _reached.append((index, time.perf_counter()))
    return payload_text(index, payload) if payload else None


@DBOS.workflow()
async def chain(steps: int, payload: int) -> None:
    for index in range(steps):
        await step(index, payload)


@DBOS.workflow()
async def mapped(items: int, concurrency: int) -> None:
    limit = asyncio.Semaphore(concurrency)

    async def one(index: int) -> None:
        async with limit:
            await step(index, 0)

    await asyncio.gather(*(one(index) for index in range(items)))


def launch(task: Task) -> None:
    """Construct DBOS on the task's database; launching starts the recovery."""
    url = f"sqlite:///{task.place}" if task.backend == "sqlite" else task.place
    DBOS(config={"name": "bench", "system_database_url": url, "log_level": "CRITICAL", "application_version": "1"})
    DBOS.launch()


async def sequential(task: Task) -> Reading:
    launch(task)
    await chain(2, 0)
    return await timed(chain(task.size["steps"], task.size.get("payload", 0)), task.size["steps"])


async def fan_out(task: Task) -> Reading:
    launch(task)
    await chain(2, 0)
    return await timed(mapped(task.size["items"], task.size["concurrency"]), task.size["items"])


async def many_runs(task: Task) -> Reading:
    launch(task)
    await chain(2, 0)
    runs, latencies = task.size["runs"], list[float]()

    async def one() -> None:
        handle = await DBOS.start_workflow_async(chain, task.size["steps"], 0)
        await handle.get_result()
        latencies.append(time.perf_counter() - began)

    began = start_clock()
    await asyncio.gather(*(one() for _ in range(runs)))
    return Reading(time.perf_counter() - began, runs, latency_figures(latencies))


async def prepare(task: Task) -> Reading:
    launch(task)
    _ends_at.append(task.size["steps"])
    with SetWorkflowID("resumed"):
        await chain(task.size["steps"] + 1, 0)
    raise AssertionError("the process should have ended")


async def resume(task: Task) -> Reading:
    """From `launch`, which recovers the run, to the first new step."""
    began = time.perf_counter()
    launch(task)
    handle = await DBOS.retrieve_workflow_async("resumed")
    await handle.get_result()
    return first_new(task, _reached, began)


if __name__ == "__main__":
    verbs = {"sequential": sequential, "fan_out": fan_out, "many_runs": many_runs, "prepare": prepare, "resume": resume}
    answer(verbs, ["dbos"])
