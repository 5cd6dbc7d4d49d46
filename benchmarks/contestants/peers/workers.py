"""Worker processes of a peer's queue. Standard library only, because it runs in the environments of the peers."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace

from benchmarks.task import Task


@asynccontextmanager
async def worker_process(task: Task, module: str) -> AsyncIterator[None]:
    """A process that executes the verb `work` of a program, until the end of the block.

    Args:
        task: The task of this process.
        module: The program; it calls `work_until_told`.
    """
    given = json.dumps(asdict(replace(task, verb="work")))
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", module, given, stdin=PIPE, stdout=PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    await process.stdout.readline()
    try:
        yield
    finally:
        process.stdin.close()
        await process.wait()


async def work_until_told() -> None:
    """Report that the worker is ready, and wait until the standard input of this process ends."""
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
