"""Texts for times, durations, numbers and values. Jinja escapes what these functions return."""

from __future__ import annotations

import json
from datetime import UTC, datetime

MOST_CHARACTERS = 20_000
"""Longest JSON text of a value that a page shows."""

_UNITS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))


def duration(seconds: float | None) -> str:
    """A duration in its two largest units.

    Example:
        >>> duration(0.0123), duration(4.2), duration(75), duration(90_000)
        ('12 ms', '4.2 s', '1 min 15 s', '1 d 1 h')
    """
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.001 or seconds == 0 else "< 1 ms"
    if seconds < 60:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    smaller = {"d": (3_600.0, "h"), "h": (60.0, "min"), "min": (1.0, "s")}
    size, unit = next((size, unit) for size, unit in _UNITS if seconds >= size)
    below, name = smaller[unit]
    rest = int(seconds % size // below)
    return f"{int(seconds // size)} {unit}" + (f" {rest} {name}" if rest else "")


def ago(at: datetime | None, now: datetime) -> str:
    """How long ago something was, or in how long it will be.

    Example:
        >>> ago(datetime(2026, 1, 1, 12, tzinfo=UTC), datetime(2026, 1, 1, 12, 5, tzinfo=UTC))
        '5 min ago'
    """
    if at is None:
        return "–"
    seconds = (now - at).total_seconds()
    if abs(seconds) < 1:
        return "now"
    size, unit = next(((size, unit) for size, unit in _UNITS if abs(seconds) >= size), (1.0, "s"))
    text = f"{int(abs(seconds) // size)} {unit}"
    return f"{text} ago" if seconds > 0 else f"in {text}"


def timestamp(at: datetime) -> str:
    """A time in UTC to the millisecond."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC"


def clock(at: datetime) -> str:
    """The time of day in UTC to the millisecond."""
    return at.astimezone(UTC).strftime("%H:%M:%S.%f")[:-3]


def number(count: int, *, is_exact: bool = True) -> str:
    """A number with separators; `+` follows if there may be more.

    Example:
        >>> number(12_345), number(10_000, is_exact=False)
        ('12,345', '10,000+')
    """
    return f"{count:,}" + ("" if is_exact else "+")


def as_json(value: object) -> str:
    """A value as indented JSON, cut if it is long."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    if len(text) <= MOST_CHARACTERS:
        return text
    return f"{text[:MOST_CHARACTERS]}\n… {len(text) - MOST_CHARACTERS:,} more characters"


def as_line(value: object, limit: int = 200) -> str:
    """A value as JSON on one line, cut if it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= limit else text[: limit - 1] + "…"
