"""This library, through its public API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count

import anyio
import anyio.lowlevel

from benchmarks.child import answer, cpu_figures, latency_figures, payload_text, rss_mb, start_clock, timed
from benchmarks.task import Reading, Task
from spine_async import (
    Step,
    StepResult,
    Workflow,
    WorkflowContext,
    WorkflowResult,
    WorkflowRunner,
    WorkflowRunnerConfig,
)
from spine_async.storage import MemoryRunStore

RESUMED = ("resumed", "resumed_next")

Handler = Callable[[WorkflowContext, object], Awaitable[object]]


def make_runner(task: Task) -> WorkflowRunner:
    """A runner with default settings on the task's backend."""
    if task.backend == "none":
        return WorkflowRunner(checkpoint_enabled=False)
    if task.backend == "memory":
        return WorkflowRunner(store=MemoryRunStore())
    return WorkflowRunner(config=make_config(task))


def make_config(task: Task) -> WorkflowRunnerConfig:
    """Default settings on the task's store."""
    if task.backend == "file":
        return WorkflowRunnerConfig(checkpoint_storage="file", checkpoint_dir=task.place)
    if task.backend == "redis":
        return WorkflowRunnerConfig(checkpoint_storage="redis", redis_url=task.place)
    return WorkflowRunnerConfig(database_url=database_url(task))


def database_url(task: Task) -> str:
    """The task's database for SQLAlchemy."""
    if task.backend == "postgres":
        return task.place.replace("postgresql:", "postgresql+asyncpg:", 1)
    return f"sqlite+aiosqlite:///{task.place}"


async def sequential(task: Task) -> Reading:
    """One run of many steps, one after the other."""
    steps = task.size["steps"]
    workflow = chain("sequential", steps, payload_handler(task.size.get("payload", 0)))
    async with make_runner(task) as runner:
        await warm_up(runner)
        return await timed(completed(runner.execute(workflow)), steps)


async def fan_out(task: Task) -> Reading:
    """One map over many items."""
    items, concurrency = task.size["items"], task.size["concurrency"]
    handler = pause_handler(task.size.get("step_ms", 0))
    each = Step.map("each", items=range(items), iterator=handler, max_concurrency=concurrency)
    async with make_runner(task) as runner:
        await warm_up(runner)
        return await timed(completed(runner.execute(Workflow("fan_out", [each]))), items)


async def many_runs(task: Task) -> Reading:
    """Many concurrent runs."""
    runs = task.size["runs"]
    workflow = chain("many", task.size["steps"], no_op)
    latencies: list[float] = []

    async def one(runner: WorkflowRunner, began: float) -> None:
        await completed(runner.execute(workflow))
        latencies.append(time.perf_counter() - began)

    async with make_runner(task) as runner:
        await warm_up(runner)
        began = start_clock()
        cpu = time.process_time()
        await asyncio.gather(*(one(runner, began) for _ in range(runs)))
        figures = {**latency_figures(latencies), **cpu_figures(cpu, runs)}
        return Reading(time.perf_counter() - began, runs, figures)


async def costs(task: Task) -> Reading:
    """A workload whose processor time is compared with that of another version."""
    if "items" in task.size:
        return await fan_out(task)
    return await (many_runs(task) if "runs" in task.size else sequential(task))


async def prepare(task: Task) -> Reading:
    """Runs that stop after many steps, for another process to resume."""
    steps = task.size["steps"]
    workflow = resumable(steps, stop)
    began = time.perf_counter()
    async with make_runner(task) as runner:
        for run_id in RESUMED:
            await runner.execute(workflow, run_id=run_id)
    return Reading(time.perf_counter() - began, steps * len(RESUMED))


async def resume(task: Task) -> Reading:
    """From `resume` in a new process to the first new step, for the first and the second resume of the runner."""
    reached: list[float] = []

    async def new(context: WorkflowContext, config: object) -> None:
        reached.append(time.perf_counter())

    workflow = resumable(task.size["steps"], stop, new)
    seconds = []
    runner = make_runner(task)
    began = time.perf_counter()
    async with runner:
        entered = time.perf_counter() - began
        for run_id in RESUMED:
            began = time.perf_counter()
            await completed(runner.resume(run_id, workflow=workflow))
            seconds.append(reached[-1] - began)
    return Reading(seconds[0], 1, {"entering_ms": entered * 1000, "second_ms": seconds[1] * 1000})


async def stream(task: Task) -> Reading:
    """A map over an async generator without collected results; measures memory and read-ahead."""
    items, workers = task.size["items"], task.size["concurrency"]
    watch = Watch(items)
    each = Step.map("each", items=watch.given(), iterator=watch.taken, max_concurrency=workers, collect=False)
    async with make_runner(task) as runner:
        await warm_up(runner)
        reading = await timed(completed(runner.execute(Workflow("stream", [each]))), items)
    return Reading(reading.seconds, items, watch.figures())


class Watch:
    """Measures how far items are read ahead of their handlers, and the growth of memory."""

    def __init__(self, items: int) -> None:
        self._items = items
        self._given = self._done = self._ahead = 0
        self._memory: list[float] = []

    async def given(self) -> AsyncIterator[int]:
        for index in range(self._items):
            if index % max(1, self._items // 20) == 0:
                self._memory.append(rss_mb())
            self._given += 1
            self._ahead = max(self._ahead, self._given - self._done)
            yield index
        self._memory.append(rss_mb())

    async def taken(self, context: WorkflowContext, config: object) -> None:
        await anyio.lowlevel.checkpoint()  # otherwise one worker would process all items
        self._done += 1

    def figures(self) -> dict[str, float]:
        """Growth is measured after the first twentieth of the items, when imports and caches are complete."""
        return {"growth_mb": max(self._memory[1:]) - self._memory[1], "read_ahead": self._ahead, "done": self._done}


async def no_op(context: WorkflowContext, config: object) -> None:
    """A step that does nothing."""


async def stop(context: WorkflowContext, config: object) -> StepResult:
    """A step that stops the run."""
    return StepResult.stop("another process resumes")


def payload_handler(size: int) -> Handler:
    """A step with an output of `size` bytes, or without one if `size` is 0."""
    if not size:
        return no_op
    numbers, length = count(), size - len('{"data":""}')

    async def give(context: WorkflowContext, config: object) -> object:
        return {"data": payload_text(next(numbers), length)}

    return give


def pause_handler(milliseconds: int) -> Handler:
    """A step that waits."""
    if not milliseconds:
        return no_op

    async def pause(context: WorkflowContext, config: object) -> None:
        await anyio.sleep(milliseconds / 1000)

    return pause


def chain(name: str, steps: int, handler: Handler) -> Workflow:
    """A workflow that repeats the same step."""
    return Workflow(name, [Step.lambda_(f"step_{index}", handler) for index in range(steps)])


def resumable(steps: int, last: Handler, new: Handler = no_op) -> Workflow:
    """A workflow of `steps` steps, the last of which may stop the run, and one new step."""
    chained = [Step.lambda_(f"step_{index}", no_op) for index in range(steps - 1)]
    return Workflow("resumable", [*chained, Step.lambda_("last", last), Step.lambda_("new", new)])


async def completed(execution: Awaitable[WorkflowResult]) -> None:
    """Await a run that must complete."""
    (await execution).raise_for_status()


async def warm_up(runner: WorkflowRunner) -> None:
    """Create the schema, connect and load all modules before the measurement."""
    each = Step.map("each", items=[1, 2], iterator=no_op)
    await completed(runner.execute(Workflow("warm_up", [Step.lambda_("one", no_op), each])))


VERBS = {
    "sequential": sequential,
    "fan_out": fan_out,
    "many_runs": many_runs,
    "costs": costs,
    "prepare": prepare,
    "resume": resume,
    "stream": stream,
}

if __name__ == "__main__":
    answer(VERBS)
