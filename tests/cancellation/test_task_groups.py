"""A handler whose `asyncio.TaskGroup` fails: an ordinary failure, although asyncio cancels the handler's task.

CPython before 3.13 leaves the count of cancellations of that task increased.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from spine_async import RetryPolicy, Step, StepResult, Workflow, WorkflowContext, WorkflowRunner
from spine_async.storage import MemoryRunStore

pytestmark = pytest.mark.anyio


async def refuse() -> None:
    raise ConnectionRefusedError("no server")


async def in_a_group(context: WorkflowContext, config: Mapping[str, Any]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(refuse())


async def in_a_group_that_works(context: WorkflowContext, config: Mapping[str, Any]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(refuse())
        await asyncio.sleep(10)


async def replaced(context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
    try:
        await in_a_group(context, config)
    except ExceptionGroup:
        return StepResult.fail("replaced", category="TRANSIENT")
    raise AssertionError("the group did not fail")


async def replaced_several(context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
    for _ in range(3):
        result = await replaced(context, config)
    return result


async def nested(context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
    async with asyncio.TaskGroup() as outer:
        outer.create_task(asyncio.sleep(0))
        return await replaced(context, config)


class Behind:
    """An awaitable around a group."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __await__(self) -> Any:
        yield from replaced(*self.arguments).__await__()
        return StepResult.fail("behind", category="TRANSIENT")


async def behind(context: WorkflowContext, config: Mapping[str, Any]) -> Any:
    return await Behind(context, config)


HANDLERS = [in_a_group, in_a_group_that_works, replaced, replaced_several, nested, behind]
GAP = (behind, True)


def steps_of(shape: str, handler: Any, **options: Any) -> list[Step]:
    if shape == "step":
        return [Step.lambda_("fails", handler, **options)]
    iterator = Workflow(steps=[Step.lambda_("fails", handler, **options)])
    return [Step.map("fails", items=[1], iterator=iterator)]


@pytest.mark.parametrize("timeout", [None, 60])
@pytest.mark.parametrize("shape", ["step", "map"])
@pytest.mark.parametrize(
    ("handler", "has_middleware"),
    # Not: `behind` with middleware, where CPython before 3.13 does not tell whether middleware cancelled it.
    [(each, has_middleware) for each in HANDLERS for has_middleware in (False, True) if (each, has_middleware) != GAP],
)
async def test_the_step_fails_with_the_error_of_the_child(
    handler: Any, shape: str, timeout: float | None, has_middleware: bool
) -> None:
    runner = WorkflowRunner(store=MemoryRunStore())
    if has_middleware:

        @runner.middleware
        async def in_a_task(step: Any, context: WorkflowContext, next_fn: Any) -> StepResult:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(next_fn(step, context))
            result: StepResult = task.result()
            return result

        @runner.middleware
        async def in_the_same_task(step: Any, context: WorkflowContext, next_fn: Any) -> StepResult:
            async with asyncio.timeout(60):
                result: StepResult = await next_fn(step, context)
                return result

    result = await runner.execute(Workflow("w", steps_of(shape, handler, timeout=timeout)))
    assert (result.status, result.error_category, result.stop_reason) == ("failed", "TRANSIENT", None)


@pytest.mark.parametrize("handler", HANDLERS)
async def test_it_is_retried(handler: Any) -> None:
    async def at_first(context: WorkflowContext, config: Mapping[str, Any]) -> Any:
        return await handler(context, config) if context.attempt < 3 else {"attempt": context.attempt}

    retry = RetryPolicy(max_attempts=3, initial_delay=0.001)
    result = await WorkflowRunner(store=MemoryRunStore()).execute(
        Workflow("w", steps_of("step", at_first, retry=retry))
    )
    assert result.context.get_output("fails") == {"attempt": 3}


async def test_a_step_that_handles_the_error_completes_and_later_steps_are_not_affected() -> None:
    counts: list[int] = []

    async def handles(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
        result = await replaced(context, config)
        return {"was": result.error}

    async def awaits_a_cancelled_future(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        task = asyncio.current_task()
        assert task is not None
        counts.append(task.cancelling())
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    steps = [Step.lambda_("handles", handles), Step.lambda_("later", awaits_a_cancelled_future)]
    result = await WorkflowRunner(store=MemoryRunStore()).execute(Workflow("w", steps))
    assert counts == [0]
    assert (result.status, result.error_step, result.completed_steps) == ("failed", "later", ["handles"])


async def rolls_back(context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
    """A child fails while it is cancelled from outside; the handler returns the failure."""

    async def child() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise ConnectionResetError("in the rollback")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
    except BaseExceptionGroup:
        return StepResult.fail("replaced", category="TRANSIENT")
    raise AssertionError("the group did not fail")


async def fails_and_rolls_back(context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
    await replaced(context, config)
    return await rolls_back(context, config)


@pytest.mark.parametrize("handler", [rolls_back, fails_and_rolls_back])
async def test_a_cancellation_by_middleware_is_not_taken_for_that_of_a_group(handler: Any) -> None:
    runner, ended = WorkflowRunner(store=MemoryRunStore()), list[str]()

    @runner.middleware
    async def limits(step: Any, context: WorkflowContext, next_fn: Any) -> StepResult:
        try:
            async with asyncio.timeout(0.05):
                result: StepResult = await next_fn(step, context)
                return result
        except TimeoutError:
            ended.append("timeout")
            return StepResult.fail("limited", category="CONFIGURATION")

    result = await runner.execute(Workflow("w", steps_of("step", handler)))
    assert (ended, result.status, result.error_category) == (["timeout"], "failed", "CONFIGURATION")


async def test_a_group_of_middleware_that_fails_by_itself() -> None:
    runner = WorkflowRunner(store=MemoryRunStore())

    @runner.middleware
    async def checks(step: Any, context: WorkflowContext, next_fn: Any) -> StepResult:
        await next_fn(step, context)
        return await replaced(context, {})

    result = await runner.execute(Workflow("w", steps_of("step", lambda context, config: None)))
    assert (result.status, result.error, result.error_category) == ("failed", "replaced", "TRANSIENT")
