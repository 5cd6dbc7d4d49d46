"""The command line of the example: its output and its error messages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.forks import Forks
from tests.interpreter import ROOT, environment

PROGRAM = ROOT / "docs" / "examples" / "stocks" / "report.py"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def report(tmp_path: Path, forks: Forks) -> Run:
    """The program, run in an empty folder."""
    return lambda *arguments: forks.run(PROGRAM, *arguments, folder=tmp_path)


@pytest.fixture
def cold_report(tmp_path: Path) -> Run:
    """The same in an interpreter that has nothing imported."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(PROGRAM), *arguments],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def test_a_report_on_the_embedded_default(cold_report: Run, tmp_path: Path) -> None:
    ended = cold_report("--run-id", "mine")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "Shares from Aug 2004 to Mar 2010" in ended.stdout
    assert "AAPL    17.25  223.02  12.93 x      +58%" in ended.stdout
    assert ended.stdout.splitlines()[0] == "Run mine"
    assert ended.stdout.splitlines()[-1] == f"Written to {tmp_path / 'report.md'}"
    assert (tmp_path / "report.md").read_text().startswith("# Shares from Aug 2004 to Mar 2010\n")
    assert (tmp_path / ".spine" / "runs.db").is_file()


def test_another_database_by_its_url(report: Run, tmp_path: Path, database_url: str) -> None:
    first = report("--run-id", "mine", "--database", database_url)
    again = report("--run-id", "mine", "--database", database_url)
    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    assert "nothing was run again" in again.stdout
    assert first.stdout.partition("Shares")[2] == again.stdout.partition("Shares")[2]
    assert not (tmp_path / ".spine").exists()


def test_a_failed_run_continues_after_its_cause_is_fixed(report: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.md").mkdir()
    failed = report("--run-id", "mine", "--output", "out/report.md")
    assert failed.returncode == 1
    message, advice = failed.stderr.splitlines()
    assert message.startswith("report.py: the run failed at write_report: IsADirectoryError")
    assert advice.endswith("--resume mine")
    resumed = report("--resume", "mine", "--output", "out/other.md")
    assert resumed.returncode == 0, resumed.stderr
    assert [line.split()[:2] for line in resumed.stdout.splitlines() if line.startswith("  completed")] == [
        ["completed", "write_report"]
    ]
    assert (tmp_path / "out" / "other.md").is_file()
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")] == []


BAD = "symbol,date,price\nA,Jan 1 2000,1\nA,Feb 1 2000,-\n"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--csv", "missing.csv"], 2, "there is no file missing.csv"),
        (["--output", "nowhere/report.md"], 2, "there is no folder nowhere"),
        (["--pause", "soon"], 2, "soon is not a number of seconds from 0 to 3600"),
        (["--resume", "a", "--run-id", "b"], 2, "not allowed with"),
        (["--resume", "a", "--csv", "bad.csv"], 2, "--csv cannot be given with --resume"),
        (["--resume", "unknown"], 1, "run 'unknown' is not stored in this store"),
        (["--run-id", ""], 1, "invalid run id ''"),
        (["--database", "mysql://host/x"], 1, "a database URL of kind 'mysql' is not supported"),
        (["--database", "nonsense"], 1, "the database URL cannot be read"),
        (["--database", "postgresql://u:secret@127.0.0.1:1/x"], 1, "check that the server runs"),
        (["--csv", "bad.csv"], 1, "the run failed at validate: step 'validate' violates its quality thresholds"),
        (["--csv", "empty.csv"], 1, "the columns are none; expected are symbol, date, price"),
    ],
)
def test_bad_input(report: Run, tmp_path: Path, arguments: list[str], status: int, message: str) -> None:
    (tmp_path / "bad.csv").write_text(BAD)
    (tmp_path / "empty.csv").touch()
    ended = report(*arguments)
    assert ended.returncode == status
    assert message in ended.stderr.splitlines()[0]
    assert "Traceback" not in ended.stderr
    assert "secret" not in ended.stderr.splitlines()[0]
    assert len(ended.stderr.splitlines()) <= 2
