"""Middleware: its order, its arguments, and the results that it can change."""

from collections.abc import Mapping
from typing import Any

import anyio
import pytest

from spine_async import (
    ErrorPolicy,
    LocalDispatcher,
    RetryPolicy,
    Step,
    StepResult,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
)

pytestmark = pytest.mark.anyio


async def work(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"n": 1}


async def reads_params(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"params": dict(context.params)}


async def test_the_first_registered_is_outermost(runner: WorkflowRunner) -> None:
    seen = []

    def noting(name: str) -> Any:
        async def middleware(step: Any, context: WorkflowContext, next_fn: Any) -> StepResult:
            seen.append(f"{name} before {step.name}")
            result = await next_fn(step, context)
            seen.append(f"{name} after {step.name}")
            return result

        return middleware

    runner.middleware(noting("outer"))
    runner.middleware(noting("inner"))
    await runner.execute(Workflow("w", [Step.lambda_("a", work), Step.lambda_("b", work)]))
    expected = ["outer before {0}", "inner before {0}", "inner after {0}", "outer after {0}"]
    assert seen == [line.format(name) for name in "ab" for line in expected]


async def test_it_is_a_decorator(runner: WorkflowRunner) -> None:
    calls = []

    @runner.middleware
    async def counting(step: Any, context: WorkflowContext, next_fn: Any) -> StepResult:
        calls.append(step.name)
        return await next_fn(step, context)

    assert callable(counting)
    await runner.execute(Workflow("w", [Step.lambda_("a", work)]))
    assert calls == ["a"]


async def test_it_may_change_the_result(runner: WorkflowRunner) -> None:
    @runner.middleware
    async def stamping(step: Any, context: WorkflowContext, next_fn: Any) -> StepResult:
        result = await next_fn(step, context)
        assert result.success
        return StepResult.ok({**result.output, "stamp": step.name})

    result = await runner.execute(Workflow("w", [Step.lambda_("a", work)]))
    assert result.context.get_output("a") == {"n": 1, "stamp": "a"}


async def test_it_may_answer_in_place_of_the_step(runner: WorkflowRunner) -> None:
    calls = []

    async def never(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        calls.append(1)

    @runner.middleware
    async def cached(step: Any, context: WorkflowContext, next_fn: Any) -> StepResult:
        return StepResult.ok({"cached": True})

    result = await runner.execute(Workflow("w", [Step.lambda_("a", never)]))
    assert calls == []
    assert result.context.get_output("a") == {"cached": True}


async def test_it_may_turn_a_success_into_a_failure(runner: WorkflowRunner) -> None:
    @runner.middleware
    async def strict(step: Any, context: WorkflowContext, next_fn: Any) -> StepResult:
        await next_fn(step, context)
        return StepResult.fail("not on a Sunday", category="CONFIGURATION")

    result = await runner.execute(Workflow("w", [Step.lambda_("a", work)]))
    assert (result.status, result.error_step, result.error_category) == ("failed", "a", "CONFIGURATION")
    assert "not on a Sunday" in str(result.error)


async def test_it_may_turn_a_failure_into_a_success(runner: WorkflowRunner) -> None:
    async def breaks(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        raise ValueError("odd")

    @runner.middleware
    async def forgiving(step: Any, context: WorkflowContext, next_fn: Any) -> StepResult:
        result = await next_fn(step, context)
        return result if result.success else StepResult.ok({"forgiven": True})

    result = await runner.execute(Workflow("w", [Step.lambda_("a", breaks)]))
    assert result.status == "completed"
    assert result.context.get_output("a") == {"forgiven": True}


async def test_it_may_hand_the_step_another_context(runner: WorkflowRunner) -> None:
    @runner.middleware
    async def adding(step: Any, context: WorkflowContext, next_fn: Any) -> StepResult:
        return await next_fn(step, context.with_params({"added": step.name}))

    result = await runner.execute(Workflow("w", [Step.lambda_("a", reads_params)]))
    assert result.context.get_output("a") == {"params": {"added": "a"}}


async def test_it_wraps_the_whole_series_of_attempts(runner: WorkflowRunner) -> None:
    calls = []
    answers = []

    async def flaky(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, int]:
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionError("gone")
        return {"calls": len(calls)}

    @runner.middleware
    async def counting(step: Any, context: WorkflowContext, next_fn: Any) -> StepResult:
        result = await next_fn(step, context)
        answers.append(result.output)
        return result

    retry = RetryPolicy(max_attempts=3, initial_delay=0, jitter=False)
    await runner.execute(Workflow("w", [Step.lambda_("a", flaky, retry=retry)]))
    assert len(calls) == 3
    assert answers == [{"calls": 3}]


async def test_it_wraps_steps_of_every_kind(make_runner: Any) -> None:
    dispatcher = LocalDispatcher()
    dispatcher.pipeline("load")(lambda params: {"rows": 1})
    runner = make_runner(dispatcher=dispatcher)
    seen = []

    @runner.middleware
    async def noting(step: Any, context: WorkflowContext, next_fn: Any) -> StepResult:
        seen.append(step.name)
        return await next_fn(step, context)

    steps = [
        Step.lambda_("lambda", work),
        Step.pipeline("pipeline", "load"),
        Step.choice("choice", lambda context: False, "lambda"),
        Step.wait("wait", 0),
        Step.map("map", items=[1, 2], iterator=Workflow(steps=[Step.lambda_("inside", work)])),
    ]
    result = await runner.execute(Workflow("w", steps))
    assert result.status == "completed"
    assert seen == ["lambda", "pipeline", "choice", "wait", "map", "inside", "inside"]


async def test_it_reads_the_config_of_a_step(runner: WorkflowRunner) -> None:
    limits = []

    @runner.middleware
    async def limiting(step: Any, context: WorkflowContext, next_fn: Any) -> StepResult:
        limits.append(step.config.get("timeout", 300))
        return await next_fn(step, context)

    await runner.execute(Workflow("w", [Step.lambda_("a", work, {"timeout": 5}), Step.lambda_("b", work)]))
    assert limits == [5, 300]


async def test_one_that_raises_fails_the_step(runner: WorkflowRunner) -> None:
    """`execute` does not raise because a step failed."""

    @runner.middleware
    async def breaks(step: Any, context: WorkflowContext, next_fn: Any) -> StepResult:
        if step.name == "a":
            raise LookupError("no such tenant")
        return await next_fn(step, context)

    steps = [Step.lambda_("a", work, on_error=ErrorPolicy.CONTINUE), Step.lambda_("b", work)]
    result = await runner.execute(Workflow("w", steps))
    assert result.failed_steps == ["a"]
    assert result.completed_steps == ["b"]


async def test_a_runner_keeps_its_own(make_runner: Any) -> None:
    seen = []
    first, second = make_runner(), make_runner()

    @first.middleware
    async def noting(step: Any, context: WorkflowContext, next_fn: Any) -> StepResult:
        seen.append(step.name)
        return await next_fn(step, context)

    await second.execute(Workflow("w", [Step.lambda_("a", work)]))
    assert seen == []


async def test_one_that_sets_a_limit_of_its_own(runner: WorkflowRunner) -> None:
    """The second example of the specification, for an async library."""

    async def slow(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        await anyio.sleep_forever()

    @runner.middleware
    async def limiting(step: Any, context: WorkflowContext, next_fn: Any) -> StepResult:
        with anyio.move_on_after(step.config.get("timeout", 300)):
            return await next_fn(step, context)
        return StepResult.fail(f"Step {step.name} timed out", category="TIMEOUT")

    steps = [Step.lambda_("a", work), Step.lambda_("b", slow, {"timeout": 0.01})]
    with anyio.fail_after(10):
        result = await runner.execute(Workflow("w", steps))
    assert (result.status, result.error_step, result.error_category) == ("failed", "b", "TIMEOUT")
    assert result.completed_steps == ["a"]


@pytest.mark.parametrize(("step", "context"), [(None, "given"), ("given", None), ("given", {"run_id": "r"})])
async def test_what_is_no_step_or_no_context_is_not_passed_on(runner: WorkflowRunner, step: Any, context: Any) -> None:
    @runner.middleware
    async def passes_on(own: Any, own_context: WorkflowContext, next_fn: Any) -> StepResult:
        return await next_fn(own if step == "given" else step, own_context if context == "given" else context)

    result = await runner.execute(Workflow("w", [Step.lambda_("a", work)]))
    assert (result.status, result.error_category) == ("failed", "CONFIGURATION")
    assert "step 'a': middleware called next_fn with" in str(result.error)
