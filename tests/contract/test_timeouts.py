"""Limits on the time of an attempt and of a run."""

import threading
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any

import anyio
import pytest

from spine_async import (
    ErrorPolicy,
    LocalDispatcher,
    RetryPolicy,
    Step,
    Workflow,
    WorkflowContext,
    WorkflowResult,
    WorkflowRunner,
    WorkflowRunnerConfig,
)

pytestmark = pytest.mark.anyio


async def run(runner: WorkflowRunner, *steps: Step) -> WorkflowResult:
    with anyio.fail_after(20):
        return await runner.execute(Workflow("w", steps))


async def forever(context: WorkflowContext, config: Mapping[str, Any]) -> None:
    await anyio.sleep_forever()


async def quick(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, bool]:
    return {"ran": True}


@pytest.mark.parametrize("timeout", [0.01, timedelta(milliseconds=10)])
async def test_an_attempt_that_takes_too_long_fails(runner: WorkflowRunner, timeout: Any) -> None:
    result = await run(runner, Step.lambda_("slow", forever, timeout=timeout), Step.lambda_("after", quick))
    assert (result.status, result.error_step, result.error_category) == ("failed", "slow", "TIMEOUT")
    assert result.error
    assert "0.01" in result.error
    assert not result.context.has_output("after")


async def test_a_timeout_may_be_passed_over(runner: WorkflowRunner) -> None:
    slow = Step.lambda_("slow", forever, timeout=0.01, on_error=ErrorPolicy.CONTINUE)
    result = await run(runner, slow, Step.lambda_("after", quick))
    assert result.status == "completed"
    assert result.failed_steps == ["slow"]
    assert result.completed_steps == ["after"]


async def test_the_timeout_is_for_each_attempt(runner: WorkflowRunner) -> None:
    calls = []

    async def slow_twice(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, int]:
        calls.append(1)
        if len(calls) < 3:
            await anyio.sleep_forever()
        return {"calls": len(calls)}

    retry = RetryPolicy(max_attempts=3, initial_delay=0, jitter=False)
    result = await run(runner, Step.lambda_("slow", slow_twice, timeout=0.2, retry=retry))
    assert result.context.get_output("slow") == {"calls": 3}


async def test_a_handler_sees_its_cancellation(runner: WorkflowRunner) -> None:
    cleaned = []

    async def cleans_up(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cleaned.append(True)

    result = await run(runner, Step.lambda_("slow", cleans_up, timeout=0.01))
    assert result.error_category == "TIMEOUT"
    assert cleaned == [True]


async def test_a_plain_handler_is_left_behind(runner: WorkflowRunner) -> None:
    release = threading.Event()
    ended = threading.Event()

    def blocks(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        release.wait(10)
        ended.set()

    try:
        result = await run(runner, Step.lambda_("slow", blocks, timeout=0.01))
        assert not ended.is_set()
    finally:
        release.set()
        assert await anyio.to_thread.run_sync(ended.wait, 10)
    assert (result.status, result.error_category) == ("failed", "TIMEOUT")


async def test_the_default_applies_to_a_lambda(make_runner: Any) -> None:
    runner = make_runner(config=WorkflowRunnerConfig(default_step_timeout=0.01))
    result = await run(runner, Step.lambda_("slow", forever))
    assert result.error_category == "TIMEOUT"


async def test_the_limit_of_the_step_wins_over_the_default(make_runner: Any) -> None:
    runner = make_runner(config=WorkflowRunnerConfig(default_step_timeout=600))
    result = await run(runner, Step.lambda_("slow", forever, timeout=0.01))
    assert result.error_category == "TIMEOUT"


async def test_the_default_applies_to_a_pipeline(make_runner: Any) -> None:
    dispatcher = LocalDispatcher()

    @dispatcher.pipeline("load")
    async def load(params: Mapping[str, Any]) -> dict[str, Any]:
        await anyio.sleep_forever()
        return {}

    runner = make_runner(dispatcher=dispatcher, config=WorkflowRunnerConfig(default_step_timeout=0.01))
    result = await run(runner, Step.pipeline("slow", "load"))
    assert (result.error_step, result.error_category) == ("slow", "TIMEOUT")


async def test_the_default_applies_neither_to_a_wait_nor_to_a_map(make_runner: Any) -> None:
    async def slow_source() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep(0.3)
        yield 2

    runner = make_runner(config=WorkflowRunnerConfig(default_step_timeout=0.25))
    steps = [Step.wait("pause", 0.3), Step.map("each", items=slow_source(), iterator=quick)]
    result = await run(runner, *steps)
    assert result.error is None
    assert result.completed_steps == ["pause", "each"]


async def test_a_map_has_the_limit_it_is_given(runner: WorkflowRunner) -> None:
    step = Step.map("each", items=[1, 2], iterator=forever, timeout=0.01)
    result = await run(runner, step)
    assert (result.status, result.error_step, result.error_category) == ("failed", "each", "TIMEOUT")


async def test_a_step_inside_a_map_has_its_own_limit(runner: WorkflowRunner) -> None:
    inner = Workflow(steps=[Step.lambda_("slow", forever, timeout=0.01)])
    step = Step.map("each", items=[1], iterator=inner, tolerated_failures=1)
    result = await run(runner, step)
    assert result.status == "completed"
    assert [error["category"] for error in result.context.get_output("each", "errors")] == ["TIMEOUT"]


async def test_a_run_that_takes_too_long_fails(make_runner: Any) -> None:
    runner = make_runner(config=WorkflowRunnerConfig(workflow_timeout=1.25))  # enough for the first step
    result = await run(runner, Step.lambda_("first", quick), Step.lambda_("slow", forever))
    assert (result.status, result.error_category) == ("failed", "TIMEOUT")
    assert "1.25" in result.error
    assert result.completed_steps == ["first"]
    assert (await runner.get_run(result.run_id)).status == "failed"


async def test_a_run_that_took_too_long_can_be_resumed(make_runner: Any) -> None:
    calls = []

    async def slow_once(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        calls.append(1)
        if len(calls) == 1:
            await anyio.sleep_forever()

    workflow = Workflow("w", [Step.lambda_("slow", slow_once)])
    limited = make_runner(config=WorkflowRunnerConfig(workflow_timeout=1.0))  # enough for the step to begin
    result = await limited.execute(workflow)
    resumed = await make_runner(workflows=[workflow]).resume(result.run_id)
    assert resumed.status == "completed"
    assert len(calls) == 2


async def test_the_limit_of_a_run_ends_a_wait(make_runner: Any) -> None:
    runner = make_runner(config=WorkflowRunnerConfig(workflow_timeout=0.02))
    result = await run(runner, Step.wait("pause", 3600))
    assert (result.status, result.error_category) == ("failed", "TIMEOUT")


async def test_the_limit_of_a_run_ends_retries(make_runner: Any) -> None:
    async def busy(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        raise ConnectionError("gone")

    runner = make_runner(config=WorkflowRunnerConfig(workflow_timeout=0.02))
    retry = RetryPolicy(max_attempts=10, initial_delay=60, jitter=False)
    result = await run(runner, Step.lambda_("busy", busy, retry=retry))
    assert (result.status, result.error_category) == ("failed", "TIMEOUT")
