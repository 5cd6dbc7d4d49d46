from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spine_async.cli.verbs import app
from tests.cli.command import Commands, Outcome

Cli = Callable[..., Outcome]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    """Runs commands in this process, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("SPINE_DATABASE_URL", "SPINE_APP", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def run(*arguments: str, stdin: str | None = None, code: int | None = 0) -> Outcome:
        result = CliRunner().invoke(app, arguments, input=stdin, prog_name="spine-async")
        outcome = Outcome(result.exit_code, result.stdout, result.stderr)
        assert code is None or result.exit_code == code, (outcome, result.exception)
        return outcome

    yield run
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def commands(tmp_path: Path, sqlite_url: str) -> Iterator[Commands]:
    """Starts commands as processes on one SQLite file."""
    started = Commands(tmp_path, sqlite_url)
    yield started
    started.end()


@pytest.fixture
def commands_on_each(tmp_path: Path, database_url: str) -> Iterator[Commands]:
    """Starts commands as processes, on SQLite and PostgreSQL in turn."""
    started = Commands(tmp_path, database_url)
    yield started
    started.end()
