"""Results of a step (ok, fail, skip, stop), and their effects on the run."""

from collections.abc import Mapping
from typing import Any

import pytest

from spine_async import (
    ErrorCategory,
    QualityMetrics,
    RetryPolicy,
    Step,
    StepResult,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
)

pytestmark = pytest.mark.anyio


def answering(answer: Any) -> Any:
    async def handler(context: WorkflowContext, config: Mapping[str, Any]) -> Any:
        return answer

    return handler


async def reads_all(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"params": dict(context.params), "first": context.get_output("first")}


def test_ok_holds_what_it_was_given() -> None:
    quality = QualityMetrics(record_count=1, valid_count=1)
    answer = StepResult.ok({"a": 1}, context_updates={"b": 2}, quality=quality)
    assert answer.success
    assert answer.output == {"a": 1}
    assert answer.context_updates == {"b": 2}
    assert answer.quality == quality


def test_fail_is_no_success() -> None:
    answer = StepResult.fail("odd", category=ErrorCategory.DEPENDENCY, output={"seen": 3})
    assert not answer.success
    assert answer.output == {"seen": 3}
    assert "odd" in str(answer.error)


async def test_ok_without_arguments(runner: WorkflowRunner) -> None:
    result = await runner.execute(Workflow("w", [Step.lambda_("first", answering(StepResult.ok()))]))
    assert result.status == "completed"
    assert result.completed_steps == ["first"]


async def test_context_updates_are_merged_into_the_params_of_later_steps(runner: WorkflowRunner) -> None:
    updates = StepResult.ok({"a": 1}, context_updates={"limit": 5, "new": [1]})
    steps = [Step.lambda_("first", answering(updates)), Step.lambda_("second", reads_all)]
    result = await runner.execute(Workflow("w", steps), params={"limit": 1, "kept": True})
    seen = result.context.get_output("second")
    assert seen == {"params": {"limit": 5, "new": [1], "kept": True}, "first": {"a": 1}}
    assert result.context.get_param("limit") == 5


async def test_quality_is_seen_by_later_steps(runner: WorkflowRunner) -> None:
    metrics = QualityMetrics(record_count=10, valid_count=9, invalid_count=1)

    async def looks(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
        quality = context.get_quality("first")
        assert quality is not None
        return {"rate": quality.valid_rate, "count": quality.record_count}

    steps = [Step.lambda_("first", answering(StepResult.ok(quality=metrics))), Step.lambda_("second", looks)]
    result = await runner.execute(Workflow("w", steps))
    assert result.context.get_output("second") == {"rate": 0.9, "count": 10}


async def test_a_step_may_skip_itself(runner: WorkflowRunner) -> None:
    steps = [Step.lambda_("first", answering(StepResult.skip("holiday"))), Step.lambda_("second", reads_all)]
    result = await runner.execute(Workflow("w", steps))
    assert result.status == "completed"
    assert result.skipped_steps == ["first"]
    assert result.failed_steps == []
    assert "second" in result.completed_steps


async def test_a_skip_may_carry_an_output(runner: WorkflowRunner) -> None:
    skip = StepResult.skip("cached", output={"rows": 3})
    result = await runner.execute(Workflow("w", [Step.lambda_("first", answering(skip)), Step.lambda_("b", reads_all)]))
    assert result.context.get_output("b", "first") == {"rows": 3}


async def test_a_step_may_stop_the_run(runner: WorkflowRunner) -> None:
    stop = StepResult.stop("closed today", output={"rows": 0})
    steps = [Step.lambda_("first", answering(stop)), Step.lambda_("second", reads_all)]
    result = await runner.execute(Workflow("w", steps))
    assert result.status == "stopped"
    assert result.stop_reason == "closed today"
    assert result.error is None
    assert result.failed_steps == []
    assert "second" not in result.completed_steps
    assert result.context.get_output("first") == {"rows": 0}


async def test_a_stopped_run_goes_on_after_the_step_that_stopped_it(runner: WorkflowRunner) -> None:
    calls = []

    async def stops(context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
        calls.append(context.step_name)
        return StepResult.stop("closed today", output={"rows": 0})

    result = await runner.execute(Workflow("w", [Step.lambda_("first", stops), Step.lambda_("second", reads_all)]))
    resumed = await runner.resume(result.run_id)
    assert calls == ["first"]
    assert resumed.status == "completed"
    assert resumed.stop_reason is None
    assert resumed.context.get_output("second", "first") == {"rows": 0}


@pytest.mark.parametrize("answer", [StepResult.skip("holiday"), StepResult.stop("closed")])
async def test_neither_skip_nor_stop_is_tried_again(runner: WorkflowRunner, answer: StepResult) -> None:
    calls = []

    async def handler(context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
        calls.append(context.attempt)
        return answer

    policy = RetryPolicy(max_attempts=5, initial_delay=0, jitter=False, retryable_errors=tuple(ErrorCategory))
    await runner.execute(Workflow("w", [Step.lambda_("first", handler, retry=policy)]))
    assert len(calls) == 1
