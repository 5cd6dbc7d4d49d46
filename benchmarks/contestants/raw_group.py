"""The limit of group commit: each task waits for its own row, and one writer commits all waiting rows together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from benchmarks.child import answer, latency_figures, start_clock, timed
from benchmarks.contestants.raw_places import Row
from benchmarks.contestants.raw_table import RawTable, open_table
from benchmarks.task import Reading, Task


class Group:
    """Commits all waiting rows in one transaction, without a timer."""

    def __init__(self, table: RawTable) -> None:
        self._table = table
        self._waiting: list[tuple[Row, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def insert(self, row: Row) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((row, future))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        await future

    async def _write(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            await self._table.insert_many([row for row, _ in group])
            for _, future in group:
                future.set_result(None)


async def fan_out(task: Task) -> Reading:
    """Workers on one iterator, each item a row of its own."""
    items = task.size["items"]
    table = await open_table(task.backend, task.place)
    group, feed = Group(table), iter(range(items))

    async def run() -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(task.size["concurrency"], items)):
                tasks.create_task(work(feed, group, task.size.get("step_ms", 0) / 1000))

    await group.insert((0, 0, "null"))
    reading = await timed(run(), items)
    await table.close()
    return reading


async def work(feed: Iterator[int], group: Group, seconds: float) -> None:
    """One worker."""
    for seq in feed:
        if seconds:
            await asyncio.sleep(seconds)
        await group.insert((1, seq, "null"))


async def many_runs(task: Task) -> Reading:
    """Concurrent runs, each with rows for its start, its steps and its end."""
    runs, rows = task.size["runs"], task.size["steps"] + 2
    table = await open_table(task.backend, task.place)
    group = Group(table)
    latencies: list[float] = []

    async def one(number: int) -> None:
        for seq in range(rows):
            await group.insert((number, seq, "null"))
        latencies.append(time.perf_counter() - began)

    await group.insert((0, 0, "null"))
    began = start_clock()
    async with asyncio.TaskGroup() as tasks:
        for number in range(1, runs + 1):
            tasks.create_task(one(number))
    reading = Reading(time.perf_counter() - began, runs, latency_figures(latencies))
    await table.close()
    return reading


if __name__ == "__main__":
    answer({"fan_out": fan_out, "many_runs": many_runs})
