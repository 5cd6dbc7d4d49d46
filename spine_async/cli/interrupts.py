"""Signals of the operating system, as calls in the event loop."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskStatus


@asynccontextmanager
async def on_interrupt(react: Callable[[int], None]) -> AsyncGenerator[None, None]:
    """Call `react` with 1 for the first SIGINT or SIGTERM inside the context, with 2 for the second one, and so on.

    On Windows the signals keep their usual effect.
    """
    if sys.platform == "win32":
        yield
        return

    async def listen(*, task_status: TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            count = 0
            async for _ in signals:
                count += 1
                react(count)

    async with anyio.create_task_group() as tasks:
        await tasks.start(listen)
        try:
            yield
        finally:
            tasks.cancel_scope.cancel()
