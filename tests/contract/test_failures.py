"""How an exception in a handler becomes a failed step: its category and its text."""

import asyncio
from collections.abc import Mapping
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from spine_async import (
    ErrorCategory,
    ErrorPolicy,
    Step,
    StepError,
    StepResult,
    Workflow,
    WorkflowContext,
    WorkflowResult,
    WorkflowRunner,
)

pytestmark = pytest.mark.anyio


class Price(BaseModel):
    cents: int


class LateError(TimeoutError):
    pass


def validation_error() -> Exception:
    try:
        Price.model_validate({"cents": "many"})
    except ValueError as error:
        return error
    raise AssertionError("pydantic took it")


async def run_raising(runner: WorkflowRunner, error: BaseException, kind: str = "async def") -> WorkflowResult:
    async def coroutine(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        raise error

    def plain(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        raise error

    handler = coroutine if kind == "async def" else plain
    return await runner.execute(Workflow("w", [Step.lambda_("only", handler), Step.lambda_("after", coroutine)]))


@pytest.mark.parametrize("kind", ["async def", "def"])
@pytest.mark.parametrize(
    ("error", "category"),
    [
        (TimeoutError("too late"), "TIMEOUT"),
        (LateError("too late"), "TIMEOUT"),
        (ConnectionError("gone"), "TRANSIENT"),
        (ConnectionResetError(104, "reset"), "TRANSIENT"),
        (BrokenPipeError("pipe"), "TRANSIENT"),
        (OSError(5, "input/output error"), "TRANSIENT"),
        (ValueError("bad value"), "INTERNAL"),
        (KeyError("colour"), "INTERNAL"),
        (ZeroDivisionError("by zero"), "INTERNAL"),
        (RuntimeError("broken"), "INTERNAL"),
        (validation_error(), "DATA_QUALITY"),
        (StepError("no such table", category="DEPENDENCY"), "DEPENDENCY"),
        (StepError("no key", category="CONFIGURATION"), "CONFIGURATION"),
        (StepError("odd rows", category=ErrorCategory.DATA_QUALITY), "DATA_QUALITY"),
    ],
)
async def test_the_category_of_an_exception(runner: WorkflowRunner, error: Exception, category: str, kind: str) -> None:
    result = await run_raising(runner, error, kind)
    assert result.status == "failed"
    assert result.error_step == "only"
    assert result.failed_steps == ["only"]
    assert result.completed_steps == []
    assert result.error_category == category


@pytest.mark.parametrize("kind", ["async def", "def"])
@pytest.mark.parametrize("error", [LateError("at noon"), ConnectionResetError("by peer"), ValueError("of no use")])
async def test_the_text_carries_type_and_message(runner: WorkflowRunner, error: Exception, kind: str) -> None:
    result = await run_raising(runner, error, kind)
    assert result.error is not None
    assert type(error).__name__ in result.error
    assert str(error) in result.error


async def test_an_exception_without_a_message_is_named_too(runner: WorkflowRunner) -> None:
    result = await run_raising(runner, AssertionError())
    assert "AssertionError" in str(result.error)


async def test_the_text_of_a_step_error(runner: WorkflowRunner) -> None:
    result = await run_raising(runner, StepError("the ledger is closed", category="DEPENDENCY"))
    assert "the ledger is closed" in str(result.error)


@pytest.mark.parametrize("kind", ["async def", "def"])
async def test_stop_iteration_is_a_failure_like_another(runner: WorkflowRunner, kind: str) -> None:
    with anyio.fail_after(5):
        result = await run_raising(runner, StopIteration("nothing left"), kind)
    assert result.status == "failed"
    assert result.error_category == "INTERNAL"
    assert "StopIteration" in str(result.error)


async def test_an_exception_group_of_one_is_the_failure_of_its_member(runner: WorkflowRunner) -> None:
    async def tasks(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        async with anyio.create_task_group():
            raise ValueError("inside")

    result = await runner.execute(Workflow("w", [Step.lambda_("only", tasks)]))
    assert result.status == "failed"
    assert result.error_category == "INTERNAL"
    assert result.error == "ValueError: inside"


async def test_a_returned_failure_keeps_its_category_and_text(runner: WorkflowRunner) -> None:
    async def fails(context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
        return StepResult.fail("upstream said 503", category="DEPENDENCY")

    result = await runner.execute(Workflow("w", [Step.lambda_("only", fails)]))
    assert (result.status, result.error_step, result.error_category) == ("failed", "only", "DEPENDENCY")
    assert "upstream said 503" in str(result.error)


async def test_a_returned_failure_is_internal_unless_it_says_otherwise(runner: WorkflowRunner) -> None:
    async def fails(context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
        return StepResult.fail("odd")

    result = await runner.execute(Workflow("w", [Step.lambda_("only", fails)]))
    assert result.error_category == "INTERNAL"


@pytest.mark.parametrize("policy", [ErrorPolicy.STOP, ErrorPolicy.CONTINUE])
async def test_what_happens_after_a_failure(runner: WorkflowRunner, policy: ErrorPolicy) -> None:
    async def fails(context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
        return StepResult.fail("odd")

    async def after(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, bool]:
        return {"ran": True}

    workflow = Workflow("w", [Step.lambda_("first", fails, on_error=policy), Step.lambda_("after", after)])
    result = await runner.execute(workflow)
    assert result.failed_steps == ["first"]
    if policy == ErrorPolicy.CONTINUE:
        assert result.status == "completed"
        assert result.completed_steps == ["after"]
        assert result.context.get_output("after") == {"ran": True}
    else:
        assert result.status == "failed"
        assert result.completed_steps == []
        assert not result.context.has_output("after")


@pytest.mark.parametrize("by", ["task", "scope"])
async def test_cancellation_is_no_failure(make_runner: Any, by: str) -> None:
    started = anyio.Event()
    runner = make_runner()

    async def waits(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        started.set()
        await anyio.sleep_forever()

    async def first(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, int]:
        return {"n": 1}

    workflow = Workflow("w", [Step.lambda_("first", first), Step.lambda_("waits", waits)])
    if by == "task":
        task = asyncio.create_task(runner.execute(workflow, run_id="r1"))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:

                async def cancel() -> None:
                    await started.wait()
                    scope.cancel()

                tasks.start_soon(cancel)
                await runner.execute(workflow, run_id="r1")
        assert scope.cancelled_caught
    stored = await runner.get_run("r1")
    assert stored.status == "stopped"
