"""User code that leaves a scope of anyio open, or closes one that is not its own, fails its step and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import anyio
import pytest

from spine_async import RetryPolicy, Step, StepResult, Workflow, WorkflowContext, WorkflowResult, WorkflowRunner
from tests.cancellation.conftest import MakeRunner

Config = Mapping[str, Any]
Handler = Callable[[WorkflowContext, Config], Awaitable[object]]

LEFT: list[Any] = []
TEXT = "left a cancel scope or task group of anyio open"


def _entered(scope: anyio.CancelScope) -> anyio.CancelScope:
    scope.__enter__()
    LEFT.append(scope)
    return scope


async def plain(context: WorkflowContext, config: Config) -> object:
    _entered(anyio.CancelScope())
    return {"x": 1}


async def several(context: WorkflowContext, config: Config) -> object:
    _entered(anyio.CancelScope(shield=True))
    _entered(anyio.CancelScope())
    await anyio.sleep(1)
    _entered(anyio.move_on_after(1))
    return {"x": 1}


async def with_deadline(context: WorkflowContext, config: Config) -> object:
    _entered(anyio.move_on_after(0.5))
    return {"x": 1}


async def whose_deadline_passes(context: WorkflowContext, config: Config) -> object:
    _entered(anyio.move_on_after(0.5))
    await anyio.sleep(2)
    return {"x": 1}


async def whose_deadline_passes_unseen(context: WorkflowContext, config: Config) -> object:
    _entered(anyio.move_on_after(0.5))
    with suppress(BaseException):
        await anyio.sleep(2)
    return {"x": 1}


async def cancelled(context: WorkflowContext, config: Config) -> object:
    _entered(anyio.CancelScope()).cancel()
    return {"x": 1}


async def cancelled_as_it_waits(context: WorkflowContext, config: Config) -> object:
    _entered(anyio.CancelScope()).cancel()
    await anyio.sleep(1)
    return {"x": 1}


async def group(context: WorkflowContext, config: Config) -> object:
    tasks = anyio.create_task_group()
    await tasks.__aenter__()
    LEFT.append(tasks)
    tasks.start_soon(anyio.sleep, 1000)
    return {"x": 1}


async def _fails() -> None:
    await anyio.sleep(0.1)
    raise KeyError("child")


async def failing_group(context: WorkflowContext, config: Config) -> object:
    tasks = anyio.create_task_group()
    await tasks.__aenter__()
    LEFT.append(tasks)
    tasks.start_soon(_fails)
    return {"x": 1}


async def generator(context: WorkflowContext, config: Config) -> object:
    async def numbers() -> AsyncIterator[int]:
        with anyio.move_on_after(60):
            yield 1

    LEFT.append(numbers())
    await anext(LEFT[-1])
    return {"x": 1}


ALL: list[Handler] = [
    plain, several, with_deadline, whose_deadline_passes, whose_deadline_passes_unseen, cancelled,
    cancelled_as_it_waits, group, failing_group, generator,
]  # fmt: skip


async def slow(context: WorkflowContext, config: Config) -> object:
    await anyio.sleep(1)
    return {"x": 2}


async def sleeps(context: WorkflowContext, config: Config) -> None:
    await anyio.sleep(1000)


async def _beside(runner: WorkflowRunner, workflow: Workflow) -> WorkflowResult:
    """The result of a run; another one beside it is unharmed."""
    results: list[WorkflowResult] = []

    async def other() -> None:
        results.append(await runner.execute(Workflow("other", [Step.lambda_("a", slow), Step.lambda_("b", slow)])))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        result = await runner.execute(workflow, run_id="r")
    assert results[0].status == "completed"
    record = await runner.get_run("r")
    assert record.status == result.status
    await _close_generators()
    return result


async def _close_generators() -> None:
    """Without this, their finalizer would report that their scope is not open anymore."""
    for each in LEFT:
        if isinstance(each, AsyncGenerator):
            with pytest.raises(RuntimeError, match="cancel scope"):
                await each.aclose()
    LEFT.clear()


@pytest.mark.parametrize("timeout", [None, 30.0])
@pytest.mark.parametrize("handler", ALL, ids=lambda each: each.__name__)
async def test_a_handler_that_leaves_a_scope_open_fails_its_own_step(
    make_runner: MakeRunner, handler: Handler, timeout: float | None
) -> None:
    step = Step.lambda_("leaves", handler, timeout=timeout)
    workflow = Workflow("w", [Step.lambda_("fine", slow), step, Step.lambda_("never", slow)])
    result = await _beside(make_runner(), workflow)
    assert (result.status, result.error_step) == ("failed", "leaves")
    assert f"step 'leaves' {TEXT}" in str(result.error)
    assert result.completed_steps == ["fine"]


@pytest.mark.parametrize("handler", ALL, ids=lambda each: each.__name__)
async def test_later_steps_and_attempts_are_not_harmed(make_runner: MakeRunner, handler: Handler) -> None:
    calls: list[int] = []

    async def at_first(context: WorkflowContext, config: Config) -> object:
        calls.append(context.attempt)
        return await handler(context, config) if context.attempt == 1 else {"x": 3}

    twice = RetryPolicy(max_attempts=2, initial_delay=2, retryable_errors=("INTERNAL",))
    steps = [
        Step.lambda_("limited", at_first, retry=twice, timeout=30),
        Step.lambda_("tolerated", handler, on_error="continue"),
        Step.lambda_("then", slow),
        Step.lambda_("unlimited", at_first, retry=twice),
        Step.lambda_("last", slow, timeout=5),
    ]
    result = await _beside(make_runner(), Workflow("w", steps))
    assert result.status == "completed", result.error
    assert calls == [1, 2, 1, 2]
    assert result.failed_steps == ["tolerated"]


@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.parametrize("handler", ALL, ids=lambda each: each.__name__)
async def test_an_item_fails_by_itself(make_runner: MakeRunner, handler: Handler, limit: int) -> None:
    async def at_odd(context: WorkflowContext, config: Config) -> object:
        return await (handler if context.params["item"] % 2 else slow)(context, config)

    iterator = Workflow("i", [Step.lambda_("leaves", at_odd), Step.lambda_("then", slow)])
    tolerant = Step.map("map", iterator=iterator, items=[0, 1, 2, 3, 4], max_concurrency=limit, tolerated_failures=2)
    result = await _beside(make_runner(), Workflow("w", [tolerant, Step.lambda_("last", slow)]))
    output = result.context.get_output("map")
    assert (result.status, output["succeeded"], output["failed"]) == ("completed", 3, 2)
    assert all(f"step 'leaves' {TEXT}" in each["error"] for each in output["errors"])


@pytest.mark.parametrize("handler", ALL, ids=lambda each: each.__name__)
async def test_a_branch_and_a_child_fail_by_themselves(make_runner: MakeRunner, handler: Handler) -> None:
    leaves = Workflow("leaves", [Step.lambda_("leaves", handler), Step.lambda_("then", slow)])
    branches = Step.parallel(
        "branches", {"a": leaves, "b": Workflow("b", [Step.lambda_("b", slow)])}, on_error="continue"
    )
    child = Step.workflow("child", leaves, on_error="continue")
    result = await _beside(make_runner(), Workflow("w", [branches, child, Step.lambda_("last", slow)]))
    assert (result.status, result.failed_steps) == ("completed", ["branches", "child"])


@pytest.mark.parametrize("calls_first", [True, False])
@pytest.mark.parametrize("kind", ["plain", "map"])
async def test_middleware_that_leaves_a_scope_open_fails_the_step(
    make_runner: MakeRunner, calls_first: bool, kind: str
) -> None:
    runner = make_runner()

    @runner.middleware
    async def leaves(step: Step, context: WorkflowContext, next_fn: Any) -> StepResult:
        result: StepResult | None = None
        if calls_first or step.name != "step":
            result = await next_fn(step, context)
        if step.name == "step":
            _entered(anyio.CancelScope())
        return result or await next_fn(step, context)

    steps: list[Step] = [Step.lambda_("step", slow, timeout=5)]
    if kind == "map":
        steps = [Step.map("step", iterator=Workflow("i", steps), items=[1, 2])]
    result = await _beside(runner, Workflow("w", [*steps, Step.lambda_("never", slow)]))
    assert (result.status, result.error_step) == ("failed", "step")
    assert f"step 'step' {TEXT}" in str(result.error)


async def test_an_interrupt_passes_middleware_that_leaves_a_scope_open(make_runner: MakeRunner) -> None:
    runner = make_runner()

    @runner.middleware
    async def leaves(step: Step, context: WorkflowContext, next_fn: Any) -> StepResult:
        if step.name == "map":
            _entered(anyio.CancelScope())
        return await next_fn(step, context)

    async def stops(context: WorkflowContext, config: Config) -> StepResult:
        return StepResult.stop("enough")

    step = Step.map("map", iterator=Workflow("i", [Step.lambda_("stops", stops)]), items=[1, 2])
    result = await runner.execute(Workflow("w", [step]))
    assert (result.status, result.stop_reason) == ("stopped", "enough")
    LEFT.clear()


@pytest.mark.parametrize("timeout", [None, 5.0])
async def test_a_handler_that_leaves_the_scope_of_middleware_fails(
    make_runner: MakeRunner, timeout: float | None
) -> None:
    runner, scopes = make_runner(), {}

    @runner.middleware
    async def opens(step: Step, context: WorkflowContext, next_fn: Any) -> StepResult:
        with anyio.CancelScope() as scopes[step.name]:
            return await next_fn(step, context)
        raise AssertionError

    async def leaves(context: WorkflowContext, config: Config) -> object:
        scopes["leaves"].__exit__(None, None, None)
        return {"x": 1}

    steps = [Step.lambda_("leaves", leaves, timeout=timeout, on_error="continue"), Step.lambda_("last", slow)]
    result = await _beside(runner, Workflow("w", steps))
    assert (result.status, result.failed_steps) == ("completed", ["leaves"])


async def test_a_scope_around_the_run_that_a_handler_leaves_is_entered_again(make_runner: MakeRunner) -> None:
    async def leaves(context: WorkflowContext, config: Config) -> object:
        probe = anyio.CancelScope()
        probe.__enter__()
        outer: Any = probe._parent_scope  # type: ignore[attr-defined]
        probe.__exit__(None, None, None)
        while outer is not None:
            outer.__exit__(None, None, None)
            outer = outer._parent_scope
        return {"x": 1}

    steps = [Step.lambda_("leaves", leaves, on_error="continue"), Step.lambda_("last", slow, timeout=5)]
    result = await _beside(make_runner(workflow_timeout=100), Workflow("w", steps))
    assert (result.status, result.failed_steps) == ("completed", ["leaves"])
    too_slow = [steps[0], Step.lambda_("sleeps", sleeps)]
    result = await make_runner(workflow_timeout=100).execute(Workflow("w", too_slow))
    assert (result.status, result.error_step, result.error_category) == ("failed", "sleeps", "TIMEOUT")


async def test_predicates_choices_params_and_items_that_leave_a_scope_open(make_runner: MakeRunner) -> None:
    def entered(returned: Any) -> Any:
        _entered(anyio.CancelScope())
        return returned

    async def fails(context: WorkflowContext, config: Config) -> object:
        raise ConnectionResetError

    policy = RetryPolicy(max_attempts=2, initial_delay=0, retryable_errors=lambda error: entered(False))
    inner = Workflow("i", [Step.lambda_("i", slow)])
    steps = [
        Step.lambda_("predicate", fails, retry=policy, on_error="continue"),
        Step.map("items", iterator=inner, items=lambda context: entered([1, 2]), on_error="continue"),
        Step.workflow("child", inner, lambda context: entered({"a": 1}), on_error="continue"),
        Step.choice("choice", lambda context: entered(True), "last", "last"),
        Step.lambda_("last", slow),
    ]
    result = await _beside(make_runner(), Workflow("w", steps))
    assert (result.status, result.error_step) == ("failed", "choice"), result.error
    assert result.failed_steps == ["predicate", "items", "child", "choice"]


async def test_a_compensation_and_a_cleanup_that_leave_a_scope_open(make_runner: MakeRunner) -> None:
    async def fails(context: WorkflowContext, config: Config) -> object:
        raise ConnectionResetError

    steps = [
        Step.lambda_("a", slow, compensate=slow),
        Step.lambda_("b", slow, compensate=plain),
        Step.lambda_("c", fails),
    ]
    cleanup = [Step.lambda_("cleans", group), Step.lambda_("then", slow)]
    result = await _beside(make_runner(), Workflow("w", steps, cleanup=cleanup))
    assert (result.status, result.error_step) == ("failed", "c")
    assert result.compensated_steps == ["a"]


async def test_a_run_with_an_open_scope_stops_and_drains_as_others(make_runner: MakeRunner) -> None:
    begun = anyio.Event()

    async def waits(context: WorkflowContext, config: Config) -> object:
        _entered(anyio.CancelScope())
        begun.set()
        await anyio.sleep(1000)
        return {"x": 1}

    runner, results = make_runner(), []

    async def execute() -> None:
        results.append(await runner.execute(Workflow("w", [Step.lambda_("waits", waits)]), run_id="r"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(execute)
        await begun.wait()
        await runner.stop("r", "enough")
    assert [(each.status, each.stop_reason) for each in results] == [("stopped", "enough")]
    LEFT.clear()


def _never_left() -> Callable[[WorkflowContext], AsyncIterator[int]]:
    async def items(context: WorkflowContext) -> AsyncIterator[int]:
        _entered(anyio.move_on_after(0.5))
        for index in range(4):
            yield index

    return items


def _whose_deadline_passes() -> Callable[[WorkflowContext], AsyncIterator[int]]:
    async def items(context: WorkflowContext) -> AsyncIterator[int]:
        with anyio.move_on_after(0.5):
            for index in range(4):
                yield index

    return items


def _in_a_group() -> Callable[[WorkflowContext], AsyncIterator[int]]:
    async def items(context: WorkflowContext) -> AsyncIterator[int]:
        async with anyio.create_task_group():
            for index in range(4):
                yield index

    return items


@pytest.mark.parametrize(
    ("items", "limit"),
    [(_never_left, 1), (_never_left, 2), (_whose_deadline_passes, 1), (_whose_deadline_passes, 2), (_in_a_group, 2)],
)
async def test_no_item_is_lost_in_a_scope_of_the_items(make_runner: MakeRunner, items: Any, limit: int) -> None:
    step = Step.map("map", iterator=Workflow("i", [Step.lambda_("i", slow)]), items=items(), max_concurrency=limit)
    result = await _beside(make_runner(), Workflow("w", [step, Step.lambda_("last", slow)]))
    assert (result.status, result.error_step, result.error_category) == ("failed", "map", "CONFIGURATION")
    assert "the items of step 'map' are yielded inside a cancel scope" in str(result.error)


async def test_one_worker_reads_items_inside_a_task_group(make_runner: MakeRunner) -> None:
    iterator = Workflow("i", [Step.lambda_("i", slow)])
    step = Step.map("map", iterator=iterator, items=_in_a_group(), max_concurrency=1)
    result = await _beside(make_runner(), Workflow("w", [step, Step.lambda_("last", slow)]))
    assert (result.status, result.context.get_output("map")["succeeded"]) == ("completed", 4)


async def asyncio_timeout(context: WorkflowContext, config: Config) -> object:
    timeout = asyncio.timeout(0.5)
    await timeout.__aenter__()
    LEFT.append(timeout)
    return {"x": 1}


async def asyncio_group(context: WorkflowContext, config: Config) -> object:
    tasks = asyncio.TaskGroup()
    await tasks.__aenter__()
    LEFT.append(tasks)
    LEFT.append(tasks.create_task(_fails()))
    return {"x": 1}


@pytest.mark.parametrize("is_item", [False, True])
@pytest.mark.parametrize("handler", [asyncio_timeout, asyncio_group], ids=lambda each: each.__name__)
async def test_what_asyncio_cancels_later_stops_the_run_and_nothing_else(
    make_runner: MakeRunner, caplog: pytest.LogCaptureFixture, handler: Handler, is_item: bool
) -> None:
    """asyncio cannot be asked for what is open; when it cancels the task, the run is stopped and can be resumed."""
    steps: list[Step] = [Step.lambda_("leaves", handler), Step.lambda_("then", slow)]
    if is_item:
        steps = [Step.map("map", iterator=Workflow("i", steps), items=[1, 2])]
    result = await _beside(make_runner(), Workflow("w", steps))
    assert (result.status, result.stop_reason) == ("stopped", "cancelled")
    assert "run r is stopped: a step has cancelled its own task, or a step has left an asyncio.timeout" in caplog.text
