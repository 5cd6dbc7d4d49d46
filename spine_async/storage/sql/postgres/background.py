"""Ends tasks that work in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable


async def end_tasks(tasks: Iterable[asyncio.Task[None]], *, after: float = 0.0) -> None:
    """Cancel the tasks that have not ended after this number of seconds, and wait for their end.

    A task whose event loop is not the running one is left alone: its loop has ended, and nothing can wake it.
    """
    here = asyncio.get_running_loop()
    pending = {task for task in tasks if not task.done() and task.get_loop() is here}
    if pending and after:
        _, pending = await asyncio.wait(pending, timeout=after)
    for task in pending:
        task.cancel()
    if pending:
        await asyncio.wait(pending)
