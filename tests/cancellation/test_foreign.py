"""Stray cancellations: a handler awaits something that is cancelled, or cancels its own task."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import anyio
import pytest

from spine_async import RetryPolicy, Step, StepResult, Workflow, WorkflowContext
from tests.cancellation.conftest import MakeRunner

pytestmark = pytest.mark.anyio

FOREIGN = "the step awaited a task or future that other code had cancelled (CancelledError)"


async def awaits_what_is_cancelled() -> None:
    task = asyncio.create_task(asyncio.sleep(9))
    task.cancel()
    await task


async def test_a_stray_cancellation_fails_the_step_which_may_be_retried(make_runner: MakeRunner) -> None:
    async def once(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        if context.attempt == 1:
            await awaits_what_is_cancelled()

    async def always(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        await awaits_what_is_cancelled()

    retry = RetryPolicy(max_attempts=2, retryable_errors=("INTERNAL",), initial_delay=0.1)
    flow = Workflow("w", [Step.lambda_("once", once, retry=retry), Step.lambda_("always", always)])
    result = await make_runner().execute(flow)
    assert (result.status, result.error_step, result.error) == ("failed", "always", FOREIGN)
    assert [metric.attempts for metric in result.step_metrics] == [2, 1]


async def test_a_stray_cancellation_fails_the_item_and_no_item_is_lost(make_runner: MakeRunner) -> None:
    async def each(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, object]:
        if context.params["item"] == 1:
            await awaits_what_is_cancelled()
        await anyio.sleep(1)
        return {"item": context.params["item"]}

    def flow(tolerated: int) -> Workflow:
        step = Step.map("each", items=range(6), iterator=each, max_concurrency=2, tolerated_failures=tolerated)
        return Workflow("w", [step])

    result = await make_runner().execute(flow(1))
    output: Any = result.context.get_output("each")
    assert (result.status, output["succeeded"], output["failed"]) == ("completed", 5, 1)
    assert output["errors"] == [{"index": 1, "error": FOREIGN, "category": "INTERNAL"}]
    result = await make_runner().execute(flow(0))
    assert (result.status, result.error_step) == ("failed", "each")


@pytest.mark.parametrize("is_item", [False, True])
async def test_a_step_that_cancels_its_own_task_stops_the_run_which_can_be_resumed(
    make_runner: MakeRunner, is_item: bool
) -> None:
    cancels = True
    ran: list[object] = []

    async def each(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        item = context.params.get("item", 1)
        if item == 1 and cancels:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        await anyio.sleep(1)
        ran.append(item)

    step = Step.map("each", items=range(4), iterator=each, max_concurrency=2) if is_item else Step.lambda_("one", each)
    runner = make_runner()
    result = await runner.execute(Workflow("w", [step]), run_id="r")
    assert (result.status, result.stop_reason) == ("stopped", "cancelled")
    stored = await runner.get_run("r")
    assert (stored.status, stored.stop_reason) == ("stopped", "cancelled")
    cancels = False
    result = await runner.resume("r")
    assert (result.status, sorted(ran, key=str)) == ("completed", [0, 1, 2, 3] if is_item else [1])


async def cancels_itself(context: WorkflowContext, config: Mapping[str, Any]) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await anyio.sleep(1)


@pytest.mark.parametrize(
    "step",
    [
        Step.lambda_("odd", cancels_itself),
        Step.lambda_("odd", cancels_itself, timeout=9),
        Step.map("odd", items=[1, 2], iterator=cancels_itself),
        Step.parallel("odd", {"a": cancels_itself, "b": cancels_itself}),
        Step.workflow("odd", Workflow("child", [Step.lambda_("a", cancels_itself)])),
    ],
    ids=["step", "timeout", "item", "branch", "child"],
)
async def test_a_run_in_the_background_that_cancels_itself_is_not_executed_again_and_again(
    make_runner: MakeRunner, step: Step
) -> None:
    cleaned: list[int] = []

    async def clean(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        cleaned.append(1)

    workflow = Workflow("w", [step], cleanup=[Step.lambda_("clean", clean)])
    async with make_runner([workflow], work=True) as runner:
        handle = await runner.enqueue(workflow, run_id="r")
        result = await handle.result(timeout=60)
        assert (result.status, result.stop_reason, result.failed_steps) == ("stopped", "cancelled", [])
    assert cleaned == [1]


async def test_a_cleanup_step_that_cancels_itself_makes_its_run_poison(make_runner: MakeRunner) -> None:
    workflow = Workflow("w", [Step.wait("a", 0)], cleanup=[Step.lambda_("odd", cancels_itself)])
    async with make_runner([workflow], work=True, max_claims=2) as runner:
        handle = await runner.enqueue(workflow, run_id="r")
        result = await handle.result(timeout=60)
        assert result.status == "failed"
        assert "poison" in str(result.error)


async def test_a_stray_cancellation_of_the_item_source_fails_the_map(make_runner: MakeRunner) -> None:
    async def items() -> Any:
        yield 1
        await awaits_what_is_cancelled()

    async def each(context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
        return StepResult.ok()

    result = await make_runner().execute(Workflow("w", [Step.map("each", items=items(), iterator=each)]))
    assert (result.status, result.error_step, result.error) == ("failed", "each", f"StepError: {FOREIGN}")
