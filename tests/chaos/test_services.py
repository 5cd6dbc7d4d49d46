"""Services that share a database are killed or terminated while they produce, signal and execute background runs."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from tests.chaos.arena import KILLED, Arena
from tests.chaos.checks import History, Stored, Where, check_completed, require
from tests.chaos.diary import Entry
from tests.chaos.services import SUM, child_of
from tests.chaos.size import draws, report, size

AT_ONCE = 2  # processes that live at the same time
MOST_POINTS = 250  # in half a second a process reaches about so many failpoints
GROUP = 4  # runs that are under way at the same time
ENDS = {0, KILLED, -int(signal.SIGTERM)}  # SIGTERM may come before the process has a handler for it


@dataclass
class ServiceHistory(History):
    """Checks that a step begins only in the process that claimed its run last, and not after its commit."""

    holders: dict[str, tuple[int, int]] = field(default_factory=dict)
    executed: dict[Where, int] = field(default_factory=dict)
    accepted: set[str] = field(default_factory=set)

    def _claimed(self, entry: Entry) -> None:
        super()._claimed(entry)
        self.holders[entry["run"]] = max(self.holders.get(entry["run"], (-1, 0)), (entry["epoch"], entry["pid"]))

    def _ran(self, entry: Entry) -> None:
        super()._ran(entry)
        run, path = entry["run"], entry["path"]
        epoch, pid = self.holders[run]
        require(pid == entry["pid"], f"{path} of {run} began in {entry['pid']}, after {pid} had claimed the run")
        self.executed[run, path] = epoch

    def _accepted(self, entry: Entry) -> None:
        self.accepted.add(entry["run"])

    def _signalled(self, entry: Entry) -> None:
        self.accepted.add(entry["run"])

    def look(self, stored: Stored) -> None:
        super().look(stored)
        for run in self.accepted:
            require(run in stored.runs, f"run {run} was accepted and is not stored")
        for run, path, _, epoch, _ in stored.steps:
            began = self.executed.get((run, path), epoch)
            require(began <= epoch, f"{path} of {run} was committed by owner {epoch} and began again in owner {began}")

    def forget(self, runs: Iterable[str]) -> None:
        super().forget(runs)
        self.accepted.clear()
        self.executed.clear()
        self.holders.clear()


class Services:
    """Keeps processes alive on one database, and ends them at random."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._draw = draws("services", arena.is_sqlite)
        self._alive: list[int] = []
        self.kills = self.terminations = self.started = 0

    def start(self, runs: list[str], *, is_last: bool = False) -> int:
        """Start a process; unless it is the last of its group, it usually dies at a failpoint."""
        self.started += 1
        die_at = self._draw.randint(1, MOST_POINTS) if not is_last and self._draw.random() < 0.6 else 0
        seed = self._draw.getrandbits(32)
        return self._arena.nursery.fork(
            self._arena.job(runs, produce=runs, is_last=is_last, seed=seed, die_at=die_at, traces=True)
        )

    def end_one(self, runs: list[str]) -> None:
        """End one of the processes by SIGKILL or SIGTERM, after a while."""
        while len(self._alive) < AT_ONCE:
            self._alive.append(self.start(runs))
        pid = self._alive.pop(self._draw.randrange(AT_ONCE))
        lives_for = self._draw.uniform(0.02, 0.6)
        if self._draw.random() < 0.3:
            time.sleep(lives_for)
            self._arena.nursery.signal(pid, signal.SIGTERM)
            self._ended(self._arena.nursery.wait(pid))
        else:
            self._ended(self._arena.nursery.wait(pid, kill_after=lives_for))
        self._arena.take()

    def finish(self, runs: list[str]) -> None:
        """Let a process bring all runs to their ends, beside those that still live; then kill these."""
        code = self._arena.nursery.wait(self.start(runs, is_last=True))
        assert code == 0, self._arena.errors()
        while self._alive:
            self._ended(self._arena.nursery.wait(self._alive.pop(), kill_after=0))
        self._arena.check()

    def _ended(self, code: int) -> None:
        assert code in ENDS, self._arena.errors()
        self.kills += code == KILLED
        self.terminations += code != KILLED


@pytest.mark.slow
def test_background_runs_survive_the_ends_of_their_processes(arena: Arena) -> None:
    wanted = size(20, 3_000) if arena.is_sqlite else size(12, 1_000)
    history = arena.history = ServiceHistory()
    services = Services(arena)
    began = time.monotonic()
    group = 0
    while services.kills < wanted:
        runs = [f"g{group}-{number}" for number in range(GROUP)]
        for _ in range(8):
            services.end_one(runs)
        services.finish(runs)
        ends = {entry["run"]: entry["memory"] for entry in history.finished}
        require(ends == dict.fromkeys(runs, SUM), f"runs ended with {ends}")
        family = runs + [child_of(run) for run in runs]
        check_completed(arena.stored(), family)
        arena.forget(family)
        group += 1
    report(
        f"services[{arena.database}]",
        kills=services.kills,
        terminations=services.terminations,
        processes=services.started,
        runs=2 * GROUP * group,
        executions=history.executions,
        at_points=sum(history.deaths.values()),
        seconds=round(time.monotonic() - began, 1),
    )
    arena.close()
