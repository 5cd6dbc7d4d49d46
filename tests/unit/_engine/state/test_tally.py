"""Counts of completed, skipped and failed steps."""

from __future__ import annotations

import pytest

from spine_async._engine.state.tally import Tally
from spine_async._model.status import StepStatus, StepType
from spine_async._model.workflow_result import StepMetric
from tests.unit._engine.builders import NOW, past_visit

COMPLETED, SKIPPED, FAILED = StepStatus.COMPLETED, StepStatus.SKIPPED, StepStatus.FAILED


@pytest.mark.parametrize(
    ("visits", "completed", "skipped", "failed"),
    [
        ([], [], [], []),
        ([("b", COMPLETED, ()), ("a", COMPLETED, ()), ("b", COMPLETED, ())], ["b", "a"], [], []),
        ([("a", SKIPPED, ()), ("b", COMPLETED, ())], ["b"], ["a"], []),
        ([("a", SKIPPED, ()), ("a", COMPLETED, ())], ["a"], [], []),
        ([("a", COMPLETED, ()), ("a", SKIPPED, ())], ["a"], [], []),
        ([("a", COMPLETED, ("b", "c")), ("d", COMPLETED, ())], ["a", "d"], ["b", "c"], []),
        ([("a", COMPLETED, ("b",)), ("b", COMPLETED, ())], ["a", "b"], [], []),
        ([("a", FAILED, ()), ("b", COMPLETED, ())], ["b"], [], ["a"]),
        ([("a", FAILED, ()), ("a", COMPLETED, ())], ["a"], [], []),
        ([("a", FAILED, ()), ("b", FAILED, ()), ("a", SKIPPED, ())], [], ["a"], ["b"]),
        ([("a", COMPLETED, ()), ("a", FAILED, ())], ["a"], [], ["a"]),
    ],
)
def test_each_step_is_counted_by_its_visits(
    visits: list[tuple[str, StepStatus, tuple[str, ...]]], completed: list[str], skipped: list[str], failed: list[str]
) -> None:
    tally = Tally()
    for name, status, jumped_over in visits:
        tally.add(past_visit(name, status=status), jumped_over)
    assert (tally.completed, tally.skipped, tally.failed) == (completed, skipped, failed)
    assert [(each.name, each.status) for each in tally.metrics] == [(name, status) for name, status, _ in visits]


def test_a_metric_has_the_figures_of_the_row() -> None:
    tally = Tally()
    tally.add(past_visit("each", kind=StepType.MAP, attempts=3, duration_ms=2.5, output_size=9), ())
    assert tally.metrics == [StepMetric("each", StepType.MAP, COMPLETED, 3, NOW, 2.5, 9)]


def test_the_failure_that_ends_the_run_is_counted_without_a_row() -> None:
    tally = Tally()
    metric = StepMetric("a", StepType.LAMBDA, FAILED, 1, NOW, 1.0, 0)
    tally.add_failure(metric)
    assert (tally.completed, tally.failed, tally.metrics) == ([], ["a"], [metric])
