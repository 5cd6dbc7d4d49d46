"""Owners that are paused, as on a machine that sleeps; another process claims the run meanwhile."""

from __future__ import annotations

import signal
import time

import pytest

from tests.chaos.arena import Arena
from tests.chaos.checks import require
from tests.chaos.size import draws, report, size

SHORT_LEASE = 0.05
AFTER_TAKE_OVER = {"LeaseLostError", "RunNotResumableError"}


@pytest.mark.slow
def test_an_owner_that_was_taken_over_commits_nothing(arena: Arena) -> None:
    count = size(7, 1_000)
    draw = draws("pauses", arena.is_sqlite)
    points = arena.count_points("short")
    arena.history.overlaps_allowed = True  # no guarantee covers steps that an owner without a lease executes
    began = time.monotonic()
    paused = number = 0
    while paused < count:
        run, number = f"s{number}", number + 1
        sleeps_at = draw.randint(1, len(points) - 1)
        first = arena.nursery.fork(arena.job([run], story="short", act="sleep", die_at=sleeps_at, ttl=SHORT_LEASE))
        if not arena.nursery.stops(first):  # commits were grouped, so it had fewer failpoints; or it lost its lease
            assert arena.nursery.wait(first) == 0, arena.errors()
            arena.check_same_memory([run], "short")
            arena.forget([run])
            continue
        paused += 1
        assert arena.live(arena.job([run], story="short")) == 0
        arena.nursery.signal(first, signal.SIGCONT)
        assert arena.nursery.wait(first) == 0, arena.errors()
        arena.check()
        arena.check_same_memory([run], "short")
        arena.forget([run])
    raised = arena.history.raised
    require(set(raised) <= AFTER_TAKE_OVER, f"superseded owners raised {raised}")
    assert raised["LeaseLostError"] > count // 3
    report(
        f"pauses[{arena.database}]",
        n=count,
        raised=raised,
        at=len(arena.history.deaths),
        seconds=round(time.monotonic() - began, 1),
    )
    arena.close()
