"""Leaving a runner: nothing new begins, what is at work may finish for a while, the rest is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import anyio
import pytest

from spine_async import Step, Workflow, WorkflowContext
from spine_async.storage import MemoryRunStore
from tests.cancellation.conftest import MakeRunner
from tests.cancellation.handlers import Sleeper

pytestmark = pytest.mark.anyio


async def test_a_running_step_may_finish_and_no_further_one_begins(make_runner: MakeRunner) -> None:
    ran: list[str] = []
    begun = anyio.Event()

    async def nap(context: WorkflowContext, config: Mapping[str, object]) -> None:
        begun.set()
        await anyio.sleep(5)
        ran.append(str(context.step_name))

    flow = Workflow("naps", [Step.lambda_("one", nap), Step.lambda_("two", nap)])
    runner = make_runner(drain_timeout=10)
    async with runner:
        task = asyncio.create_task(runner.execute(flow, run_id="r"))
        await begun.wait()
        left_at = anyio.current_time()
    assert anyio.current_time() - left_at == pytest.approx(5, abs=0.5)
    result = await task
    assert (result.status, result.stop_reason, ran) == ("stopped", "shutdown", ["one"])
    assert (await runner.resume("r")).completed_steps == ["one", "two"]
    assert ran == ["one", "two"]


async def test_items_at_work_may_finish_and_no_further_one_begins(make_runner: MakeRunner) -> None:
    ran: list[object] = []
    begun = anyio.Event()

    async def nap(context: WorkflowContext, config: Mapping[str, object]) -> None:
        begun.set()
        await anyio.sleep(5)
        ran.append(context.params["item"])

    flow = Workflow("naps", [Step.map("each", items=range(6), iterator=nap, max_concurrency=2)])
    runner = make_runner(drain_timeout=10)
    async with runner:
        task = asyncio.create_task(runner.execute(flow, run_id="r"))
        await begun.wait()
    assert ((await task).stop_reason, ran) == ("shutdown", [0, 1])
    assert (await runner.resume("r")).status == "completed"
    assert sorted(ran, key=str) == [0, 1, 2, 3, 4, 5]


async def test_what_does_not_finish_is_stopped(make_runner: MakeRunner, store: MemoryRunStore) -> None:
    runner, sleeper = make_runner(drain_timeout=3), Sleeper()
    async with runner:
        task = asyncio.create_task(runner.execute(sleeper.workflow(), run_id="r"))
        await sleeper.started.wait()
        left_at = anyio.current_time()
    assert anyio.current_time() - left_at == pytest.approx(3, abs=0.5)
    assert (await task).stop_reason == "shutdown"
    stored = await store.load("r")
    assert stored is not None
    assert (stored.status, stored.owner, stored.is_leased) == ("stopped", None, False)


async def test_no_timeout_stops_at_once(make_runner: MakeRunner) -> None:
    runner, sleeper = make_runner(drain_timeout=0), Sleeper()
    async with runner:
        task = asyncio.create_task(runner.execute(sleeper.workflow(), run_id="r"))
        await sleeper.started.wait()
        left_at = anyio.current_time()
    assert anyio.current_time() - left_at < 0.5
    assert (await task).stop_reason == "shutdown"


async def test_a_wait_is_stopped_and_goes_on_for_what_is_left(make_runner: MakeRunner) -> None:
    runner = make_runner(drain_timeout=1)
    flow = Workflow("waiting", [Step.wait("pause", seconds=100)])
    began = anyio.current_time()
    async with runner:
        task = asyncio.create_task(runner.execute(flow, run_id="r"))
        await anyio.sleep(10)
    assert (await task).stop_reason == "shutdown"
    assert (await runner.resume("r")).status == "completed"
    assert anyio.current_time() - began == pytest.approx(100, abs=1)


async def test_a_block_left_by_an_error_drains_too(make_runner: MakeRunner) -> None:
    runner, sleeper = make_runner(drain_timeout=1), Sleeper()
    task = None
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 (the block is what is tested)
        async with runner:
            task = asyncio.create_task(runner.execute(sleeper.workflow(), run_id="r"))
            await sleeper.started.wait()
            raise ZeroDivisionError
    assert task is not None
    assert (await task).stop_reason == "shutdown"
