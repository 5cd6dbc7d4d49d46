from __future__ import annotations

from typing import Any

import pytest

from spine_async._model.quality import QualityMetrics, QualityThresholds
from spine_async.errors import InvalidPolicyError


def test_rates_are_shares_of_the_records() -> None:
    metrics = QualityMetrics(record_count=8, valid_count=6, invalid_count=2, null_count=1)
    assert (metrics.valid_rate, metrics.null_rate) == (0.75, 0.125)


def test_no_records_are_all_valid() -> None:
    assert (QualityMetrics().valid_rate, QualityMetrics().null_rate) == (1.0, 0.0)


def test_metrics_keep_copies_of_what_they_are_given() -> None:
    custom, reasons = {"a": 1}, ["x"]
    metrics = QualityMetrics(custom_metrics=custom, failure_reasons=reasons)  # type: ignore[arg-type]
    custom["a"] = 2
    reasons.append("y")
    assert metrics.custom_metrics == {"a": 1}
    assert metrics.failure_reasons == ("x",)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"min_valid_rate": 1.1}, "min_valid_rate is 1.1; it must lie between 0 and 1"),
        ({"max_null_rate": -0.1}, "max_null_rate is -0.1; it must lie between 0 and 1"),
        ({"min_valid_rate": float("nan")}, "min_valid_rate is nan; it must lie between 0 and 1"),
        ({"min_record_count": -1}, "min_record_count is -1; it must not be negative"),
        ({"max_record_count": -5}, "max_record_count is -5; it must not be negative"),
    ],
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidPolicyError) as caught:
        QualityThresholds(**limits)
    assert str(caught.value) == message


def test_each_broken_limit_is_named() -> None:
    limits = QualityThresholds(min_valid_rate=0.9, max_null_rate=0.1, min_record_count=100, max_record_count=5)
    metrics = QualityMetrics(
        record_count=10, valid_count=5, null_count=2, passed=False, failure_reasons=("late", "old")
    )
    assert limits.violations(metrics) == [
        "the step reported passed=False: late; old",
        "valid_rate 0.5 is below the minimum of 0.9",
        "null_rate 0.2 is above the maximum of 0.1",
        "record_count 10 is below the minimum of 100",
        "record_count 10 is above the maximum of 5",
    ]


def test_limits_that_are_met_exactly_are_kept() -> None:
    limits = QualityThresholds(min_valid_rate=0.5, max_null_rate=0.2, min_record_count=10, max_record_count=10)
    assert limits.violations(QualityMetrics(record_count=10, valid_count=5, null_count=2)) == []


def test_no_metrics_break_any_limits() -> None:
    assert QualityThresholds().violations(None) == ["the step reported no quality metrics"]
