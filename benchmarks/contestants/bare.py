"""No library: the cost of the same calls in a plain event loop, as a lower bound without durability."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from benchmarks.child import answer, timed
from benchmarks.task import Reading, Task


async def sequential(task: Task) -> Reading:
    """The steps as plain coroutines that suspend once each, like a step without durability."""
    steps = task.size["steps"]

    async def run() -> None:
        for _ in range(steps):
            await pause(0)

    return await timed(run(), steps)


async def fan_out(task: Task) -> Reading:
    """Workers on one iterator; their number is the concurrency."""
    items, workers = task.size["items"], task.size["concurrency"]
    feed = iter(range(items))
    seconds = task.size.get("step_ms", 0) / 1000

    async def run() -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(workers, items)):
                tasks.create_task(work(feed, seconds))

    return await timed(run(), items)


async def work(feed: Iterator[int], seconds: float) -> None:
    """One worker."""
    for _ in feed:
        await pause(seconds)


async def pause(seconds: float) -> None:
    """The step."""
    await asyncio.sleep(seconds)


if __name__ == "__main__":
    answer({"sequential": sequential, "fan_out": fan_out})
