"""Limits: no timeout, listed delays of retries, and a concurrency that depends on the context."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import anyio
import pytest

from spine_async import InvalidPolicyError, RetryPolicy, Step, Workflow, WorkflowContext
from spine_async._engine.step.backoff import next_delay
from spine_async.errors import DefinitionError
from tests.control.conftest import Trace
from tests.service.places import Place

pytestmark = pytest.mark.anyio


def test_listed_delays_replace_the_computed_ones() -> None:
    policy = RetryPolicy(delays=[1, 2.5, timedelta(minutes=1)])
    assert (policy.max_attempts, policy.jitter) == (4, False)
    assert [next_delay(policy, retry, lambda: 0.1) for retry in (1, 2, 3)] == [1.0, 2.5, 60.0]
    assert policy == RetryPolicy(4, delays=(1, 2.5, 60), jitter=False)
    assert RetryPolicy(delays=[]).max_attempts == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_attempts": 3}, "max_attempts is 3, but the delays make 2 attempts; leave it out"),
        ({"jitter": True}, "jitter has no effect on delays that are listed; leave it out"),
        ({"backoff": "linear"}, "backoff has no effect on delays that are listed"),
        ({"initial_delay": 2}, "initial_delay has no effect on delays that are listed"),
        ({"max_delay": 5}, "max_delay has no effect on delays that are listed"),
        ({"delays": [1, -1]}, r"delays\[1\]: -1 is not a number of seconds of at least 0"),
        ({"delays": 3}, "delays is 3; it must be a list of delays in seconds"),
        ({"delays": "12"}, "delays is '12'; it must be a list of delays in seconds"),
    ],
)
def test_arguments_that_contradict_the_delays_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidPolicyError, match=message):
        RetryPolicy(**{"delays": [1], **arguments})


async def test_the_attempts_come_after_the_listed_delays(memory: Place, trace: Trace) -> None:
    retry = RetryPolicy(delays=[0, 0.001])
    async with memory.runner() as runner:
        result = await runner.execute(Workflow("w", [trace.failing("a", retry=retry)]), run_id="r")
        events = [each.metadata async for each in runner.events("r") if each.event_type == "step_retrying"]
    assert (result.status, trace.ran) == ("failed", ["a", "a", "a"])
    assert [each["delay"] for each in events] == [0, 0.001]


@pytest.mark.parametrize("is_async", [True, False])
async def test_an_infinite_timeout_turns_the_default_off(memory: Place, *, is_async: bool) -> None:
    async def slow(context: WorkflowContext, config: dict[str, Any]) -> None:
        await anyio.sleep(0.05)

    def quick(context: WorkflowContext, config: dict[str, Any]) -> None:
        return None

    handler = slow if is_async else quick
    async with memory.runner(config={"default_step_timeout": 0.01 if is_async else 30}) as runner:
        limited = await runner.execute(Workflow("w", [Step.lambda_("a", handler)]))
        free = await runner.execute(Workflow("w", [Step.lambda_("a", handler, timeout=math.inf)]))
    assert limited.status == ("failed" if is_async else "completed")
    assert free.status == "completed"


def test_an_infinite_timeout_of_a_signal_is_none() -> None:
    step = Step.wait_for_signal("a", timeout=math.inf)
    assert step.timeout is None
    assert Workflow("w", [step]).fingerprint == Workflow("w", [Step.wait_for_signal("a")]).fingerprint
    assert Workflow("w", [Step.map("m", items=[1], iterator=str_handler, timeout=math.inf)]).fingerprint


def str_handler(context: WorkflowContext, config: dict[str, Any]) -> None:
    return None


async def test_a_function_gives_the_concurrency_of_a_map(memory: Place) -> None:
    running, most = 0, 0

    async def item(context: WorkflowContext, config: dict[str, Any]) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.lowlevel.checkpoint()
        running -= 1

    each = Step.map("each", items=range(20), iterator=item, max_concurrency=lambda context: context.params["limit"])
    async with memory.runner() as runner:
        result = await runner.execute(Workflow("w", [each]), params={"limit": 3})
    assert result.status == "completed"
    assert most == 3


@pytest.mark.parametrize(
    ("limit", "shown"),
    [
        (0, "an integer below 1"),
        ("7", "a value of type str"),
        (True, "a value of type bool"),
        (None, "a value of type NoneType"),
    ],
)
async def test_a_function_that_gives_no_limit_fails_the_step(
    memory: Place, trace: Trace, limit: Any, shown: str
) -> None:
    each = Step.map("each", items=[1], iterator=str_handler, max_concurrency=lambda context: limit)
    async with memory.runner() as runner:
        result = await runner.execute(Workflow("w", [each]))
    assert (result.status, result.error_category) == ("failed", "CONFIGURATION")
    assert f"the function max_concurrency of step 'each' returned {shown}; it must return" in (result.error or "")


async def test_a_function_of_the_concurrency_that_raises_fails_the_step(memory: Place) -> None:
    def breaks(context: WorkflowContext) -> int:
        raise ConnectionError("gone")

    each = Step.map("each", items=[1], iterator=str_handler, max_concurrency=breaks)
    async with memory.runner() as runner:
        result = await runner.execute(Workflow("w", [each]))
    assert (result.error, result.error_category) == ("ConnectionError: gone", "TRANSIENT")


def test_a_function_of_the_concurrency_must_be_plain() -> None:
    async def slow(context: WorkflowContext) -> int:
        return 1

    with pytest.raises(DefinitionError, match=r"max_concurrency .*slow is async; pass a plain function"):
        Step.map("each", items=[1], iterator=str_handler, max_concurrency=slow)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match=r"max_concurrency .* cannot be called with 1 positional arguments"):
        Step.map("each", items=[1], iterator=str_handler, max_concurrency=lambda: 1)  # type: ignore[misc,arg-type]
