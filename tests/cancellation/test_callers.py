"""For each way to cancel the caller, the run is recorded before the cancellation is raised."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio
import pytest

from spine_async import WorkflowResult
from tests.cancellation.conftest import MakeRunner
from tests.cancellation.handlers import Sleeper

pytestmark = pytest.mark.anyio

Call = Callable[[], Coroutine[Any, Any, WorkflowResult]]


async def by_native_cancel(call: Call, sleeper: Sleeper) -> None:
    task = asyncio.ensure_future(call())
    await sleeper.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def by_native_cancels(call: Call, sleeper: Sleeper) -> None:
    """Cancel the task several times."""
    task = asyncio.ensure_future(call())
    await sleeper.started.wait()
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    assert task.cancelled()


async def by_wait_for(call: Call, sleeper: Sleeper) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call(), 2)


async def by_timeout(call: Call, sleeper: Sleeper) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await call()


async def by_task_group(call: Call, sleeper: Sleeper) -> None:
    async def fail() -> None:
        await sleeper.started.wait()
        raise RuntimeError("a sibling of the caller")

    with pytest.raises(ExceptionGroup):  # noqa: PT012 (the block is what is tested)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(call())
            tasks.create_task(fail())


async def by_anyio_scope(call: Call, sleeper: Sleeper) -> None:
    with anyio.move_on_after(2) as scope:
        await call()
    assert scope.cancelled_caught


async def by_anyio_group(call: Call, sleeper: Sleeper) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await sleeper.started.wait()
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    "cancel",
    [by_native_cancel, by_native_cancels, by_wait_for, by_timeout, by_task_group, by_anyio_scope, by_anyio_group],
    ids=lambda cancel: cancel.__name__,
)
async def test_a_cancelled_run_is_recorded_and_can_be_resumed(
    make_runner: MakeRunner, cancel: Callable[..., Awaitable[None]]
) -> None:
    runner, sleeper = make_runner(), Sleeper()
    await cancel(lambda: runner.execute(sleeper.workflow(), run_id="r"), sleeper)
    record = await runner.get_run("r")
    assert (record.status, record.stop_reason) == ("stopped", "cancelled")
    assert sleeper.reasons == ["cancelled"]
    sleeper.sleeps = False
    assert (await runner.resume("r")).status == "completed"
    assert sleeper.ran == ["first", "sleep", "sleep", "last"]
