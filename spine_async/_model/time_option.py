"""Validates durations and times that are given as options."""

from __future__ import annotations

import math
from datetime import datetime, timedelta


def to_seconds(value: float | timedelta) -> float:
    """A duration in seconds, from a number of seconds or a `timedelta`.

    Raises:
        ValueError: It is not a finite number of seconds of at least 0.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"{value!r} is not a number of seconds of at least 0")
    return float(seconds)


def option_seconds(value: object, option: str) -> float:
    """The value of the option `option` in seconds.

    Raises:
        ValueError: It is not a duration; the message names the option.
    """
    try:
        return to_seconds(value)  # type: ignore[arg-type]
    except ValueError as exc:
        raise ValueError(f"{option}: {exc}") from None


def positive_option_seconds(value: object, option: str) -> float:
    """The value of the option `option` in seconds, above 0.

    Raises:
        ValueError: It is not a duration, or 0; the message names the option.
    """
    seconds = option_seconds(value, option)
    if seconds == 0:
        raise ValueError(f"{option} is 0; it must be a number of seconds above 0, or None for no limit")
    return seconds


def as_moment(value: object) -> datetime:
    """An aware datetime, from a datetime or ISO 8601 text.

    Raises:
        ValueError: It is neither, or has no time zone.
    """
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError(f"until is {value!r}; text must be ISO 8601, like 2026-01-10T12:00:00+00:00") from None
    if not isinstance(moment, datetime):
        message = f"until is of type {type(value).__name__}; it must be a datetime, ISO 8601 text or a function"
        raise ValueError(message)  # noqa: TRY004 - all invalid options raise ValueError
    if moment.tzinfo is None:
        raise ValueError("until has no time zone; give an aware datetime, for instance in datetime.UTC")
    return moment
