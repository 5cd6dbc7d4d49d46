"""Three processes with the same schedules are killed by SIGKILL during a year of their clock. Part of `nox -s chaos`.

The short form takes the days around both changes of the clocks, the full form the whole year.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.chaos.size import IS_FULL, draws, report, size
from tests.crash.conftest import Rows
from tests.service.conftest import StartService
from tests.service.file_clock import FileClock
from tests.service.services import until

pytestmark = pytest.mark.anyio

BERLIN = ZoneInfo("Europe/Berlin")
WORKERS = 3
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
SCHEDULES: list[dict[str, Any]] = [
    {"name": "nightly", "cron": "30 2 * * *", "timezone": "Europe/Berlin"},
    {"name": "weekly", "cron": "0 2 * * SUN", "timezone": "Europe/Berlin"},
    {"name": "often", "cron": "*/30 1-3 * * *", "timezone": "Europe/Berlin"},
    {"name": "steady", "every": 5 * 3600},
]
STORED = "SELECT run_id FROM core_workflow_runs WHERE started_by = 'schedule'"


def days() -> list[date]:
    """The simulated days: all of a year, or those around the changes of the clocks."""
    year = [date(2026, 1, 5) + number * DAY for number in range(365)]
    changes = (date(2026, 3, 29), date(2026, 10, 25))
    near = [day for day in year if any(-1 <= (day - change).days <= 1 for change in changes)]
    return year if IS_FULL else near


def firings(day: date) -> Iterator[tuple[datetime, str]]:
    """What fires on a day of Berlin: its moment in UTC, and the id of its run. Looks at each minute of the day."""
    begin = datetime(day.year, day.month, day.day, tzinfo=BERLIN).astimezone(UTC)
    seen = set[datetime]()
    midnight = begin.astimezone(BERLIN).replace(tzinfo=None)
    moment, before = begin, midnight - MINUTE
    while (local := moment.astimezone(BERLIN).replace(tzinfo=None)).date() == day:
        for name, minutes, is_wanted in (("nightly", 150, True), ("weekly", 120, day.isoweekday() == 7)):
            wanted = midnight + minutes * MINUTE
            if is_wanted and wanted not in seen and before < wanted <= local:
                seen.add(wanted)
                yield moment, name
        if local.hour in {1, 2, 3} and local.minute in {0, 30}:
            yield moment, "often"
        if moment.timestamp() % (5 * 3600) == 0:
            yield moment, "steady"
        moment, before = moment + MINUTE, local


def run_id(moment: datetime, name: str) -> str:
    return f"{name}@{moment:%Y-%m-%dT%H:%M:%S}Z"


def has_stored(query: Callable[..., Rows], count: int) -> bool:
    return len(query(STORED)) >= count


@pytest.mark.slow
async def test_no_firing_is_lost_or_doubled(
    service: StartService, query: Callable[..., Rows], tmp_path: Path, database_url: str
) -> None:
    draw, began_at = draws("schedules", database_url.split("+", maxsplit=1)[0]), time.monotonic()
    expected = sorted(each for day in days() for each in firings(day))
    clock = FileClock(tmp_path / "clock")
    clock.set(expected[0][0] - 10 * MINUTE)
    job = {"schedules": SCHEDULES, "clock": str(clock.path), "config": {"poll_interval": 0.05, "max_claims": 1000}}
    workers = [await service(**job) for _ in range(WORKERS)]
    await until(lambda: query("SELECT name FROM core_workflow_schedules"))
    kills, wanted = 0, size(6, 400)
    stored = set[str]()
    for number, moment in enumerate(sorted({moment for moment, _ in expected})):
        clock.set(moment + timedelta(seconds=draw.uniform(0.0, 5.0)))
        if kills * len(expected) < wanted * number:
            await asyncio.sleep(draw.uniform(0.0, 0.05))
            victim = draw.randrange(WORKERS)
            await workers[victim].kill()
            workers[victim] = await service(**job)
            kills += 1
        stored |= {run_id(at, name) for at, name in expected if at == moment}
        await until(partial(has_stored, query, len(stored)))
    assert sorted(row[0] for row in query(STORED)) == sorted(run_id(*each) for each in expected)
    left = f"{STORED} AND status <> 'completed'"
    await until(lambda: not query(left), within=120)
    report("schedules", kills=kills, firings=len(expected), seconds=round(time.monotonic() - began_at))


def test_the_short_form_has_both_changes_of_the_clocks() -> None:
    spring = [run_id(*each) for each in firings(date(2026, 3, 29))]
    assert [each for each in spring if each.startswith(("nightly", "weekly"))] == [
        "nightly@2026-03-29T01:00:00Z",
        "weekly@2026-03-29T01:00:00Z",
    ]
    autumn = [run_id(*each) for each in firings(date(2026, 10, 25))]
    assert [each for each in autumn if each.startswith(("nightly", "weekly"))] == [
        "weekly@2026-10-25T00:00:00Z",
        "nightly@2026-10-25T00:30:00Z",
    ]
    assert sum(each.startswith("often") for each in spring) == 4
    assert sum(each.startswith("often") for each in autumn) == 8
