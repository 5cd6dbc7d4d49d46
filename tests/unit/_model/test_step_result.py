from __future__ import annotations

from typing import Any

import pytest

from spine_async._model.quality import QualityMetrics
from spine_async._model.status import StepStatus
from spine_async._model.step_result import StepEvent, StepResult, as_events
from spine_async.errors import StepError


def test_ok_holds_what_the_step_made() -> None:
    metrics = QualityMetrics(record_count=1)
    result = StepResult.ok({"n": 1}, {"day": 2}, metrics, ["noted"])
    assert (result.success, result.output, result.context_updates, result.quality) == (
        True,
        {"n": 1},
        {"day": 2},
        metrics,
    )
    assert result.events == (StepEvent("noted"),)
    assert result.status is StepStatus.COMPLETED


def test_fail_holds_what_went_wrong() -> None:
    result = StepResult.fail("no rows", "DATA_QUALITY", {"n": 0}, retry_after=3)
    assert (result.success, result.error, result.category, result.output) == (
        False,
        "no rows",
        "DATA_QUALITY",
        {"n": 0},
    )
    assert (result.retry_after, result.status) == (3, StepStatus.FAILED)


def test_fail_takes_an_exception() -> None:
    error = ValueError("no")
    result = StepResult.fail(error)
    assert (result.error, result.category, result.exception) == ("ValueError: no", "INTERNAL", error)


def test_skip_and_stop_are_successes_with_a_reason() -> None:
    skipped, stopped = StepResult.skip("closed", {"n": 0}), StepResult.stop("enough")
    assert (skipped.success, skipped.skip_reason, skipped.output) == (True, "closed", {"n": 0})
    assert (stopped.success, stopped.stop_reason) == (True, "enough")
    assert (skipped.status, stopped.status) == (StepStatus.SKIPPED, StepStatus.COMPLETED)


def test_an_exception_becomes_a_failure() -> None:
    result = StepResult.from_exception(StepError("quota", "DEPENDENCY", retry_after=30))
    assert (result.error, result.category, result.retry_after) == ("StepError: quota", "DEPENDENCY", 30)
    assert isinstance(result.as_exception, StepError)


def test_a_returned_failure_stands_for_a_step_error() -> None:
    error = StepResult.fail("no", "TRANSIENT").as_exception
    assert isinstance(error, StepError)
    assert (str(error), error.category) == ("no", "TRANSIENT")


@pytest.mark.parametrize(
    ("given", "event"),
    [
        ("noted", StepEvent("noted")),
        (StepEvent("noted", {"a": 1}), StepEvent("noted", {"a": 1})),
        ({"event_type": "noted"}, StepEvent("noted")),
        ({"type": "noted", "a": 1}, StepEvent("noted", {"a": 1})),
        ({"event_type": "noted", "a": 1, "metadata": {"b": 2}}, StepEvent("noted", {"a": 1, "b": 2})),
    ],
)
def test_an_event_has_three_forms(given: Any, event: StepEvent) -> None:
    assert as_events([given]) == (event,)


def test_no_events_are_none() -> None:
    assert as_events(None) == ()


@pytest.mark.parametrize("given", [7, {}, {"event_type": 7}, None])
def test_what_is_no_event_is_left_to_the_check_of_the_result(given: Any) -> None:
    assert as_events([given]) == (given,)
