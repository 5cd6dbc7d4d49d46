"""Many processes on one SQLite file."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.chaos.arena import Arena
from tests.chaos.checks import integrity
from tests.chaos.nursery import Nursery
from tests.chaos.size import report, size

PROCESSES = 8


@pytest.mark.slow
def test_many_processes_share_one_file(sqlite_url: str, tmp_path: Path, nursery: Nursery) -> None:
    arena = Arena(sqlite_url, tmp_path / "diary", nursery)
    count = size(10, 200)
    began = time.monotonic()
    runs = {number: [f"r{number}-{each}" for each in range(count)] for number in range(PROCESSES)}
    children = [nursery.fork(arena.job(runs[number], story="lambda")) for number in runs]
    assert [nursery.wait(child, 300.0) for child in children] == [0] * PROCESSES, arena.errors()
    arena.check()
    assert not arena.history.raised, "an error, such as a locked database, reached the user"
    assert {entry["status"] for entry in arena.history.finished} == {"completed"}
    assert len(arena.history.finished) == PROCESSES * count
    assert integrity(sqlite_url) == "ok"
    report("one file", n=f"{PROCESSES}x{count}", seconds=round(time.monotonic() - began, 1))
    arena.close()


def test_many_processes_race_for_one_run(arena: Arena) -> None:
    """One of them executes it, and the others wait for its end; no committed step runs again."""
    for number in range(size(2, 50)):
        run = f"race{number}"
        children = [arena.nursery.fork(arena.job([run], story="lambda")) for _ in range(4)]
        assert [arena.nursery.wait(child) for child in children] == [0] * len(children), arena.errors()
        arena.check()
        assert not arena.history.raised
        assert len(arena.history.claims[run]) == 1
        ends = [(each["status"], each["memory"]) for each in arena.history.finished if each["run"] == run]
        assert ends == [("completed", ends[0][1])] * len(children)
    arena.close()
