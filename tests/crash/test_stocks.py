"""The shipped example, killed with SIGKILL and resumed: no finished step runs again, and the report is the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.crash.conftest import Processes
from tests.crash.forks import Forks

# The moment of death, and the rows that must be stored then.
MOMENTS = {
    "before:check_calendar": [],
    "before:load": ["check_calendar", "choose_period", "common_period"],
    "after:validate": ["check_calendar", "choose_period", "common_period", "load"],
    "before:analyse[3]/risk": ["validate", "analyse[3]/returns"],
    "after:write_report": ["analyse", "aggregate"],
}
SYMBOLS = 5
PATHS = {
    "check_calendar",
    "choose_period",
    "common_period",
    "load",
    "validate",
    "analyse",
    "aggregate",
    "write_report",
    *(f"analyse[{index}]/{step}" for index in range(SYMBOLS) for step in ("returns", "risk", "summary")),
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> bytes:
    """The report of an undisturbed run."""
    folder = tmp_path_factory.mktemp("undisturbed")
    processes = Processes(f"sqlite+aiosqlite:///{folder / 'runs.db'}", folder, forks)
    processes.completes("stocks")
    assert Counter(processes.executed()) == dict.fromkeys(PATHS, 1)
    return processes.report.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "durability"), [*((moment, "full") for moment in MOMENTS), ("before:analyse[3]/risk", "process")]
)
def test_killed_and_resumed(
    processes: Processes, query: Callable[..., Any], undisturbed: bytes, moment: str, durability: str
) -> None:
    processes.dies("stocks", "--kill", moment, "--durability", durability)
    finished = {path for (path,) in query("SELECT path FROM core_workflow_checkpoints WHERE run_id = ?", "r1")}
    assert finished >= set(MOMENTS[moment])
    before = processes.executed()
    assert finished <= set(before)
    assert query("SELECT status FROM core_workflow_runs WHERE run_id = ?", "r1") == [("running",)]

    processes.completes("stocks", "--resume", "--durability", durability)

    again = Counter(processes.executed()[len(before) :])
    assert again == dict.fromkeys(PATHS - finished, 1)
    assert processes.report.read_bytes() == undisturbed
    assert query("SELECT status FROM core_workflow_runs WHERE run_id = ?", "r1") == [("completed",)]


@pytest.mark.slow
def test_killed_again_and_again(processes: Processes, undisturbed: bytes) -> None:
    processes.dies("stocks", "--kill", "before:load")
    for moment in ("before:validate", "before:analyse[1]/summary", "before:analyse[4]/returns", "before:aggregate"):
        processes.dies("stocks", "--kill", moment, "--resume")
    processes.completes("stocks", "--resume")
    ran = Counter(processes.executed())
    assert ran.keys() == PATHS
    outside = {path: times for path, times in ran.items() if "/" not in path}
    assert outside == {**dict.fromkeys(PATHS & outside.keys(), 1), "analyse": 3}
    assert processes.report.read_bytes() == undisturbed


@pytest.mark.slow
def test_a_second_execute_continues_the_run_too(processes: Processes, undisturbed: bytes) -> None:
    processes.dies("stocks", "--kill", "before:validate")
    before = processes.executed()
    processes.completes("stocks")
    assert not set(before) & set(processes.executed()[len(before) :])
    assert processes.report.read_bytes() == undisturbed


def test_no_half_written_report_is_left(processes: Processes, tmp_path: Path) -> None:
    processes.completes("stocks")
    assert [path.name for path in tmp_path.iterdir() if "report" in path.name] == ["report.md"]
