"""Timeouts of many attempts at once, each at its own moment, with one timer of the event loop for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import anyio
import pytest

from spine_async import ErrorPolicy, Step, Workflow, WorkflowContext
from tests.cancellation.conftest import MakeRunner

pytestmark = pytest.mark.anyio


async def forever(context: WorkflowContext, config: Mapping[str, Any]) -> None:
    await anyio.sleep_forever()


async def test_attempts_that_overlap_time_out_each_at_its_own_moment(make_runner: MakeRunner) -> None:
    ended: list[tuple[float, float]] = []

    async def run(timeout: float) -> None:
        step = Step.lambda_("hang", forever, timeout=timeout)
        result = await make_runner().execute(Workflow("w", [step]))
        assert result.error == f"step 'hang' timed out after {timeout:g} s"
        ended.append((timeout, anyio.current_time()))

    async with anyio.create_task_group() as tasks:
        for timeout in (30, 10, 20, 10):
            tasks.start_soon(run, timeout)
    assert ended == [(10, 10), (10, 10), (20, 20), (30, 30)]


async def test_runs_of_one_runner_share_a_timer_that_fires_for_the_earliest(make_runner: MakeRunner) -> None:
    ended: list[float] = []
    runner = make_runner()

    async def run(timeout: float) -> None:
        await runner.execute(Workflow(f"w{timeout}", [Step.lambda_("hang", forever, timeout=timeout)]))
        ended.append(anyio.current_time())

    async with anyio.create_task_group() as tasks:
        for timeout in (300, 7, 60, 0.5):
            tasks.start_soon(run, timeout)
    assert ended == [0.5, 7, 60, 300]


async def test_a_deadline_that_was_kept_cancels_nothing_later(make_runner: MakeRunner) -> None:
    async def nap(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, float]:
        await anyio.sleep(6)
        return {"at": anyio.current_time()}

    steps = [Step.lambda_(f"nap{number}", nap, timeout=10) for number in range(4)]
    result = await make_runner().execute(Workflow("w", steps))
    result.raise_for_status()
    assert [result.context.get_output(f"nap{number}", "at") for number in range(4)] == [6, 12, 18, 24]


async def test_a_step_may_go_on_after_one_that_timed_out(make_runner: MakeRunner) -> None:
    late = Step.lambda_("late", forever, timeout=3, on_error=ErrorPolicy.CONTINUE)
    later = Step.lambda_("later", forever, timeout=5, on_error=ErrorPolicy.CONTINUE)
    result = await make_runner().execute(Workflow("w", [late, later]))
    assert (result.failed_steps, anyio.current_time()) == (["late", "later"], 8)


async def test_steps_that_end_in_time_leave_no_timers_behind(make_runner: MakeRunner) -> None:
    async def nothing(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        return None

    loop: Any = asyncio.get_running_loop()
    runner = make_runner(default_step_timeout=300)
    async with runner:
        await runner.execute(Workflow("w", [Step.lambda_("first", nothing)]))
        before = len(loop._scheduled)
        each = Step.map("each", items=range(500), iterator=nothing, max_concurrency=50)
        await runner.execute(Workflow("map", [each, *(Step.lambda_(f"s{number}", nothing) for number in range(100))]))
        assert len(loop._scheduled) <= before + 3


async def test_a_handler_sees_until_when_it_may_work(make_runner: MakeRunner) -> None:
    async def look(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, float]:
        return {"deadline": anyio.current_effective_deadline()}

    steps = [Step.wait("first", 5), Step.lambda_("own", look, timeout=30), Step.lambda_("default", look)]
    result = await make_runner(default_step_timeout=100).execute(Workflow("w", steps))
    assert [result.context.get_output(name, "deadline") for name in ("own", "default")] == [35, 105]
