"""The limit of one commit per step: a raw insert, committed before the next one."""

from __future__ import annotations

from benchmarks.child import answer, payload_text, timed
from benchmarks.contestants.raw_table import open_table
from benchmarks.task import Reading, Task


async def sequential(task: Task) -> Reading:
    """One insert and commit per step."""
    steps = task.size["steps"]
    payload = task.size.get("payload", 0)
    table = await open_table(task.backend, task.place)

    async def run() -> None:
        for seq in range(steps):
            await table.insert((1, seq, payload_text(seq, payload)))

    await table.insert((0, 0, payload_text(0, payload)))
    reading = await timed(run(), steps)
    await table.close()
    return reading


if __name__ == "__main__":
    answer({"sequential": sequential})
