"""Live events of this library: how fast emitted values are stored, and how fast they reach followers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import cast

from benchmarks.child import answer, latency_figures
from benchmarks.contestants.spine import make_config
from benchmarks.contestants.spine_worker import EMITS, WorkerProcess, worker_process
from benchmarks.task import Reading, Task
from spine_async import Event, WorkflowRunner

_WARM_UP = 20
_PAUSE_MS = 10
"""Time between two values; 100 values per second."""


async def follow(task: Task) -> Reading:
    """From `emit` to a follower, in the same process and in another; values stored per second; cost for the owner."""
    values, many, followers = (task.size[name] for name in ("values", "emitted", "followers"))
    async with WorkflowRunner(config=make_config(task), workflows=[EMITS]) as runner:
        same = await _latencies(runner, values)
        run_id = (await runner.start(EMITS, params={"count": many, "pause_ms": 0})).run_id
        result = await runner.result(run_id)
        stored = many / cast("float", result.context.get_output("emit", "seconds"))
    async with WorkflowRunner(config=make_config(task), work=False) as reader, worker_process(task) as worker:
        other = await _latencies(reader, values)
        alone = await _owner_percent(reader, worker, values, 0)
        followed = await _owner_percent(reader, worker, values, followers)
    figures = {f"same_{name}": value for name, value in latency_figures(same).items()}
    figures |= latency_figures(other)
    figures |= {"stored_per_s": stored, "followers_cpu": followed - alone, "owner_cpu": alone}
    return Reading(figures["p50_ms"] / 1000, values, figures)


async def _latencies(runner: WorkflowRunner, values: int) -> list[float]:
    """Seconds from `emit` to this process, for each value of a run; this process executes the run if it works."""
    handle = await runner.enqueue(EMITS, params={"count": values + _WARM_UP, "pause_ms": _PAUSE_MS})
    found = [time.perf_counter() - _sent(event) async for event in handle.events(follow=True) if _is_value(event)]
    return found[_WARM_UP:]


async def _owner_percent(reader: WorkflowRunner, worker: WorkerProcess, values: int, followers: int) -> float:
    """Processor time of the worker, in percent of a core, while a run emits values for followers in this process."""
    before = await worker.usage()
    handle = await reader.enqueue(EMITS, params={"count": values, "pause_ms": _PAUSE_MS})

    async def count() -> int:
        return len([event async for event in handle.events(follow=True) if _is_value(event)])

    counts = await asyncio.gather(*(count() for _ in range(followers)))
    await handle.result()
    percent = (await worker.usage()).percent_since(before)
    if any(each != values for each in counts):
        raise AssertionError(f"the followers saw {sorted(set(counts))} values instead of {values}")
    return percent


def _is_value(event: Event) -> bool:
    return event.event_type == "value"


def _sent(event: Event) -> float:
    return cast("Mapping[str, float]", event.metadata["data"])["sent"]


if __name__ == "__main__":
    answer({"follow": follow})
