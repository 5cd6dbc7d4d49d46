"""Waits for tasks to their end, also if the caller is cancelled."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import anyio

ResultT = TypeVar("ResultT")


async def run_to_completion(work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """The result of the work, which is finished even if the caller is cancelled.

    The work runs in its own task, because `Task.cancel()` interrupts a shielded scope too.

    Cancellation:
        Raised once the work is finished.
    """
    return await completed(asyncio.create_task(work))


async def completed(task: asyncio.Task[ResultT]) -> ResultT:
    """As `run_to_completion`, for a task."""
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await wait_until_done(task)
        if not task.cancelled():
            task.exception()  # marks it as retrieved; the cancellation takes precedence
        raise


async def wait_until_done(task: asyncio.Task[Any], seconds: float = math.inf) -> None:
    """Wait for the task, at most for so many seconds, ignoring cancellation of the wait."""
    until_mono = time.monotonic() + seconds
    with anyio.CancelScope(shield=True):
        while not task.done() and (left := until_mono - time.monotonic()) > 0:
            with suppress(asyncio.CancelledError):
                await asyncio.wait((task,), timeout=left if left < math.inf else None)
