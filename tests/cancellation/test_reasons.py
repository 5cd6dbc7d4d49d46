"""Cancel reasons: the step can read the reason, and the run is recorded with it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import anyio
import pytest

from spine_async import LeaseLostError, Step, StepResult, Workflow, WorkflowContext, WorkflowRunner
from spine_async.storage import MemoryRunStore
from tests.cancellation.conftest import MakeRunner
from tests.cancellation.handlers import Sleeper

pytestmark = pytest.mark.anyio


async def state(runner: WorkflowRunner) -> tuple[str, str | None]:
    record = await runner.get_run("r")
    return record.status.value, record.stop_reason


async def goes_on(runner: WorkflowRunner, sleeper: Sleeper) -> None:
    """Check that a resume runs the cancelled step and no finished one."""
    sleeper.sleeps = False
    result = await runner.resume("r", workflow=sleeper.workflow())
    assert result.status == "completed"
    assert sleeper.ran == ["first", "sleep", "sleep", "last"]


async def test_user(make_runner: MakeRunner) -> None:
    runner, sleeper = make_runner(), Sleeper()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: runner.execute(sleeper.workflow(), run_id="r"))
        await sleeper.started.wait()
        assert await runner.stop("r", "lunch") is True
    assert sleeper.reasons == ["user"]
    assert await state(runner) == ("stopped", "lunch")
    assert await runner.stop("r", "again") is False
    assert await state(runner) == ("stopped", "lunch")
    await goes_on(runner, sleeper)


async def test_user_from_another_process(make_runner: MakeRunner) -> None:
    runner, other, sleeper = make_runner(lease_ttl=3), make_runner(), Sleeper()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: runner.execute(sleeper.workflow(), run_id="r"))
        await sleeper.started.wait()
        asked_at = anyio.current_time()
        assert await other.stop("r") is True
    assert anyio.current_time() - asked_at <= 1  # the poll interval, and one interval of the watcher
    assert sleeper.reasons == ["user"]
    assert await state(other) == ("stopped", "user")


async def test_a_stop_requested_for_a_run_without_an_owner(make_runner: MakeRunner, store: MemoryRunStore) -> None:
    runner, other, sleeper = make_runner(), make_runner(), Sleeper()
    task = asyncio.create_task(runner.execute(sleeper.workflow(), run_id="r"))
    await sleeper.started.wait()
    store._runs["r"].lease_end = 0.0  # as if the owner's machine had died
    assert await other.stop("r", "nobody there") is True
    assert await state(other) == ("stopped", "nobody there")
    with pytest.raises(LeaseLostError):
        await task


async def test_step_timeout(make_runner: MakeRunner) -> None:
    runner, sleeper = make_runner(), Sleeper()
    result = await runner.execute(sleeper.workflow(timeout=2), run_id="r")
    assert sleeper.reasons == ["step_timeout"]
    assert (result.status, result.error_category, result.error_step) == ("failed", "TIMEOUT", "sleep")
    await goes_on(runner, sleeper)


async def test_run_timeout(make_runner: MakeRunner) -> None:
    runner, sleeper = make_runner(workflow_timeout=2), Sleeper()
    result = await runner.execute(sleeper.workflow(), run_id="r")
    assert sleeper.reasons == ["run_timeout"]
    assert (result.status, result.error_category) == ("failed", "TIMEOUT")
    await goes_on(runner, sleeper)


async def test_shutdown(make_runner: MakeRunner) -> None:
    runner, sleeper = make_runner(drain_timeout=1), Sleeper()
    async with runner:
        task = asyncio.create_task(runner.execute(sleeper.workflow(), run_id="r"))
        await sleeper.started.wait()
    result = await task
    assert sleeper.reasons == ["shutdown"]
    assert (result.status, result.stop_reason) == ("stopped", "shutdown")
    assert await state(runner) == ("pending", None)
    await goes_on(runner, sleeper)


async def test_lease_lost(make_runner: MakeRunner, store: MemoryRunStore) -> None:
    runner, sleeper = make_runner(lease_ttl=3), Sleeper()
    task = asyncio.create_task(runner.execute(sleeper.workflow(), run_id="r"))
    await sleeper.started.wait()
    await store.claim("r", "somebody else", None, ttl=60, over_epoch=1)
    with pytest.raises(LeaseLostError):
        await task
    assert sleeper.reasons == ["lease_lost"]
    assert (await state(runner))[0] == "running"  # another runner owns it; nothing was written


async def test_sibling_failed(make_runner: MakeRunner) -> None:
    runner, sleeper = make_runner(), Sleeper()

    async def item(context: WorkflowContext, config: Mapping[str, object]) -> object:
        if context.params["item"] == 0:
            return await sleeper.sleep(context, config)
        await sleeper.started.wait()
        return StepResult.fail("broken", "DATA")

    flow = Workflow("map", [Step.map("each", items=[0, 1], iterator=item)])
    result = await runner.execute(flow, run_id="r")
    assert sleeper.reasons == ["sibling_failed"]
    assert (result.status, result.error_step) == ("failed", "each")


async def test_cancelled_by_the_caller(make_runner: MakeRunner) -> None:
    runner, sleeper = make_runner(), Sleeper()
    task = asyncio.create_task(runner.execute(sleeper.workflow(), run_id="r"))
    await sleeper.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sleeper.reasons == ["cancelled"]
    assert await state(runner) == ("stopped", "cancelled")
    await goes_on(runner, sleeper)
