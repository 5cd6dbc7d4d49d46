"""Quality metrics of a step's data, and their limits."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

from spine_async._model.private_copy import private_members
from spine_async._model.shown import shown
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

    Raises:
        InvalidPolicyError: A count is not a whole number of at least 0, or another value has a wrong type.
    """

    record_count: int = 0
    valid_count: int = 0
    invalid_count: int = 0
    null_count: int = 0
    passed: bool = True
    custom_metrics: Mapping[str, object] = field(default_factory=dict)
    failure_reasons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in _COUNTS:
            object.__setattr__(self, name, _as_count(name, getattr(self, name)))
        object.__setattr__(self, "passed", _as_flag("passed", self.passed))
        object.__setattr__(self, "custom_metrics", _as_metrics(self.custom_metrics))
        object.__setattr__(self, "failure_reasons", _as_reasons(self.failure_reasons))

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
            if rate is not None and not (_is_number(rate) and 0 <= rate <= 1):
                raise InvalidPolicyError(f"{name} is {shown(rate)}; it must lie between 0 and 1")
        for name in ("min_record_count", "max_record_count"):
            count = getattr(self, name)
            if count is not None and not (_is_number(count) and count >= 0):
                raise InvalidPolicyError(f"{name} is {shown(count)}; it must not be negative")

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
    return f"the step reported passed=False{f': {reasons}' if reasons else ''}"


def as_quality(given: object) -> QualityMetrics:
    """Quality metrics, from metrics or from a mapping of their fields.

    Raises:
        InvalidPolicyError: It is neither; the message names the type or the unknown fields.
    """
    if isinstance(given, QualityMetrics):
        return given
    known = [each.name for each in fields(QualityMetrics)]
    if not isinstance(given, Mapping):
        raise InvalidPolicyError(f"a value of type {type(given).__name__}; it must be a QualityMetrics")
    unknown = [key for key in given if key not in known]
    if unknown:
        shown = ", ".join(repr(key) for key in unknown)
        raise InvalidPolicyError(f"QualityMetrics has no {shown}; its fields are {', '.join(known)}")
    return QualityMetrics(**given)


_COUNTS = ("record_count", "valid_count", "invalid_count", "null_count")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _as_count(name: str, value: object) -> int:
    try:
        is_integral = isinstance(value, float) and value.is_integer()
        count = int(value) if is_integral else operator.index(value)  # type: ignore[call-overload, arg-type]
    except TypeError:
        raise InvalidPolicyError(
            f"{name} is of type {type(value).__name__}; it must be a whole number of at least 0"
        ) from None
    if count < 0 or isinstance(value, bool):
        raise InvalidPolicyError(f"{name} is {shown(value)}; it must be a whole number of at least 0")
    return int(count)


def _as_flag(name: str, value: object) -> bool:
    if isinstance(value, int) and value in {0, 1}:
        return bool(value)
    raise InvalidPolicyError(f"{name} is of type {type(value).__name__}; it must be True or False")


def _as_metrics(value: object) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise InvalidPolicyError(f"custom_metrics is of type {type(value).__name__}; it must be a mapping")
    return private_members(value)


def _as_reasons(value: object) -> tuple[str, ...]:
    given = (value,) if isinstance(value, str) else value
    reasons = tuple(given) if isinstance(given, Iterable) else (given,)
    for each in reasons:
        if not isinstance(each, str):
            raise InvalidPolicyError(f"failure_reasons contains a {type(each).__name__}; it must contain strings")
    return reasons
