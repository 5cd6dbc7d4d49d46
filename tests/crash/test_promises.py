"""Guarantees of `docs/guarantees.md` that no other test checks as directly."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from spine_async import (
    RunConflictError,
    Step,
    StepResult,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
    WorkflowRunnerConfig,
)
from spine_async.storage.sql.sqlite import jobs as sqlite_jobs
from tests.crash.conftest import Processes

pytestmark = pytest.mark.anyio

Config = dict[str, object]


@pytest.fixture
def runner(database_url: str) -> WorkflowRunner:
    return WorkflowRunner(config=WorkflowRunnerConfig(database_url=database_url))


async def test_a_run_is_stored_before_its_first_step(runner: WorkflowRunner, query: Callable[..., Any]) -> None:
    def look(context: WorkflowContext, config: Config) -> dict[str, object]:
        return {"found": query("SELECT status FROM core_workflow_runs WHERE run_id = ?", context.run_id)}

    result = await runner.execute(Workflow("looking", [Step.lambda_("look", look)]))
    assert result.context.get_output("look", "found") == [["running"]]


async def test_a_step_is_committed_before_the_next_one(runner: WorkflowRunner, query: Callable[..., Any]) -> None:
    def look(context: WorkflowContext, config: Config) -> dict[str, object]:
        checkpoints = query("SELECT path FROM core_workflow_checkpoints WHERE run_id = ?", context.run_id)
        events = query(
            "SELECT path FROM core_workflow_events WHERE run_id = ? AND event_type = 'step_completed'", context.run_id
        )
        return {"checkpoints": sorted(checkpoints), "events": sorted(events)}

    steps = [Step.lambda_(name, look) for name in ("a", "b", "c")]
    result = await runner.execute(Workflow("looking", steps))
    for count, name in enumerate("abc"):
        finished = [[earlier] for earlier in "abc"[:count]]
        assert result.context.get_output(name) == {"checkpoints": finished, "events": finished}


def test_after_a_crash_events_match_the_stored_rows(processes: Processes, query: Callable[..., Any]) -> None:
    processes.dies("stocks", "--kill", "after:analyse[2]/risk")
    stored = query("SELECT path, seq FROM core_workflow_checkpoints ORDER BY seq")
    events = query("SELECT path, seq FROM core_workflow_events WHERE event_type = 'step_completed' ORDER BY seq")
    assert stored == events
    numbers = [seq for (seq,) in query("SELECT seq FROM core_workflow_events ORDER BY seq")]
    assert query("SELECT next_seq FROM core_workflow_runs") == [(len(numbers) + 1,)]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_stored_data_is_never_executed(runner: WorkflowRunner) -> None:
    hostile = {"py/reduce": [{"py/type": "os.abort"}, {"py/tuple": []}], "__class__": "os.abort", "$ref": "!!python"}
    stops = Step.lambda_("keep", lambda context, config: StepResult.stop("later", hostile))
    reads = Step.lambda_("read", lambda context, config: {"read": context.get_output("keep")})
    workflow = Workflow("hostile", [stops, reads])
    stopped = await runner.execute(workflow, params=hostile)
    result = await runner.resume(stopped.run_id)
    assert result.context.get_output("read", "read") == hostile
    assert dict(result.context.params) == hostile


async def test_a_run_that_has_not_ended_is_not_deleted(processes: Processes, runner: WorkflowRunner) -> None:
    processes.dies("stocks", "--kill", "before:load")
    with pytest.raises(RunConflictError, match="'r1' is running and cannot be deleted"):
        await runner.delete_run("r1")
    assert len(await runner.list_checkpoints("r1")) == 3


def test_sqlite_acknowledges_what_is_on_disk(sqlite_url: str, tmp_path: Path) -> None:
    runner = WorkflowRunner(config=WorkflowRunnerConfig(database_url=sqlite_url))
    anyio.run(runner.execute, Workflow("one", [Step.lambda_("step", lambda context, config: None)]))
    with closing(sqlite3.connect(tmp_path / "runs.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        connection.execute("PRAGMA synchronous = OFF")
        sqlite_jobs.prepare(connection, "full")
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
