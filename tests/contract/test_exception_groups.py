"""Exception groups: a group with one member is the failure of that member, a group with several names them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
import pytest

from spine_async import RetryPolicy, Step, StepError, Workflow, WorkflowContext, WorkflowRunner

pytestmark = pytest.mark.anyio


def group(*members: Exception) -> ExceptionGroup[Exception]:
    return ExceptionGroup("g", members)


@pytest.mark.parametrize(
    ("error", "category", "text"),
    [
        (group(ConnectionResetError("a")), "TRANSIENT", "ConnectionResetError: a"),
        (group(group(group(StepError("a", "DEPENDENCY")))), "DEPENDENCY", "StepError: a"),
        (
            group(ValueError("a"), ConnectionError("b")),
            "TRANSIENT",
            "ExceptionGroup of 2: ValueError: a; ConnectionError: b",
        ),
        (
            group(TimeoutError("a"), group(ConnectionError("b"))),
            "TIMEOUT",
            "ExceptionGroup of 2: TimeoutError: a; ConnectionError: b",
        ),
        (group(ConnectionError(), StepError("a", "CONFIGURATION")), "CONFIGURATION", None),
        (group(StepError("a", "DATA_QUALITY"), StepError("b", "DEPENDENCY")), "DATA_QUALITY", None),
        (group(StepError("a", "OF_MY_OWN"), StepError("b", "CONFIGURATION")), "OF_MY_OWN", None),
        (group(*[ValueError(str(number)) for number in range(12)]), "INTERNAL", None),
    ],
)
async def test_a_group_is_looked_through(
    runner: WorkflowRunner, error: Exception, category: str, text: str | None
) -> None:
    async def raises(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        raise error

    result = await runner.execute(Workflow("w", [Step.lambda_("only", raises)]))
    assert result.error_category == category
    if text is not None:
        assert result.error == text
    if isinstance(error, ExceptionGroup) and len(error.exceptions) == 12:
        assert str(result.error).startswith("ExceptionGroup of 12: ValueError: 0; ValueError: 1; ")
        assert str(result.error).endswith("; and 2 more")


@pytest.mark.parametrize("rule", [ConnectionError, lambda error: isinstance(error, ConnectionError), ExceptionGroup])
async def test_exception_types_and_predicates_match_through_groups(runner: WorkflowRunner, rule: Any) -> None:
    async def raises(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        if context.attempt == 1:
            raise group(group(ConnectionResetError()))

    retry = RetryPolicy(max_attempts=2, initial_delay=0, retryable_errors=rule)
    result = await runner.execute(Workflow("w", [Step.lambda_("only", raises, retry=retry)]))
    assert result.status == "completed"


async def test_the_delay_that_a_grouped_exception_asks_for_is_kept(runner: WorkflowRunner) -> None:
    async def raises(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        if context.attempt == 1:
            raise group(
                StepError("a", "TRANSIENT", retry_after=0.0), group(StepError("b", "TRANSIENT", retry_after=0.02))
            )

    retry = RetryPolicy(max_attempts=2, initial_delay=50, jitter=False)
    result = await runner.execute(Workflow("w", [Step.lambda_("only", raises, retry=retry)]), run_id="r")
    (event,) = [each async for each in runner.events("r") if each.event_type == "step_retrying"]
    assert (result.status, event.metadata["delay"]) == ("completed", 0.02)


async def test_a_timeout_of_a_step_matches_timeout_error(runner: WorkflowRunner) -> None:
    async def hangs(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        if context.attempt == 1:
            await anyio.sleep_forever()

    retry = RetryPolicy(max_attempts=2, initial_delay=0, retryable_errors=(TimeoutError,))
    result = await runner.execute(Workflow("w", [Step.lambda_("only", hangs, timeout=0.2, retry=retry)]))
    assert result.status == "completed"
