"""A map or a wait ends the run from inside: middleware around it neither wraps nor loses that."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from spine_async import LeaseLostError, Step, StepResult, Workflow, WorkflowContext
from tests.cancellation.conftest import MakeRunner
from tests.cancellation.user_code import (
    MIDDLEWARE,
    SHAPES,
    Config,
    nothing,
    settled,
)

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("middleware", MIDDLEWARE)
@pytest.mark.parametrize("depth", [1, 2, 3])
async def test_a_stop_inside_an_item_stops_the_run_with_its_reason(
    make_runner: MakeRunner, middleware: str, depth: int
) -> None:
    runner = make_runner()
    runner.middleware(MIDDLEWARE[middleware])

    async def each(context: WorkflowContext, config: Config) -> object:
        if context.params["item"] == 1:
            await anyio.sleep(1)
            return StepResult.stop("enough")
        await anyio.sleep_forever()
        return None

    step: Step = Step.lambda_("step", each)
    for number in range(depth):
        step = Step.map(f"map{number}", items=[0, 1, 2], iterator=Workflow(steps=[step]))
    result = await runner.execute(Workflow("w", [step]), run_id="r")
    assert (result.status, result.stop_reason, result.error) == ("stopped", "enough", None)


@pytest.mark.parametrize("middleware", MIDDLEWARE)
async def test_a_drain_inside_a_map_lets_items_finish_and_releases_the_run(
    make_runner: MakeRunner, middleware: str
) -> None:
    runner = make_runner(drain_timeout=10)
    runner.middleware(MIDDLEWARE[middleware])
    begun, finished = anyio.Event(), list[Any]()

    async def each(context: WorkflowContext, config: Config) -> None:
        begun.set()
        await anyio.sleep(2)
        finished.append(context.params["item"])

    inner = Workflow(steps=[Step.map("inner", items=range(4), iterator=each, max_concurrency=2)])
    flow = Workflow("w", [Step.map("outer", items=[0], iterator=inner)])
    async with runner:
        task = asyncio.create_task(runner.execute(flow, run_id="r"))
        await begun.wait()
    result = await task
    assert (result.status, result.stop_reason, result.failed_steps) == ("stopped", "shutdown", [])
    assert sorted(finished) == [0, 1]
    result = await make_runner().resume("r", workflow=flow)
    assert (result.status, sorted(finished)) == ("completed", [0, 1, 2, 3])


@pytest.mark.pairs
@pytest.mark.parametrize("middleware", MIDDLEWARE)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("how", ["stop", "leave", "cancel", "run_timeout"])
async def test_a_wait_that_is_cancelled_goes_on_later(
    make_runner: MakeRunner, middleware: str, shape: str, how: str
) -> None:
    runner = make_runner(drain_timeout=1, workflow_timeout=5 if how == "run_timeout" else None)
    runner.middleware(MIDDLEWARE[middleware])
    step: Step = Step.wait("pause", 100)
    for name in {"plain": (), "item": ("each",), "nested": ("inner", "each")}[shape]:
        step = Step.map(name, items=[1], iterator=Workflow(steps=[step]), on_error="continue")
    flow = Workflow("w", [step])
    async with runner:
        task = asyncio.create_task(runner.execute(flow, run_id="r"))
        await anyio.sleep(2)
        if how == "stop":
            await runner.stop("r", "enough")
        elif how == "cancel":
            task.cancel()
        elif how == "run_timeout":
            await asyncio.wait([task])
    await asyncio.wait([task])
    run = await runner.get_run("r")
    wanted = {
        "stop": ("stopped", "enough"),
        "leave": ("waiting", None),
        "cancel": ("stopped", "cancelled"),
        "run_timeout": ("failed", None),
    }
    assert (run.status, run.stop_reason) == wanted[how]
    assert await settled(runner) == []
    result = await make_runner().resume("r", workflow=flow)
    assert result.status == "completed"
    assert anyio.current_time() == pytest.approx(100, abs=0.1)


@pytest.mark.parametrize("middleware", MIDDLEWARE)
@pytest.mark.parametrize("shape", SHAPES)
async def test_a_lost_lease_comes_out_as_what_it_is(make_runner: MakeRunner, middleware: str, shape: str) -> None:
    """Also where it is a commit inside a map that finds out."""
    runner = make_runner()
    runner.middleware(MIDDLEWARE[middleware])

    async def each(context: WorkflowContext, config: Config) -> None:
        await runner._runtime.store.claim("r", "somebody else", None, ttl=60, over_epoch=1)

    step: Step = Step.lambda_("step", each)
    for name in {"plain": (), "item": ("each",), "nested": ("inner", "each")}[shape]:
        step = Step.map(name, items=range(5), iterator=Workflow(steps=[step, Step.wait("w", 50)]), max_concurrency=2)
    with pytest.raises(LeaseLostError):
        await runner.execute(Workflow("w", [step, Step.lambda_("after", nothing)]), run_id="r")
