"""What a command imports before it prints something."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.interpreter import environment

HEAVY = ("spine_async.runner", "sqlalchemy", "asyncio", "anyio", "rich", "opentelemetry")


def imported(*arguments: str, folder: Path) -> tuple[int, set[str]]:
    """The exit code of a command, and the modules that it imported."""
    script = (
        "import sys\n"
        "from spine_async.cli.main import main\n"
        f"sys.argv = ['spine-async', *{arguments!r}]\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as ended:\n"
        "    print('modules', ended.code or 0, *sys.modules)\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script], env=environment(), cwd=folder, capture_output=True, text=True, check=True
    )
    _, code, *modules = shown.stdout.splitlines()[-1].split(" ")
    return int(code), set(modules)


@pytest.mark.sample(every=2)
@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["schedules", "--help"], ["--version"], ["nonsense"]]
)
def test_help_imports_nothing_of_the_library(arguments: list[str], tmp_path: Path) -> None:
    code, modules = imported(*arguments, folder=tmp_path)
    assert code == (2 if arguments == ["nonsense"] else 0)
    assert sorted(modules.intersection(HEAVY)) == []
    assert "pydantic" not in modules or arguments != ["--help"]  # typer may need it for a single command


def test_a_drawing_of_a_workflow_imports_no_database(tmp_path: Path) -> None:
    code, modules = imported("graph", "large", "--app", "tests.cli.flows", folder=tmp_path)
    assert code == 0
    assert sorted(modules.intersection({"sqlalchemy", "rich", "opentelemetry.sdk"})) == []


UNNEEDED = (
    *("rich", "uvicorn", "starlette", "jinja2", "opentelemetry.sdk", "distributed"),
    *("asyncpg", "psycopg", "redis", "sqlalchemy.dialects.postgresql"),  # drivers of other stores
    *("spine_async.web", "spine_async.views.svg", "spine_async.dashboard", "spine_async.storage.sql.postgres"),
)


@pytest.mark.sample(every=3)
@pytest.mark.parametrize("command", ["runs", "queues", "schedules"])
def test_a_listing_on_sqlite_imports_neither_rich_nor_other_drivers(command: str, tmp_path: Path) -> None:
    code, modules = imported(command, folder=tmp_path)
    assert code == 0
    assert "aiosqlite" in modules
    assert sorted(modules.intersection(UNNEEDED)) == []
