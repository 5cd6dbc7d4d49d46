"""LangGraph's functional API with `durability="sync"`: tasks in an entrypoint, checkpointed by its own savers.

Results of its tasks are written while the next task runs, for every durability setting; the state graph
(`langgraph_graph`) waits for the writes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from langgraph.func import entrypoint
from langgraph.func import task as durable

from benchmarks.child import answer, first_new, latency_figures, payload_text, start_clock, timed
from benchmarks.task import Reading, Task

PACKAGES = ["langgraph", "langgraph-checkpoint-sqlite", "langgraph-checkpoint-postgres"]

_reached: list[tuple[int, float]] = []
_ends_at: list[int] = []


class EndedError(Exception):
    """Ends a run; the end of the process instead would lose results that LangGraph has not written yet."""


@durable
async def step(index: int, payload: int) -> str | None:
    if _ends_at and index == _ends_at[0]:
        raise EndedError
    _reached.append((index, time.perf_counter()))
    return payload_text(index, payload) if payload else None


@asynccontextmanager
async def saver(task: Task) -> AsyncIterator[Any]:
    """The checkpointer of the task's backend; None without durability."""
    if task.backend == "sqlite":
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver  # noqa: PLC0415

        async with AsyncSqliteSaver.from_conn_string(task.place) as opened:
            await opened.setup()
            yield opened
    elif task.backend == "postgres":
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver  # noqa: PLC0415

        async with AsyncPostgresSaver.from_conn_string(task.place) as opened:
            await opened.setup()
            yield opened
    else:
        yield None


def flow(opened: Any) -> Any:
    """A run of tasks, sequential or concurrent."""

    @entrypoint(checkpointer=opened)
    async def run(size: dict[str, int]) -> None:
        payload = size.get("payload", 0)
        if "items" in size:
            await asyncio.gather(*(step(index, 0) for index in range(size["items"])))
        for index in range(size.get("steps", 0)):
            await step(index, payload)

    return run


async def invoke(graph: Any, given: object, thread: str, *, is_durable: bool = True, **config: object) -> None:
    """One run under a thread of its own."""
    settings = {"configurable": {"thread_id": thread}, **config}
    if is_durable:
        await graph.ainvoke(given, settings, durability="sync")
    else:
        await graph.ainvoke(given, settings)


async def sequential(task: Task) -> Reading:
    is_durable = task.backend != "none"
    async with saver(task) as opened:
        graph = flow(opened)
        await invoke(graph, {"steps": 2}, "warm", is_durable=is_durable)
        return await timed(invoke(graph, dict(task.size), "one", is_durable=is_durable), task.size["steps"])


async def fan_out(task: Task) -> Reading:
    async with saver(task) as opened:
        graph = flow(opened)
        await invoke(graph, {"steps": 2}, "warm")
        work = invoke(graph, dict(task.size), "one", max_concurrency=task.size["concurrency"])
        return await timed(work, task.size["items"])


async def many_runs(task: Task) -> Reading:
    runs, latencies = task.size["runs"], list[float]()
    async with saver(task) as opened:
        graph = flow(opened)
        await invoke(graph, {"steps": 2}, "warm")
        began = start_clock()

        async def one(number: int) -> None:
            await invoke(graph, {"steps": task.size["steps"]}, f"run-{number}")
            latencies.append(time.perf_counter() - began)

        await asyncio.gather(*(one(number) for number in range(runs)))
        return Reading(time.perf_counter() - began, runs, latency_figures(latencies))


async def prepare(task: Task) -> Reading:
    _ends_at.append(task.size["steps"])
    began = time.perf_counter()
    async with saver(task) as opened:
        with suppress(EndedError):
            await invoke(flow(opened), {"steps": task.size["steps"] + 1}, "resumed")
    return Reading(time.perf_counter() - began, task.size["steps"])


async def resume(task: Task) -> Reading:
    """From the invocation to the first new step; the saver is opened before."""
    async with saver(task) as opened:
        graph = flow(opened)
        began = time.perf_counter()
        await invoke(graph, None, "resumed")
        return first_new(task, _reached, began)


if __name__ == "__main__":
    verbs = {"sequential": sequential, "fan_out": fan_out, "many_runs": many_runs, "prepare": prepare, "resume": resume}
    answer(verbs, PACKAGES)
