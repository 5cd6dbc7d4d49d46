"""Functions that note their calls, and handlers that fail after them."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import anyio.lowlevel

from spine_async import (
    Event,
    RetryPolicy,
    StepError,
    WorkflowContext,
    WorkflowRunner,
)

AGAIN = RetryPolicy(max_attempts=3, backoff="constant", initial_delay=0.001, jitter=False)


class Calls:
    """Functions that note their calls."""

    def __init__(self) -> None:
        self.made: list[Any] = []
        self.threads: list[int] = []

    async def double(self, number: int) -> int:
        self.made.append(number)
        await anyio.lowlevel.checkpoint()
        return 2 * number

    def double_plainly(self, number: int) -> int:
        self.made.append(number)
        self.threads.append(threading.get_ident())
        return 2 * number


def fail_twice(context: WorkflowContext) -> None:
    if context.attempt < 3:
        raise StepError("again", category="TRANSIENT")


async def recorded(runner: WorkflowRunner, run_id: str) -> list[Event]:
    return [event async for event in runner.events(run_id) if event.event_type == "call_recorded"]
