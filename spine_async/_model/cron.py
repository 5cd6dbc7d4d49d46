"""The times of a cron expression in a time zone.

`cronsim` parses the expression and matches days. The times are computed here, because around a change of the clocks
they must not depend on where the search begins.

An expression whose minute or hour begins with `*`, such as `*/15 * * * *`, describes an interval: it applies to each
minute of real time, whatever the clocks show. Any other one describes local times. A local time that does not exist is
the first moment after the gap, and of one that occurs twice the first counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from spine_async._model.shown import shown
from spine_async.errors import DefinitionError

_NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
_MOST_DAYS = 50 * 366
"""An expression that matches no day in 50 years is taken to match no day at all."""


class Cron:
    """A cron expression with five fields, in a time zone.

    Args:
        expression: For instance `0 9 * * MON-FRI`, or a name such as `@daily`.
        zone: The time zone of its times.

    Raises:
        DefinitionError: The expression is invalid, or matches no day.
    """

    def __init__(self, expression: str, zone: tzinfo) -> None:
        # Imported here, because most programs have no schedule.
        from cronsim import CronSim, CronSimError  # noqa: PLC0415

        text = _NAMED.get(expression.strip().lower(), expression)
        fields = text.split()
        if len(fields) != 5:
            raise _invalid(expression, f"it has {len(fields)} fields instead of minute, hour, day, month and weekday")
        try:
            self._days = CronSim(text, datetime(2000, 1, 1, tzinfo=UTC))
        except CronSimError as exc:
            raise _invalid(expression, str(exc)) from None
        self._zone = zone
        self._minutes = frozenset(self._days.minutes)
        self._hours = frozenset(self._days.hours)
        self._times = [time(hour, minute) for hour in sorted(self._hours) for minute in sorted(self._minutes)]
        self._is_interval = fields[0].startswith("*") or fields[1].startswith("*")
        if not any(self._has_day(date(2000, 1, 1) + timedelta(days=number)) for number in range(_MOST_DAYS)):
            raise _invalid(expression, "it matches no day")

    def after(self, moment: datetime) -> datetime:
        """The first time after an aware moment, in UTC."""
        return self._tick_after(moment) if self._is_interval else self._local_time_after(moment)

    def latest(self, after: datetime, until: datetime) -> datetime | None:
        """The last time after one moment and not after another, in UTC; None if there is none.

        Looks back in growing steps, so that a long gap of an expression with many times costs little.
        """
        window = _HOUR
        while True:
            begin = max(after, until - window)
            last, moment = None, self.after(begin)
            while moment <= until:
                last, moment = moment, self.after(moment)
            if last is not None or begin <= after:
                return last
            window *= 16

    def _has_day(self, day: date) -> bool:
        return day.month in self._days.months and self._days.match_day(day)

    def _local_time_after(self, moment: datetime) -> datetime:
        # From the day before, because the moment may be in the second pass through the end of that day.
        day = moment.astimezone(self._zone).date() - _DAY
        found: datetime | None = None
        while True:
            later = min((each for each in self._moments_of(day) if each > moment), default=None)
            if found is not None:  # of the day before this one; the days overlap where the clocks go back at midnight
                return min(found, later) if later is not None else found
            found = later
            day += _DAY

    def _moments_of(self, day: date) -> Iterator[datetime]:
        """The moments of a local date, in UTC."""
        if self._has_day(day):
            for each in self._times:
                yield existing(datetime.combine(day, each), self._zone)

    def _tick_after(self, moment: datetime) -> datetime:
        """The next minute whose local time matches. Skips hours and days where the clocks do not change."""
        at = moment.astimezone(UTC).replace(second=0, microsecond=0) + _MINUTE
        while True:
            local = at.astimezone(self._zone)
            if not self._has_day(local.date()):
                at = self._skip(at, local, _DAY - timedelta(hours=local.hour, minutes=local.minute))
            elif local.hour not in self._hours:
                at = self._skip(at, local, _HOUR - timedelta(minutes=local.minute))
            elif local.minute not in self._minutes or local.second:
                at += _MINUTE
            else:
                return at

    def _skip(self, at: datetime, local: datetime, step: timedelta) -> datetime:
        """`at` plus the step, or plus a minute if the clocks change in between."""
        later = at + step
        return later if later.astimezone(self._zone).utcoffset() == local.utcoffset() else at + _MINUTE


def existing(local: datetime, zone: tzinfo) -> datetime:
    """The moment of a local time in UTC: the first of two, or the first one after the gap that the time is in."""
    moment = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if moment.astimezone(zone).replace(tzinfo=None) == local:
        return moment
    # In a gap, `fold` selects the offset before (0) or after the gap (1). The gap ends between these two moments.
    low, high = local.replace(tzinfo=zone, fold=1).astimezone(UTC), moment
    before = low.astimezone(zone).utcoffset()
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) // 2
        low, high = (middle, high) if middle.astimezone(zone).utcoffset() == before else (low, middle)
    return high.replace(microsecond=0)


def _invalid(expression: str, problem: str) -> DefinitionError:
    return DefinitionError(f"invalid cron expression {shown(expression, 100)}: {problem}")
