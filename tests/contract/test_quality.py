"""Quality metrics, and the thresholds a runner enforces."""

import re
from collections.abc import Mapping
from typing import Any

import pytest

from spine_async import (
    ErrorPolicy,
    QualityMetrics,
    QualityThresholds,
    RetryPolicy,
    Step,
    StepResult,
    Workflow,
    WorkflowContext,
    WorkflowResult,
    WorkflowRunner,
)

pytestmark = pytest.mark.anyio


async def run(runner: WorkflowRunner, metrics: QualityMetrics, thresholds: QualityThresholds) -> WorkflowResult:
    async def checks(context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
        return StepResult.ok({"checked": True}, quality=metrics)

    async def after(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        return None

    steps = [Step.lambda_("check", checks, quality_thresholds=thresholds), Step.lambda_("after", after)]
    return await runner.execute(Workflow("w", steps))


def test_the_rates() -> None:
    metrics = QualityMetrics(record_count=200, valid_count=150, invalid_count=50, null_count=20)
    assert metrics.valid_rate == 0.75
    assert metrics.null_rate == 0.1


def test_what_metrics_hold() -> None:
    metrics = QualityMetrics(
        record_count=2,
        valid_count=1,
        invalid_count=1,
        null_count=0,
        passed=False,
        custom_metrics={"spread": 0.5},
        failure_reasons=["one row has no symbol"],
    )
    assert metrics.passed is False
    assert dict(metrics.custom_metrics) == {"spread": 0.5}
    assert list(metrics.failure_reasons) == ["one row has no symbol"]


METRICS = QualityMetrics(record_count=100, valid_count=90, invalid_count=10, null_count=5)


@pytest.mark.parametrize(
    "thresholds",
    [
        QualityThresholds(),
        QualityThresholds(min_valid_rate=0.9),
        QualityThresholds(max_null_rate=0.05),
        QualityThresholds(min_record_count=100),
        QualityThresholds(max_record_count=100),
        QualityThresholds(min_valid_rate=0.5, max_null_rate=0.5, min_record_count=1, max_record_count=1000),
    ],
)
async def test_metrics_within_the_thresholds(runner: WorkflowRunner, thresholds: QualityThresholds) -> None:
    result = await run(runner, METRICS, thresholds)
    assert result.error is None
    assert result.completed_steps == ["check", "after"]


@pytest.mark.parametrize(
    ("thresholds", "named"),
    [
        (QualityThresholds(min_valid_rate=0.91), ["valid.rate"]),
        (QualityThresholds(max_null_rate=0.04), ["null.rate"]),
        (QualityThresholds(min_record_count=101), ["record.count"]),
        (QualityThresholds(max_record_count=99), ["record.count"]),
        (QualityThresholds(min_valid_rate=0.95, max_null_rate=0.01), ["valid.rate", "null.rate"]),
        (
            QualityThresholds(min_valid_rate=0.95, max_null_rate=0.01, min_record_count=500),
            ["valid.rate", "null.rate", "record.count"],
        ),
    ],
)
async def test_each_violation_is_named(runner: WorkflowRunner, thresholds: QualityThresholds, named: list[str]) -> None:
    result = await run(runner, METRICS, thresholds)
    assert (result.status, result.error_step, result.error_category) == ("failed", "check", "DATA_QUALITY")
    assert result.completed_steps == []
    text = str(result.error)
    for pattern in named:
        assert re.search(pattern, text)


async def test_what_is_not_violated_is_not_named(runner: WorkflowRunner) -> None:
    result = await run(runner, METRICS, QualityThresholds(min_valid_rate=0.95, max_null_rate=0.9))
    assert "valid" in str(result.error)
    assert "null" not in str(result.error)


async def test_a_violation_may_be_passed_over_or_tried_again(runner: WorkflowRunner) -> None:
    counts = iter([10, 50, 100])

    async def checks(context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
        count = next(counts)
        return StepResult.ok({"count": count}, quality=QualityMetrics(record_count=count, valid_count=count))

    retry = RetryPolicy(max_attempts=3, initial_delay=0, jitter=False, retryable_errors=("DATA_QUALITY",))
    thresholds = QualityThresholds(min_record_count=100)
    step = Step.lambda_("check", checks, quality_thresholds=thresholds, retry=retry)
    result = await runner.execute(Workflow("w", [step]))
    assert result.context.get_output("check") == {"count": 100}

    counts = iter([10])
    step = Step.lambda_("check", checks, quality_thresholds=thresholds, on_error=ErrorPolicy.CONTINUE)
    result = await runner.execute(Workflow("w", [step]))
    assert (result.status, result.failed_steps) == ("completed", ["check"])


async def test_the_metrics_of_a_step_come_back_after_a_resume(make_runner: Any) -> None:
    seen = []

    async def checks(context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
        return StepResult.ok(quality=METRICS)

    async def looks(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        seen.append(context.get_quality("check"))
        if len(seen) == 1:
            raise ValueError("once")

    workflow = Workflow("w", [Step.lambda_("check", checks), Step.lambda_("look", looks)])
    first = await make_runner().execute(workflow)
    result = await make_runner().resume(first.run_id, workflow=workflow)
    assert result.status == "completed"
    assert seen == [METRICS, METRICS]
    assert result.context.get_quality("check") == METRICS
