"""The limit of the database: many rows in one statement, without a task per row."""

from __future__ import annotations

from benchmarks.child import answer, timed
from benchmarks.contestants.raw_table import open_table
from benchmarks.task import Reading, Task


async def fan_out(task: Task) -> Reading:
    """Multi-row statements; the number of rows in each is the concurrency."""
    items, width = task.size["items"], task.size["concurrency"]
    table = await open_table(task.backend, task.place)

    async def run() -> None:
        for first in range(0, items, width):
            await table.insert_many([(1, seq, "null") for seq in range(first, min(first + width, items))])

    await table.insert_many([(0, 0, "null")])
    reading = await timed(run(), items)
    await table.close()
    return reading


if __name__ == "__main__":
    answer({"fan_out": fan_out})
