"""The times of cron expressions, compared with a search through every minute."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spine_async import DefinitionError
from spine_async._model.cron import Cron

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
ZONES = sorted(available_timezones() - {"localtime"})
NOTABLE = (
    *("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana", "Africa/Casablanca"),
    *("Asia/Tehran", "America/Santiago", "Asia/Beirut", "Pacific/Apia", "Antarctica/Troll", "America/Sao_Paulo", "UTC"),
)


class Field:
    """A field of an expression, and the values that it matches."""

    def __init__(self, text: str, values: frozenset[int]) -> None:
        self.text = text
        self.values = values

    def __repr__(self) -> str:
        return self.text


def fields(limit: int) -> st.SearchStrategy[Field]:
    """A field of a minute or an hour."""
    number = st.integers(0, limit - 1)
    single = number.map(lambda each: Field(str(each), frozenset({each})))
    several = st.sets(number, min_size=2, max_size=4).map(
        lambda each: Field(",".join(map(str, sorted(each))), frozenset(each))
    )
    stepped = st.sampled_from([2, 3, 5, 7, 15]).map(lambda step: Field(f"*/{step}", frozenset(range(0, limit, step))))
    return st.one_of(single, several, stepped, st.just(Field("*", frozenset(range(limit)))))


@cache
def transitions(zone: str) -> list[datetime]:
    """The days of 2010 to 2027 on which the offset of the zone changes."""
    info = ZoneInfo(zone)
    days = [datetime(2010, 1, 1, tzinfo=UTC) + number * DAY for number in range(18 * 365)]
    offsets = [day.astimezone(info).utcoffset() for day in days]
    return [day for day, (before, after) in zip(days, pairwise(offsets), strict=False) if before != after]


@st.composite
def places(draw: st.DrawFn) -> tuple[str, datetime]:
    """A time zone, and a moment about a day before a change of its clocks."""
    zone = draw(st.one_of(st.sampled_from(NOTABLE), st.sampled_from(ZONES)))
    day = draw(st.sampled_from(transitions(zone) or [datetime(2026, 6, 1, tzinfo=UTC)]))
    return zone, day - DAY + draw(st.integers(0, 36 * 3600)) * timedelta(seconds=1)


def expected(zone: str, minute: Field, hour: Field, weekdays: frozenset[int], start: datetime) -> list[datetime]:
    """The times within two days after the start, by a search through every minute of a wider time."""
    info = ZoneInfo(zone)
    first = start.replace(second=0, microsecond=0) - 3 * DAY
    minutes = [first + number * MINUTE for number in range(7 * 24 * 60)]
    local = [each.astimezone(info).replace(tzinfo=None) for each in minutes]

    def is_match(at: datetime) -> bool:
        return at.minute in minute.values and at.hour in hour.values and at.isoweekday() % 7 in weekdays

    if minute.text.startswith("*") or hour.text.startswith("*"):
        found = {each for each, shown in zip(minutes, local, strict=True) if is_match(shown)}
    else:
        found = {minutes[local.index(shown)] for shown in set(local) if is_match(shown)}
        for number, (before, after) in enumerate(pairwise(local), 1):
            if any(is_match(missing) for missing in _between(before + MINUTE, after)):
                found.add(minutes[number])
    return sorted(each for each in found if start < each <= start + 2 * DAY)


def _between(begin: datetime, end: datetime) -> Iterator[datetime]:
    while begin < end:
        yield begin
        begin += MINUTE


@settings(max_examples=60, deadline=None)
@given(
    place=places(),
    minute=fields(60),
    hour=fields(24),
    weekdays=st.one_of(st.just(frozenset(range(7))), st.sets(st.integers(0, 6), min_size=1).map(frozenset)),
)
def test_around_changes_of_the_clocks(
    place: tuple[str, datetime], minute: Field, hour: Field, weekdays: frozenset[int]
) -> None:
    zone, start = place
    days = "*" if len(weekdays) == 7 else ",".join(map(str, sorted(weekdays)))
    cron = Cron(f"{minute} {hour} * * {days}", ZoneInfo(zone))
    wanted = expected(zone, minute, hour, weekdays, start)
    found = list[datetime]()
    moment = cron.after(start)
    while moment <= start + 2 * DAY:
        found.append(moment)
        moment = cron.after(moment)
    assert found == wanted
    for until in (start + HOUR, start + DAY, start + 2 * DAY):
        before = [each for each in wanted if each <= until]
        assert cron.latest(start, until) == (before[-1] if before else None)


def times(expression: str, zone: str, start: str, count: int) -> list[str]:
    """The next times in local form, after a local start."""
    info = ZoneInfo(zone)
    cron, moment = Cron(expression, info), datetime.fromisoformat(start).replace(tzinfo=info).astimezone(UTC)
    found = []
    for _ in range(count):
        moment = cron.after(moment)
        found.append(moment.astimezone(info).isoformat(timespec="minutes"))
    return found


@pytest.mark.parametrize(
    ("expression", "zone", "start", "wanted"),
    [
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),
        ("30 2 * * SUN", "Europe/Berlin", "2026-03-28T12:00", ["2026-03-29T03:00+02:00", "2026-04-05T02:30+02:00"]),
        ("0 3,2 * * *", "Europe/Berlin", "2026-03-28T12:00", ["2026-03-29T03:00+02:00", "2026-03-30T02:00+02:00"]),
        ("*/30 * * * *", "Europe/Berlin", "2026-03-29T01:15", ["2026-03-29T01:30+01:00", "2026-03-29T03:00+02:00"]),
        ("0 0 * * *", "America/Havana", "2026-03-07T12:00", ["2026-03-08T01:00-04:00", "2026-03-09T00:00-04:00"]),
        ("0 9 * * *", "Pacific/Apia", "2011-12-29T12:00", ["2011-12-31T00:00+14:00", "2011-12-31T09:00+14:00"]),
        ("0 0 29 2 *", "UTC", "2026-01-01T00:00", ["2028-02-29T00:00+00:00", "2032-02-29T00:00+00:00"]),
        ("@monthly", "Asia/Tokyo", "2026-01-01T00:00", ["2026-02-01T00:00+09:00", "2026-03-01T00:00+09:00"]),
        ("0 8 * * 1-5", "UTC", "2026-01-09T09:00", ["2026-01-12T08:00+00:00", "2026-01-13T08:00+00:00"]),
    ],
)
def test_examples(expression: str, zone: str, start: str, wanted: list[str]) -> None:
    assert times(expression, zone, start, len(wanted)) == wanted


def test_an_interval_goes_on_in_real_time_while_an_hour_is_repeated() -> None:
    shown = times("*/30 * * * *", "Europe/Berlin", "2026-10-25T01:45", 5)
    assert shown == [
        f"2026-10-25T{each}" for each in ("02:00+02:00", "02:30+02:00", "02:00+01:00", "02:30+01:00", "03:00+01:00")
    ]


def test_a_search_that_begins_in_the_repeated_hour_does_not_fire_again() -> None:
    info = ZoneInfo("Europe/Berlin")
    second = datetime(2026, 10, 25, 2, 15, fold=1, tzinfo=info)
    assert Cron("30 2 * * *", info).after(second) == datetime(2026, 10, 26, 2, 30, tzinfo=info).astimezone(UTC)


def test_the_latest_time_before_a_long_gap_is_found_quickly() -> None:
    cron = Cron("* * * * *", ZoneInfo("UTC"))
    until = datetime(2026, 1, 1, 0, 0, 30, tzinfo=UTC)
    assert cron.latest(datetime(1990, 1, 1, tzinfo=UTC), until) == until.replace(second=0)


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("* * * *", "4 fields"),
        ("0 0 9 * * *", "6 fields"),
        ("61 * * * *", "Bad minute"),
        ("0 9 30 2 *", "day"),
        ("@sometimes", "1 fields"),
        ("", "0 fields"),
    ],
)
def test_an_invalid_expression_is_refused(expression: str, problem: str) -> None:
    with pytest.raises(DefinitionError, match=problem) as failure:
        Cron(expression, UTC)
    assert repr(expression) in str(failure.value)
