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
    assert result.status == "stopped"
    cancels = False
    result = await runner.resume("r")
    assert (result.status, sorted(ran, key=str)) == ("completed", [0, 1, 2, 3] if is_item else [1])


async def test_a_stray_cancellation_of_the_item_source_fails_the_map(make_runner: MakeRunner) -> None:
    async def items() -> Any:
        yield 1
        await awaits_what_is_cancelled()

    async def each(context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
        return StepResult.ok()

    result = await make_runner().execute(Workflow("w", [Step.map("each", items=items(), iterator=each)]))
    assert (result.status, result.error_step, result.error) == ("failed", "each", f"StepError: {FOREIGN}")
