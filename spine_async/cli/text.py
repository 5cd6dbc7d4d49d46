"""Values as short texts for a terminal."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from spine_async.cli.problem import CommandError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw]?)")


def printable(text: str) -> str:
    """The text on one line, without characters that control a terminal."""
    return "".join(each if each.isprintable() else _escape(each) for each in text)


def _escape(character: str) -> str:
    return " " if character in "\n\t" else character.encode("unicode_escape").decode()


def shortened(text: str, width: int) -> str:
    """The text, printable, in at most `width` characters."""
    line = printable(text)
    return line if len(line) <= width else f"{line[: width - 1]}…"


def time_text(moment: datetime | None) -> str:
    """A time in UTC, to the second; "" for none."""
    return "" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def duration_text(seconds: float) -> str:
    """A duration in the unit that suits it: `3 ms`, `1.24 s`, `2 m 05 s`, `3 h 20 m`, `4 d 2 h`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} m"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def parse_duration(text: str, option: str) -> timedelta:
    """The duration in a text such as `90`, `90s`, `15m`, `2h`, `7d` or `1.5h`.

    Raises:
        CommandError: The text is no duration.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise CommandError(f"{option} is {text!r}; give a duration such as 90s, 15m, 2h or 7d")
    number, unit = match.groups()
    try:
        return timedelta(seconds=float(number) * _UNITS[unit or "s"])
    except OverflowError:
        raise CommandError(f"{option} is {text!r}, which is too long") from None


def parse_time(text: str, option: str, now: datetime) -> datetime:
    """The time in a text: ISO 8601, in UTC unless it has an offset; or a duration before `now`, such as `2h`.

    Raises:
        CommandError: The text is no time.
    """
    if _DURATION.fullmatch(text.strip()):
        try:
            return now - parse_duration(text, option)
        except OverflowError:
            raise CommandError(f"{option} is {text!r}, which is too long ago") from None
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise CommandError(
            f"{option} is {text!r}; give a time such as 2026-01-31T09:30, or a duration before now such as 2h"
        ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
