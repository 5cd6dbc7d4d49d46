"""`stop`, `signal`, `delete`, `prune`, `schedules` and `db upgrade`, in this process."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import anyio
import pytest

from spine_async import WorkflowRunner, WorkflowRunnerConfig
from tests.cli.command import APP
from tests.cli.conftest import Cli
from tests.cli.flows import greet, ticks
from tests.service.services import until

pytestmark = pytest.mark.allow_blocking  # a command has its event loop for itself, and prints in it


def enqueue(cli: Cli, *run_ids: str) -> None:
    for run_id in run_ids:
        cli("run", "ask", "--queue", "mail", "--id", run_id, "--detach")


def test_stop(cli: Cli) -> None:
    enqueue(cli, "one", "two")
    stopped = cli("stop", "one", "two", "--reason", "not needed")
    assert stopped.stdout == "run one is stopped\nrun two is stopped\n"
    assert cli("show", "one", "--json").document["run"]["stop_reason"] == "not needed"
    assert cli("stop", "one").stdout == "run one had already ended\n"


def test_one_of_several_runs_is_not_stored(cli: Cli) -> None:
    enqueue(cli, "one")
    outcome = cli("stop", "none", "one", "--json", code=2)
    missing, stopped = outcome.document["runs"]
    assert missing["error"]["type"] == "RunNotFoundError"
    assert stopped == {"run_id": "one", "was_under_way": True}
    assert cli("stop", "none", code=2).stderr.startswith("error: run 'none' is not stored")


def test_signal(cli: Cli) -> None:
    enqueue(cli, "one")
    assert cli("signal", "one", "approve", '{"by": "Ada"}').stdout == "signal approve is stored for run one\n"
    assert cli("signal", "one", "approve", "--idempotency-key", "k", "--json").document == {
        "run_id": "one",
        "signal": "approve",
    }
    done = cli("resume", "one", *APP)
    assert "step_completed  approve" in done.stdout
    assert cli("signal", "one", "approve", code=1).stderr == (
        "error: run 'one' has completed, so it takes no signal 'approve'\n"
    )


def test_delete(cli: Cli) -> None:
    cli("run", "greet", *APP, "--id", "one")
    enqueue(cli, "two")
    refused = cli("delete", "one", "two", code=1)
    assert refused.stdout == "run one is deleted\n"
    assert "run 'two' is pending and cannot be deleted" in refused.stderr
    assert "force=True" not in refused.stderr
    cli("delete", "two", "--force")
    assert cli("runs", "--json").document["runs"] == []


def test_prune(cli: Cli) -> None:
    for run_id in ("one", "two"):
        cli("run", "greet", *APP, "--id", run_id)
    assert cli("prune", "--completed", "1d").stdout == "removed 0 runs\n"
    assert cli("prune", "--keep-last", "1", "--json").document == {"removed": 1}
    assert [each["run_id"] for each in cli("runs", "--json").document["runs"]] == ["two"]
    assert cli("prune", code=2).stderr.startswith("error: say what is removed: --completed")


def test_schedules(cli: Cli) -> None:
    assert cli("schedules").stderr.startswith("no schedules are stored in ")

    async def register() -> None:
        config = WorkflowRunnerConfig(database_url="sqlite:///.spine/runs.db")
        async with WorkflowRunner(config=config, schedules=[ticks]) as runner:
            await until(runner.list_schedules)

    anyio.run(register)
    (listed,) = cli("schedules", "--json").document["schedules"]
    assert (listed["name"], listed["workflow_name"], listed["is_paused"]) == ("ticks", greet.name, False)
    assert cli("schedules", "pause", "ticks").stdout == "schedule ticks is paused\n"
    assert "paused" in cli("schedules").stdout
    assert cli("schedules", "resume", "ticks", "--json").document == {"schedule": "ticks", "is_paused": False}
    run_id = cli("schedules", "trigger", "ticks", "--json").document["run_id"]
    assert cli("show", run_id, "--json").document["run"]["status"] == "pending"
    assert cli("schedules", "pause", "tocks", code=2).stderr.startswith("error: schedule 'tocks' is not stored")


def test_the_tables_are_created(cli: Cli) -> None:
    assert (
        cli("db", "upgrade", "--database", "sqlite:///new.db").stdout == "SQLite database new.db has schema version 3\n"
    )
    with closing(sqlite3.connect("new.db")) as connection:
        assert connection.execute("SELECT count(*) FROM core_workflow_runs").fetchone() == (0,)
    assert cli("db", "upgrade", "--json").document == {"schema_version": 3}
