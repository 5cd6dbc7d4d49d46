"""Fixtures: processes that are killed, and plain SQL on the database afterwards."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from tests.crash.forks import Forks

PROGRAM = Path(__file__).with_name("programs.py")

Rows = list[tuple[Any, ...]]


class Processes:
    """Runs the programs of `programs.py` on one database with one run id and one file of executions."""

    def __init__(self, database_url: str, folder: Path, forks: Forks) -> None:
        self._url = database_url
        self._forks = forks
        self._count = folder / "count"
        self.report = folder / "report.md"

    def dies(self, *arguments: str) -> None:
        """Start a process that kills itself at the given moment."""
        ended = self._run(arguments)
        assert ended.returncode == -signal.SIGKILL, ended.stderr

    def completes(self, *arguments: str) -> None:
        """Start a process that completes the run."""
        ended = self._run(arguments)
        assert ended.returncode == 0, ended.stderr

    def executed(self) -> list[str]:
        """Paths of the visits that all processes began, in order."""
        return self._count.read_text().split() if self._count.exists() else []

    def _run(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        what, *others = arguments
        fixed = ["--database", self._url, "--run-id", "r1", "--count", str(self._count), "--output", str(self.report)]
        return self._forks.run(PROGRAM, what, *fixed, *others)


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """One warm process from which the programs are forked."""
    forks = Forks()
    yield forks
    forks.close()


@pytest.fixture
def processes(database_url: str, tmp_path: Path, forks: Forks) -> Processes:
    return Processes(database_url, tmp_path, forks)


@pytest.fixture
def query(database_url: str) -> Callable[..., Rows]:
    """Executes plain SQL by `sqlite3` or psycopg; does not use the library."""
    return lambda statement, *values: plain_query(database_url, statement, *values)


def plain_query(database_url: str, statement: str, *values: object) -> Rows:
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite":
        with closing(sqlite3.connect(str(url.database))) as connection:
            return list(connection.execute(statement, values))
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(dsn) as connection:
        return list(connection.execute(statement.replace("?", "%s"), values))
