"""A program that forks while a runner, a store or an engine is in use; prints what its child meets, one line per call.

It is a process of its own, because a fork of pytest's would copy locks that its other threads hold.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from sqlalchemy.ext.asyncio import create_async_engine

from spine_async import SharingError, Step, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig
from spine_async.storage import SqlRunStore
from spine_async.testing.conformance.rows import created, new_run

TIME_LIMIT = 20


async def nothing(context: WorkflowContext, config: object) -> None:
    await asyncio.sleep(0)


FLOW = Workflow("w", [Step.lambda_("nothing", nothing)])


def run_flow(runner: WorkflowRunner) -> str:
    return asyncio.run(runner.execute(FLOW)).status.value


def report(call: Callable[[], object]) -> None:
    try:
        print(call(), flush=True)
    except SharingError as exc:
        print(f"SharingError: {exc}", flush=True)


def in_child(*calls: Callable[[], object]) -> None:
    """Report the calls in a forked child, which SIGALRM ends if one of them hangs."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(TIME_LIMIT)
        for call in calls:
            report(call)
        os._exit(0)
    print("child", os.waitpid(pid, 0)[1], flush=True)


def unused(url: str) -> None:
    runner = WorkflowRunner(config=WorkflowRunnerConfig(database_url=url))
    report(lambda: run_flow(runner))
    in_child(lambda: run_flow(runner))
    report(lambda: run_flow(runner))


def entered(url: str) -> None:
    runner = WorkflowRunner(config=WorkflowRunnerConfig(database_url=url))

    async def while_entered() -> None:
        async with runner:
            await runner.execute(FLOW)
            in_child(lambda: run_flow(runner), lambda: run_flow(runner))
            print((await runner.execute(FLOW)).status.value)

    asyncio.run(while_entered())


def opened(url: str) -> None:
    store = SqlRunStore(url)

    async def while_open() -> None:
        await created(store)
        in_child(lambda: asyncio.run(store.load("x")), lambda: asyncio.run(store.close()))
        await created(store, new_run("run-2"))
        await store.close()

    asyncio.run(while_open())


def pooled(url: str, **options: Any) -> None:
    engine = create_async_engine(url, **options)
    runner = WorkflowRunner(engine)

    async def then_fork() -> None:
        await runner.execute(FLOW)
        in_child(lambda: run_flow(runner), lambda: run_flow(runner))
        print((await runner.execute(FLOW)).status.value)
        await engine.dispose()

    asyncio.run(then_fork())


def borrowed(url: str) -> None:
    """The child creates a runner of its own on the engine that a runner of the parent uses."""
    engine = create_async_engine(url)

    async def while_entered() -> None:
        async with WorkflowRunner(engine) as runner:
            await runner.execute(FLOW)
            in_child(lambda: run_flow(WorkflowRunner(engine)), lambda: run_flow(WorkflowRunner(engine)))
            print((await runner.execute(FLOW)).status.value)
        await engine.dispose()

    asyncio.run(while_entered())


def pinged(url: str) -> None:
    pooled(url, pool_pre_ping=True)


if __name__ == "__main__":
    {each.__name__: each for each in (unused, entered, opened, pooled, borrowed, pinged)}[sys.argv[1]](sys.argv[2])
