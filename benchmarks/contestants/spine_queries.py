"""Queries of this library among many stored runs: listings, counts, one checkpoint, and the events of one run."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from benchmarks import stock
from benchmarks.child import answer, latency_figures, start_clock
from benchmarks.contestants.spine import chain, make_config, no_op
from benchmarks.task import Reading, Task
from spine_async import RunFilters, WorkflowRunner

_STEPS = 2
"""Steps of each stored run, so that the file of a million runs does not become too large."""

_FILTERS: tuple[RunFilters, ...] = (
    {},
    {"workflow_name": "flow-3"},
    {"workflow_name": "rare"},
    {"status": "failed"},
    {"status": "completed"},
    {"workflow_name": "flow-0", "status": "failed"},
)

Call = Callable[[WorkflowRunner, int], Awaitable[object]]


async def look_up(task: Task) -> Reading:
    """The median of each kind of query, in milliseconds; the time of the reading is the longest of them."""
    stored, calls = task.size["stored"], task.size["calls"]
    chosen = random.Random(1)  # noqa: S311 - not a secret
    async with WorkflowRunner(config=make_config(task), work=False) as runner:
        await runner.execute(chain("first", 1, no_op))  # creates the tables
        await asyncio.to_thread(stock.fill, task.backend, task.place, stored, _STEPS)
        figures = dict[str, float]()
        for name, queries in _queries().items():
            found = [await _latencies(runner, query, calls, stored, chosen) for query in queries]
            for key, value in max(found, key=lambda each: each["p50_ms"]).items():
                figures[f"{name}_{key}"] = value
    return Reading(max(value for name, value in figures.items() if name.endswith("p50_ms")) / 1000, 1, figures)


def _queries() -> dict[str, list[Call]]:
    """The queries by kind.

    `list`: pages of 100 runs, from the newest run, and behind any other one with the oldest first. `count`: counts up
    to 10,000 for each status.
    """

    def listed(filters: RunFilters) -> list[Call]:
        async def newest(runner: WorkflowRunner, _: int) -> object:
            return await runner.list_runs(**filters)

        async def behind(runner: WorkflowRunner, number: int) -> object:
            cursor = (await runner.get_run(stock.run_id(number))).cursor
            return await runner.list_runs(order="oldest", cursor=cursor, **filters)

        return [newest, behind]

    def counted(filters: RunFilters) -> Call:
        async def count(runner: WorkflowRunner, _: int) -> object:
            return await runner.count_runs(**filters)

        return count

    return {
        "list": [call for filters in _FILTERS for call in listed(filters)],
        "count": [counted(filters) for filters in _FILTERS],
        "checkpoint": [_checkpoint],
        "events": [_events],
    }


async def _checkpoint(runner: WorkflowRunner, number: int) -> object:
    return await runner.get_checkpoint(stock.run_id(number), f"step-{_STEPS - 1}")


async def _events(runner: WorkflowRunner, number: int) -> object:
    return [event async for event in runner.events(stock.run_id(number))]


async def _latencies(
    runner: WorkflowRunner, call: Call, times: int, stored: int, chosen: random.Random
) -> dict[str, float]:
    """The latencies of one query, each time for another run; the first one is not counted."""
    start_clock()
    found = []
    for _ in range(times + 1):
        number = chosen.randrange(stored) + 1
        began = time.perf_counter()
        await call(runner, number)
        found.append(time.perf_counter() - began)
    return latency_figures(found[1:])


if __name__ == "__main__":
    answer({"look_up": look_up})
