"""A service that embeds the runner and handles SIGTERM, as uvicorn and aiohttp do.

Two runs execute in background tasks. The step `work` of run `short` ends when a line comes on standard input, that
of run `long` never does. The service prints a line for each
change of state, and writes each step that begins to a file.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping

from spine_async import Step, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig
from tests.crash.programs import Count

RUNS = ("short", "long")
DRAIN_TIMEOUT = 2.0
LEASE_TTL = 3_600.0  # so long that a test which waits for the lease fails

Note = Callable[[str], object]
Work = Callable[[WorkflowContext], Awaitable[None]]


def flow(note: Note, work: Work | None = None) -> Workflow:
    """Three steps; the second one does the work. Each step records that it begins."""

    async def step(context: WorkflowContext, config: Mapping[str, object]) -> None:
        note(f"{context.run_id}/{context.step_name}")
        if work is not None and context.step_name == "work":
            await work(context)

    return Workflow("serving", [Step.lambda_(name, step) for name in ("before", "work", "after")])


def tell(*words: object) -> None:
    print(*words, flush=True)


async def serve(database_url: str, count_file: str) -> None:
    loop = asyncio.get_running_loop()
    leaving, finishing = asyncio.Event(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, leaving.set)
    _on_line(loop, finishing.set)

    async def work(context: WorkflowContext) -> None:
        tell("begun", context.run_id)
        try:
            await (finishing.wait() if context.run_id == "short" else loop.create_future())
        except asyncio.CancelledError:
            tell("cancelled", context.run_id, context.cancel_reason)
            raise

    async def execute(run_id: str) -> None:
        result = await runner.execute(serving, run_id=run_id)
        tell("ended", run_id, result.status, result.stop_reason)

    serving = flow(Count(count_file).add, work)
    config = WorkflowRunnerConfig(database_url=database_url, drain_timeout=DRAIN_TIMEOUT, lease_ttl=LEASE_TTL)
    async with WorkflowRunner(config=config) as runner:
        tasks = [asyncio.create_task(execute(run_id)) for run_id in RUNS]
        await leaving.wait()
        tell("leaving")  # draining begins before this loop reads the next line
    await asyncio.gather(*tasks)


def _on_line(loop: asyncio.AbstractEventLoop, act: Callable[[], None]) -> None:
    stdin = sys.stdin.fileno()

    def read() -> None:
        loop.remove_reader(stdin)
        os.read(stdin, 100)
        act()

    loop.add_reader(stdin, read)


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
