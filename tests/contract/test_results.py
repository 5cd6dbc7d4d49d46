"""The result of `execute`: its fields and its metrics."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import anyio
import pytest

from spine_async import (
    ErrorPolicy,
    LocalDispatcher,
    SpineError,
    Step,
    StepResult,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
)

pytestmark = pytest.mark.anyio


async def work(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"text": "x" * 1000}


async def breaks(context: WorkflowContext, config: Mapping[str, Any]) -> None:
    raise LookupError("no such table")


async def test_a_completed_run(runner: WorkflowRunner) -> None:
    result = await runner.execute(Workflow("w", [Step.lambda_("a", work), Step.lambda_("b", work)]))
    assert result.status == "completed"
    assert isinstance(result.status, str)
    assert result.workflow_name == "w"
    assert result.run_id
    assert (result.completed_steps, result.skipped_steps, result.failed_steps) == (["a", "b"], [], [])
    assert result.total_steps == 2
    assert (result.error_step, result.error, result.error_category, result.stop_reason) == (None, None, None, None)
    assert isinstance(result.context, WorkflowContext)


async def test_the_times(runner: WorkflowRunner) -> None:
    result = await runner.execute(Workflow("w", [Step.wait("a", 0.01)]))
    assert isinstance(result.started_at, datetime)
    assert isinstance(result.completed_at, datetime)
    assert result.started_at.utcoffset() is not None
    assert result.completed_at.utcoffset() is not None
    assert result.started_at <= result.completed_at
    assert 9 <= result.duration_ms < 10_000


async def test_the_metrics_of_each_visit(make_runner: Any) -> None:
    dispatcher = LocalDispatcher()
    dispatcher.pipeline("load")(lambda params: {"rows": 1})
    steps = [
        Step.lambda_("a", work),
        Step.pipeline("b", "load"),
        Step.choice("c", lambda context: True, "d"),
        Step.wait("d", 0.01),
        Step.map("e", items=[], iterator=work),
    ]
    result = await make_runner(dispatcher=dispatcher).execute(Workflow("w", steps))
    metrics = result.step_metrics
    assert [metric.name for metric in metrics] == list("abcde")
    assert [str(metric.step_type) for metric in metrics] == ["lambda", "pipeline", "choice", "wait", "map"]
    assert {str(metric.status) for metric in metrics} == {"completed"}
    assert {metric.attempts for metric in metrics} == {1}
    assert all(metric.started_at.utcoffset() is not None for metric in metrics)
    assert [metric.started_at for metric in metrics] == sorted(metric.started_at for metric in metrics)
    assert 9 <= metrics[3].duration_ms < 10_000
    assert 1000 <= metrics[0].output_size < 1100
    assert metrics[1].output_size < 100


async def test_the_metrics_of_a_failure(runner: WorkflowRunner) -> None:
    result = await runner.execute(Workflow("w", [Step.lambda_("a", work), Step.lambda_("b", breaks)]))
    assert [(metric.name, str(metric.status)) for metric in result.step_metrics] == [
        ("a", "completed"),
        ("b", "failed"),
    ]


async def test_the_metrics_survive_a_resume(runner: WorkflowRunner) -> None:
    mended = []

    async def breaks_once(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        if not mended:
            raise ValueError("once")

    first = await runner.execute(Workflow("w", [Step.lambda_("a", work), Step.lambda_("b", breaks_once)]))
    mended.append(True)
    resumed = await runner.resume(first.run_id)
    assert resumed.completed_steps == ["a", "b"]
    assert [metric.name for metric in resumed.step_metrics if str(metric.status) == "completed"] == ["a", "b"]


async def test_a_failed_run(runner: WorkflowRunner) -> None:
    result = await runner.execute(Workflow("w", [Step.lambda_("a", work), Step.lambda_("b", breaks)]))
    assert result.status == "failed"
    assert (result.completed_steps, result.failed_steps) == (["a"], ["b"])
    assert (result.error_step, result.error_category) == ("b", "INTERNAL")
    assert "LookupError" in str(result.error)
    assert "no such table" in str(result.error)
    assert result.total_steps == 2


async def test_raise_for_status_on_a_failed_run(runner: WorkflowRunner) -> None:
    result = await runner.execute(Workflow("nightly", [Step.lambda_("load", breaks)]), run_id="r17")
    with pytest.raises(SpineError, match="no such table") as raised:
        result.raise_for_status()
    assert "load" in str(raised.value)
    assert "r17" in str(raised.value)


async def test_raise_for_status_on_a_completed_run(runner: WorkflowRunner) -> None:
    result = await runner.execute(Workflow("w", [Step.lambda_("a", work)]))
    result.raise_for_status()


async def test_failures_passed_over_are_listed(runner: WorkflowRunner) -> None:
    steps = [
        Step.lambda_("a", breaks, on_error=ErrorPolicy.CONTINUE),
        Step.lambda_("b", work),
        Step.lambda_("c", breaks, on_error=ErrorPolicy.CONTINUE),
    ]
    result = await runner.execute(Workflow("w", steps))
    assert result.status == "completed"
    assert result.failed_steps == ["a", "c"]
    assert result.completed_steps == ["b"]
    result.raise_for_status()


async def test_the_order_is_that_of_first_completion(runner: WorkflowRunner) -> None:
    async def update(context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
        return StepResult.ok(context_updates={"n": context.get_param("n", 0) + 1})

    steps = [
        Step.lambda_("first", update, next_step="third"),
        Step.lambda_("second", update, next_step="end"),
        Step.lambda_("third", update),
        Step.choice("back", lambda context: context.params["n"] < 4, "first", "second"),
        Step.lambda_("end", update),
    ]
    result = await runner.execute(Workflow("w", steps))
    assert result.completed_steps == ["first", "third", "back", "second", "end"]
    assert result.context.get_param("n") == 6


async def test_two_runs_at_once_do_not_mix(runner: WorkflowRunner) -> None:
    both = []

    async def meets(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
        await anyio.sleep(0.001)
        return {"n": context.params["n"]}

    workflow = Workflow("w", [Step.lambda_("a", meets), Step.lambda_("b", meets)])

    async def run(number: int) -> None:
        both.append((number, await runner.execute(workflow, params={"n": number})))

    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(run, number)
    assert len({result.run_id for _, result in both}) == 10
    for number, result in both:
        assert result.context.get_output("a") == result.context.get_output("b") == {"n": number}
