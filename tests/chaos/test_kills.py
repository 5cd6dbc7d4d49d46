"""Processes are killed by SIGKILL at random failpoints and moments, and at each failpoint in turn."""

from __future__ import annotations

import time

import pytest

from tests.chaos.arena import KILLED, Arena
from tests.chaos.size import draws, report, size
from tests.chaos.stories import LEDGER

STORY = "journey"
TOGETHER = 3
"""Runs that one child executes at once, so that their commits are grouped."""


@pytest.mark.slow
def test_children_killed_at_random_lose_nothing_and_do_nothing_twice(arena: Arena) -> None:
    wanted = size(25, 10_000) if arena.is_sqlite else size(12, 3_000)
    draw = draws("kills", arena.is_sqlite)
    began = time.monotonic()
    points = arena.count_points(STORY, traces=True)
    finished = group = 0
    while arena.kills < wanted:
        runs = [f"g{group}-{number}" for number in range(draw.randint(1, TOGETHER))]
        for _ in range(200):
            job = arena.job(runs, story=STORY, traces=True, die_at=draw.randint(1, len(points) * len(runs)))
            is_timed = draw.random() < 0.3
            if is_timed:
                job["die_at"] = 0
            if arena.live(job, draw.uniform(0.005, 0.12) if is_timed else None) != KILLED:
                break
        finished += len(runs)
        group += 1
        arena.check_same_memory(runs, STORY)
        arena.forget(runs)
    took = time.monotonic() - began
    report(
        f"kills[{arena.database}]",
        n=arena.kills,
        runs=finished,
        children=arena.children,
        executions=arena.history.executions,
        at_points=sum(arena.history.deaths.values()),
        different_points=len(arena.history.deaths),
        seconds=round(took, 1),
    )
    arena.close()


@pytest.mark.slow
def test_killed_at_every_failpoint(arena: Arena) -> None:
    """Before and after each call of the store, each statement of SQLite's and each handler, for every kind of step."""
    points = arena.count_points("short", traces=True)
    stride = size(9, 1)
    chosen = list(range(1 + draws("every").randrange(stride), len(points) + 1, stride))
    began = time.monotonic()
    for number in chosen:
        run = f"p{number}"
        arena.live(arena.job([run], story="short", traces=True, die_at=number))
        arena.check_same_memory([run], "short")
        arena.forget([run])
    assert arena.kills >= len(chosen) - 5  # a run has fewer failpoints if the commits of two items were grouped
    report(
        f"every failpoint[{arena.database}]",
        n=len(chosen),
        of=len(points),
        kills=arena.kills,
        kinds=len(set(points)),
        seconds=round(time.monotonic() - began, 1),
    )
    arena.close()


@pytest.mark.slow
def test_transactions_killed_at_every_failpoint_write_once(arena: Arena) -> None:
    """Before and after each part of a transaction: handler, fence, commit; each statement of SQLite's."""
    points = arena.count_points("transactions", traces=True)
    stride = size(6 if arena.is_sqlite else 3, 1)
    chosen = list(range(1 + draws("transactions").randrange(stride), len(points) + 1, stride))
    for number in chosen:
        run = f"p{number}"
        arena.live(arena.job([run], story="transactions", traces=True, die_at=number))
        done = {path for path in arena.visits_of(run) if path in LEDGER}
        assert sorted(arena.ledger(run)) == sorted(done)  # what a step wrote is there if and only if its end is
        arena.check_same_memory([run], "transactions")
        assert sorted(arena.ledger(run)) == sorted(LEDGER)
        arena.forget([run])
    assert arena.kills >= len(chosen) - 5
    report(f"transactions[{arena.database}]", n=len(chosen), of=len(points), kills=arena.kills)
    arena.close()
