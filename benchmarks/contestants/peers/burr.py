"""Burr: an application with one repeated action; async persisters save the state after each one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from burr.core import Application, ApplicationBuilder, State, action

from benchmarks.child import answer, first_new, latency_figures, payload_text, start_clock, timed
from benchmarks.task import Reading, Task

_reached: list[tuple[int, float]] = []


@action(reads=["done", "payload", "outputs"], writes=["done", "outputs"])
async def step(state: State) -> State:
    _reached.append((state["done"], time.perf_counter()))
    given = state.update(done=state["done"] + 1)
    payload = state["payload"]
    return given.append(outputs=payload_text(state["done"], payload)) if payload else given


@asynccontextmanager
async def persister(task: Task) -> AsyncIterator[Any]:
    """The persister of the task's backend; None without durability."""
    if task.backend == "none":
        yield None
        return
    opened = await (opened_sqlite(task) if task.backend == "sqlite" else opened_postgres(task))
    if not await opened.is_initialized():
        await opened.initialize()
    yield opened
    await opened.cleanup()


async def opened_sqlite(task: Task) -> Any:
    from burr.integrations.persisters.b_aiosqlite import AsyncSQLitePersister  # noqa: PLC0415

    return await AsyncSQLitePersister.from_values(db_path=task.place)


async def opened_postgres(task: Task) -> Any:
    from burr.integrations.persisters.b_asyncpg import AsyncPostgreSQLPersister  # noqa: PLC0415

    address = urlsplit(task.place)
    return await AsyncPostgreSQLPersister.from_values(
        db_name=address.path.lstrip("/"),
        user=address.username,
        password=address.password or "",
        host=address.hostname,
        port=address.port,
        use_pool="runs" in task.size,  # for one run a connection of its own is faster
    )


async def application(opened: Any, name: str, payload: int = 0, *, is_new: bool = True) -> Application[Any]:
    """One run."""
    builder = ApplicationBuilder().with_actions(step=step).with_transitions(("step", "step"))
    builder = builder.with_identifiers(app_id=name, partition_key="bench")
    beginning = {"done": 0, "payload": payload, "outputs": []}
    if is_new:
        builder = builder.with_state(**beginning).with_entrypoint("step")
    else:
        builder = builder.initialize_from(
            opened, resume_at_next_action=True, default_state=beginning, default_entrypoint="step"
        )
    if opened is not None:
        builder = builder.with_state_persister(opened)
    return await builder.abuild()


async def run(built: Application[Any], steps: int) -> None:
    for _ in range(steps):
        await built.astep()


async def sequential(task: Task) -> Reading:
    async with persister(task) as opened:
        await run(await application(opened, "warm"), 2)
        built = await application(opened, "one", task.size.get("payload", 0))
        return await timed(run(built, task.size["steps"]), task.size["steps"])


async def many_runs(task: Task) -> Reading:
    runs, latencies = task.size["runs"], list[float]()
    async with persister(task) as opened:
        await run(await application(opened, "warm"), 2)
        began = start_clock()

        async def one(number: int) -> None:
            await run(await application(opened, f"run-{number}"), task.size["steps"])
            latencies.append(time.perf_counter() - began)

        await asyncio.gather(*(one(number) for number in range(runs)))
        return Reading(time.perf_counter() - began, runs, latency_figures(latencies))


async def prepare(task: Task) -> Reading:
    async with persister(task) as opened:
        built = await application(opened, "resumed")
        return await timed(run(built, task.size["steps"]), task.size["steps"])


async def resume(task: Task) -> Reading:
    """From building the application with the stored state to its next action."""
    async with persister(task) as opened:
        began = time.perf_counter()
        built = await application(opened, "resumed", is_new=False)
        await run(built, 1)
        return first_new(task, _reached, began)


if __name__ == "__main__":
    verbs = {"sequential": sequential, "many_runs": many_runs, "prepare": prepare, "resume": resume}
    answer(verbs, ["apache-burr"])
