"""Validates durations and times that are given as options."""

from __future__ import annotations

import math
import sys
from datetime import UTC, datetime, timedelta

from spine_async._model.shown import shown

MAX_SECONDS = 10_000_000_000
"""Longest wait, timeout or `retry_after`, about 317 years; a later end may have no representation as a date."""


def to_seconds(value: float | timedelta) -> float:
    """A duration in seconds, from a number of seconds or a `timedelta`.

    Raises:
        ValueError: It is not a finite number of seconds of at least 0.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not is_number or not 0 <= seconds <= _MAX_FLOAT:
        is_long = isinstance(value, int) and value.bit_length() > _SHOWN_BITS
        text = "an integer of this size" if is_long else shown(value)
        raise ValueError(f"{text} is not a number of seconds of at least 0")
    return float(seconds)


_MAX_FLOAT = sys.float_info.max
_SHOWN_BITS = 200


def option_seconds(value: object, option: str) -> float:
    """The value of the option `option` in seconds.

    Raises:
        ValueError: It is not a duration, or longer than `MAX_SECONDS`; the message names the option.
    """
    try:
        seconds = to_seconds(value)  # type: ignore[arg-type]
    except ValueError as exc:
        raise ValueError(f"{option}: {exc}") from None
    if seconds > MAX_SECONDS:
        raise ValueError(f"{option} is {seconds:g} s; at most {MAX_SECONDS:,} s are possible")
    return seconds


def positive_option_seconds(value: object, option: str) -> float:
    """The value of the option `option` in seconds, above 0.

    Raises:
        ValueError: It is not a duration, or 0; the message names the option.
    """
    seconds = option_seconds(value, option)
    if seconds == 0:
        raise ValueError(f"{option} is 0; it must be a number of seconds above 0, or None for no limit")
    return seconds


def limit_option_seconds(value: object, option: str) -> float:
    """As `positive_option_seconds`; `math.inf` is valid too, and means no limit."""
    if isinstance(value, float) and value == math.inf:
        return math.inf
    return positive_option_seconds(value, option)


def as_moment(value: object) -> datetime:
    """An aware datetime, from a datetime or ISO 8601 text.

    Raises:
        ValueError: It is neither, or has no time zone.
    """
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError(f"until is {shown(value)}; text must be ISO 8601, such as 2026-01-10T12:00:00+00:00") from None
    if not isinstance(moment, datetime):
        message = f"until is of type {type(value).__name__}; it must be a datetime, ISO 8601 text or a function"
        raise ValueError(message)  # noqa: TRY004 - all invalid options raise ValueError
    in_utc(moment)
    return moment


def in_utc(moment: datetime, option: str = "until") -> datetime:
    """A plain datetime in UTC, from an aware datetime, which may be of a subclass or have a custom time zone.

    Raises:
        ValueError: It is no datetime, has no time zone, or lies outside of the years 1 to 9999 in UTC; the message
            names the option.
    """
    if not isinstance(moment, datetime):
        raise ValueError(f"{option} is of type {type(moment).__name__}; it must be an aware datetime")  # noqa: TRY004 - as all
    try:
        offset = moment.utcoffset()
        plain = datetime(*moment.timetuple()[:6], moment.microsecond, tzinfo=UTC) - (offset or timedelta())
    except Exception as exc:  # noqa: BLE001 - the time zone is user code
        raise ValueError(f"{option} cannot be expressed in UTC: {type(exc).__name__}") from None
    if offset is None:
        raise ValueError(f"{option} has no time zone; pass an aware datetime, such as datetime.now(UTC)")
    return plain
