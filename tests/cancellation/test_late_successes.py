"""A handler that returns a success although it is cancelled: the success counts, and the step does not run again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import anyio
import pytest

from spine_async import RetryPolicy, Step, Workflow, WorkflowContext
from tests.cancellation.conftest import MakeRunner
from tests.cancellation.user_code import no_middleware, own_task

pytestmark = pytest.mark.anyio

AGAIN = RetryPolicy(max_attempts=2, initial_delay=0.0, retryable_errors=("INTERNAL",))


@pytest.mark.parametrize("swallowed", range(1, 6))
@pytest.mark.parametrize("middleware", [no_middleware, own_task])
async def test_an_item_that_returns_after_another_has_failed_is_stored(
    make_runner: MakeRunner, middleware: Any, swallowed: int
) -> None:
    """With middleware that waits for a task, the scope of the map cancels that task in each turn of the event loop."""
    calls: list[int] = []

    async def handler(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, int]:
        number = context.params["item"]
        calls.append(number)
        if number == 0:
            await anyio.sleep(1)
            raise ValueError("the first one fails")
        for _ in range(swallowed):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(2)
        return {"number": number}

    runner = make_runner()
    runner.middleware(middleware)
    items = Workflow(steps=[Step.lambda_("one", handler)])
    result = await runner.execute(Workflow("w", [Step.map("m", items=[0, 1], iterator=items, retry=AGAIN)]), run_id="r")
    completed = [event.path async for event in runner.events("r") if event.event_type == "step_completed"]
    assert (result.status, result.error_step) == ("failed", "m")
    assert completed == ["m[1]/one"]
    assert calls == [0, 1, 0]
