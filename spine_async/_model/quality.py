"""Quality metrics of a step's data, and their limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from spine_async.errors import InvalidPolicyError


@dataclass(frozen=True, slots=True)
class QualityMetrics:
    """Counts of the records that a step processed.

    Args:
        record_count: Number of records.
        valid_count: Records that passed validation.
        invalid_count: Records that failed validation.
        null_count: Empty records (or cells).
        passed: Whether the step accepts the data.
        custom_metrics: Other metrics by name.
        failure_reasons: Why records were rejected.
    """

    record_count: int = 0
    valid_count: int = 0
    invalid_count: int = 0
    null_count: int = 0
    passed: bool = True
    custom_metrics: Mapping[str, object] = field(default_factory=dict)
    failure_reasons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "custom_metrics", dict(self.custom_metrics))
        object.__setattr__(self, "failure_reasons", tuple(self.failure_reasons))

    @property
    def valid_rate(self) -> float:
        """Share of valid records, 0 to 1; 1 if there are no records."""
        return self.valid_count / self.record_count if self.record_count else 1.0

    @property
    def null_rate(self) -> float:
        """Share of empty records, 0 to 1; 0 if there are no records."""
        return self.null_count / self.record_count if self.record_count else 0.0


@dataclass(frozen=True, slots=True)
class QualityThresholds:
    """Limits that the runner enforces on a step's `QualityMetrics`; None means no limit.

    Args:
        min_valid_rate: Minimum share of valid records, 0 to 1.
        max_null_rate: Maximum share of empty records, 0 to 1.
        min_record_count: Minimum number of records.
        max_record_count: Maximum number of records.

    Raises:
        InvalidPolicyError: A share lies outside of 0 to 1, or a count is negative.
    """

    min_valid_rate: float | None = None
    max_null_rate: float | None = None
    min_record_count: int | None = None
    max_record_count: int | None = None

    def __post_init__(self) -> None:
        for name in ("min_valid_rate", "max_null_rate"):
            rate = getattr(self, name)
            if rate is not None and not 0 <= rate <= 1:
                raise InvalidPolicyError(f"{name} is {rate!r}; a share lies between 0 and 1")
        for name in ("min_record_count", "max_record_count"):
            count = getattr(self, name)
            if count is not None and count < 0:
                raise InvalidPolicyError(f"{name} is {count!r}; a count is not negative")

    def violations(self, metrics: QualityMetrics | None) -> list[str]:
        """One message for each limit that `metrics` violate; empty if there are none."""
        if metrics is None:
            return ["the step reported no quality metrics"]
        checks = (
            (self.min_valid_rate, metrics.valid_rate, "valid_rate", False),
            (self.max_null_rate, metrics.null_rate, "null_rate", True),
            (self.min_record_count, metrics.record_count, "record_count", False),
            (self.max_record_count, metrics.record_count, "record_count", True),
        )
        broken = [] if metrics.passed else [_not_passed(metrics)]
        for limit, found, name, is_maximum in checks:
            if limit is not None and (found > limit if is_maximum else found < limit):
                bound = "above the maximum" if is_maximum else "below the minimum"
                broken.append(f"{name} {found:g} is {bound} of {limit:g}")
        return broken


def _not_passed(metrics: QualityMetrics) -> str:
    reasons = "; ".join(metrics.failure_reasons)
    return f"the step marked its data as not passed{f': {reasons}' if reasons else ''}"
