"""Work that belongs to the runner: it goes on when its caller is cancelled.

This is the one place that speaks to asyncio itself. A native `Task.cancel()` pierces an anyio shield, and a cancelled
driver call is not a call that did nothing; so whatever writes runs in a task of its own, and the caller waits for it
in a way that remembers a cancellation and passes it on afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeAlias, TypeVar

import anyio
import anyio.lowlevel

ValueT = TypeVar("ValueT")

Promise: TypeAlias = asyncio.Future
Task: TypeAlias = asyncio.Task


def new_promise() -> asyncio.Future[None]:
    """A future of the running loop."""
    return asyncio.get_running_loop().create_future()


def spawn(work: Coroutine[object, object, ValueT], name: str) -> asyncio.Task[ValueT]:
    """Start `work` as a task that no caller's cancellation reaches."""
    return asyncio.get_running_loop().create_task(work, name=name)


async def outlast(promise: asyncio.Future[ValueT]) -> ValueT:
    """Wait for `promise` until it is done, whatever happens to the caller.

    Cancellation:
        Is remembered and raised once the promise is done; the promise itself is never cancelled by it.
    """
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not promise.done():
            try:
                await asyncio.wait((promise,))
            except asyncio.CancelledError as exc:
                cancelled = exc
    if cancelled is not None:
        promise.exception()  # counts as seen; the cancellation outranks it
        raise cancelled
    value = promise.result()
    await anyio.lowlevel.checkpoint_if_cancelled()  # the shield kept an anyio scope's cancellation waiting
    return value


async def run_through(work: Coroutine[object, object, ValueT], name: str) -> ValueT:
    """Run `work` to its end in a task of its own, as `outlast` waits."""
    return await outlast(spawn(work, name))


async def end(task: asyncio.Task[None]) -> None:
    """Cancel a task of our own and wait until it is over, however that comes out."""
    task.cancel()
    await asyncio.wait((task,))
