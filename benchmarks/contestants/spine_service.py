"""Background runs of this library: another process executes them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import cast

from benchmarks.child import answer, latency_figures, start_clock
from benchmarks.contestants.parked_rows import copy_parked
from benchmarks.contestants.spine import database_url, make_config
from benchmarks.contestants.spine_worker import PARKED, PICKED_UP, QUEUED, WorkerProcess, worker_process
from benchmarks.task import Reading, Task
from spine_async import Enqueued, RunHandle, RunStatus, WorkflowRunner
from spine_async.storage import SqlRunStore

_WARM_UP = 20
"""Runs before the measurement, so that both processes have executed all parts once."""
_BY_API = 2000
"""Runs that are parked by the worker itself; the others are copies of the rows of one of them."""
_GROUP = 500
_POLL = 0.02

Latencies = tuple[float, float]
"""Seconds until the step, and until the result is known to the caller."""


async def pick_up(task: Task) -> Reading:
    """From `enqueue` to the first step in an idle worker process, and to the result in this process."""

    async def enqueue(runner: WorkflowRunner) -> Latencies:
        sent = time.perf_counter()
        return await _latencies(await runner.enqueue(PICKED_UP, params={"sent": sent}), sent, "first")

    async with _service(task) as (runner, worker):
        await _apart(lambda: enqueue(runner), _WARM_UP)
        idle = await worker.idle_percent(task.size["idle_ms"] / 1000)
        measured = await _apart(lambda: enqueue(runner), task.size["runs"])
    return _reading(measured, {"idle_cpu": idle})


async def parked(task: Task) -> Reading:
    """Many runs that wait for a signal: the worker's memory and processor time, and how fast a signal wakes a run."""
    runs, signals = task.size["runs"], task.size["signals"]

    async with _service(task) as (runner, worker), _store(task) as store:
        await _apart(lambda: _approve_new(runner, store), _WARM_UP)
        before = await worker.usage()
        ids = await _park_by_worker(runner, store, min(runs, _BY_API))
        ids += await copy_parked(store, ids[0], runs - len(ids))
        idle = await worker.idle_percent(task.size["idle_ms"] / 1000)
        after = await worker.usage()
        chosen = iter(_spread(ids, signals))
        measured = await _apart(lambda: _approve(runner.handle(next(chosen))), signals)
    return _reading(measured, {"idle_cpu": idle, "growth_mb": after.rss_mb - before.rss_mb})


async def queued(task: Task) -> Reading:
    """Many enqueued runs of one step, from the first `enqueue_many` until two worker processes have ended all."""
    runs = task.size["runs"]
    config = make_config(task)
    async with WorkflowRunner(config=config, work=False) as runner, worker_process(task), worker_process(task):
        await runner.enqueue_many(QUEUED, [Enqueued() for _ in range(_WARM_UP)])
        await _all_ended(runner)
        began = start_clock()
        for first in range(0, runs, _GROUP):
            await runner.enqueue_many(QUEUED, [Enqueued() for _ in range(min(_GROUP, runs - first))])
        enqueued = time.perf_counter() - began
        await _all_ended(runner)
        return Reading(time.perf_counter() - began, runs, {"enqueue_s": enqueued})


async def _all_ended(runner: WorkflowRunner) -> None:
    """Wait until no run is under way."""
    for status in (RunStatus.PENDING, RunStatus.RUNNING):
        while await runner.list_runs(status=status, limit=1):  # noqa: ASYNC110 - nothing tells of the last end
            await asyncio.sleep(_POLL)


@asynccontextmanager
async def _service(task: Task) -> AsyncIterator[tuple[WorkflowRunner, WorkerProcess]]:
    """A runner that does not work, and a worker in another process."""
    async with WorkflowRunner(config=make_config(task), work=False) as runner, worker_process(task) as worker:
        yield runner, worker


@asynccontextmanager
async def _store(task: Task) -> AsyncIterator[SqlRunStore]:
    """The runs behind the public interface."""
    store = SqlRunStore.from_url(database_url(task))
    try:
        yield store
    finally:
        await store.close()


async def _apart(call: Callable[[], Awaitable[Latencies]], times: int) -> list[Latencies]:
    """Call it repeatedly, with pauses of random length in which the worker is idle."""
    pauses = random.Random(1)  # noqa: S311 - not a secret
    measured = []
    for _ in range(times):
        await asyncio.sleep(pauses.uniform(0.04, 0.08))
        measured.append(await call())
    return measured


async def _latencies(handle: RunHandle, sent: float, step: str) -> Latencies:
    result = await handle.result(timeout=60)
    until_result = time.perf_counter() - sent
    result.raise_for_status()
    return cast("float", result.context.get_output(step, "seconds")), until_result


async def _approve(handle: RunHandle) -> Latencies:
    sent = time.perf_counter()
    await handle.signal("approve", {"sent": sent})
    return await _latencies(handle, sent, "next")


async def _approve_new(runner: WorkflowRunner, store: SqlRunStore) -> Latencies:
    (run_id,) = await _park_by_worker(runner, store, 1)
    return await _approve(runner.handle(run_id))


async def _park_by_worker(runner: WorkflowRunner, store: SqlRunStore, runs: int) -> list[str]:
    """Enqueue runs, and wait until the worker has parked them."""
    ids: list[str] = []
    for first in range(0, runs, _GROUP):
        group = [Enqueued() for _ in range(min(_GROUP, runs - first))]
        ids += [handle.run_id for handle in await runner.enqueue_many(PARKED, group)]
    while not await _are_parked(store, ids):  # noqa: ASYNC110 - nothing tells this process of a parked run
        await asyncio.sleep(_POLL)
    return ids


async def _are_parked(store: SqlRunStore, ids: Sequence[str]) -> bool:
    states = await store.states(ids)
    return all(state.status is RunStatus.WAITING and state.owner is None for state in states)


def _spread(ids: Sequence[str], count: int) -> list[str]:
    """So many of the ids, from all parts of the list."""
    return [ids[index * len(ids) // count] for index in range(count)]


def _reading(measured: Sequence[Latencies], figures: dict[str, float]) -> Reading:
    """The median until the step as the value, with the other figures."""
    until_step, until_result = (latency_figures(each) for each in zip(*measured, strict=True))
    result = {f"result_{name}": value for name, value in until_result.items()}
    return Reading(until_step["p50_ms"] / 1000, len(measured), {**until_step, **result, **figures})


if __name__ == "__main__":
    answer({"pick_up": pick_up, "queued": queued, "parked": parked})
