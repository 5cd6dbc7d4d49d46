"""Asking a runner about runs: get_run, list_runs, checkpoints, events, and deleting."""

from collections.abc import Mapping
from typing import Any

import pytest

from spine_async import RunNotFoundError, Step, StepResult, Workflow, WorkflowContext, WorkflowRunner

pytestmark = pytest.mark.anyio


async def work(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"step": context.step_name}


async def breaks(context: WorkflowContext, config: Mapping[str, Any]) -> None:
    raise LookupError("no such table")


async def stops(context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
    return StepResult.stop("closed today")


GOOD = Workflow("good", [Step.lambda_("a", work), Step.lambda_("b", work)])
BAD = Workflow("bad", [Step.lambda_("a", work), Step.lambda_("b", breaks)])
HALTING = Workflow("halting", [Step.lambda_("a", stops), Step.lambda_("b", work)])


@pytest.fixture
async def runner(open_runner: Any) -> WorkflowRunner:
    runner = await open_runner()
    await runner.execute(GOOD, params={"n": 1}, partition={"day": "d"}, run_id="r1")
    await runner.execute(BAD, run_id="r2")
    await runner.execute(HALTING, run_id="r3")
    return runner


async def test_get_run(runner: WorkflowRunner) -> None:
    good, bad, halted = [await runner.get_run(run_id) for run_id in ("r1", "r2", "r3")]
    assert [run.run_id for run in (good, bad, halted)] == ["r1", "r2", "r3"]
    assert [run.workflow_name for run in (good, bad, halted)] == ["good", "bad", "halting"]
    assert [run.status for run in (good, bad, halted)] == ["completed", "failed", "stopped"]
    assert good.params == {"n": 1}
    assert good.partition == {"day": "d"}
    assert bad.error_step == "b"
    assert "no such table" in str(bad.error)
    assert bad.error_category == "INTERNAL"
    assert halted.stop_reason == "closed today"
    assert good.started_at.utcoffset() is not None


async def test_get_run_of_an_unknown_run(runner: WorkflowRunner) -> None:
    with pytest.raises(RunNotFoundError, match="r9"):
        await runner.get_run("r9")


async def test_list_runs(runner: WorkflowRunner) -> None:
    assert {run.run_id for run in await runner.list_runs()} == {"r1", "r2", "r3"}
    assert [run.run_id for run in await runner.list_runs(status="failed")] == ["r2"]
    assert [run.run_id for run in await runner.list_runs(workflow_name="halting")] == ["r3"]
    assert await runner.list_runs(workflow_name="good", status="failed") == []
    assert len(await runner.list_runs(limit=2)) == 2


async def test_a_status_that_is_none_is_refused(runner: WorkflowRunner) -> None:
    with pytest.raises(ValueError, match="finished"):
        await runner.list_runs(status="finished")


async def test_names_with_quotes_are_names(runner: WorkflowRunner) -> None:
    hostile = "x' OR '1'='1"
    assert await runner.list_runs(workflow_name=hostile) == []
    with pytest.raises((RunNotFoundError, ValueError)):
        await runner.get_run(hostile)
    assert len(await runner.list_runs()) == 3


async def test_list_checkpoints(runner: WorkflowRunner) -> None:
    checkpoints = await runner.list_checkpoints("r1")
    assert [checkpoint.step_name for checkpoint in checkpoints] == ["a", "b"]
    assert {checkpoint.run_id for checkpoint in checkpoints} == {"r1"}
    assert [checkpoint.step_name for checkpoint in await runner.list_checkpoints("r2")] == ["a"]


async def test_get_checkpoint(runner: WorkflowRunner) -> None:
    checkpoint = await runner.get_checkpoint("r1", "a")
    assert checkpoint is not None
    assert checkpoint.step_name == "a"
    assert checkpoint.created_at.utcoffset() is not None
    snapshot = checkpoint.context_snapshot
    assert (snapshot["params"], snapshot["outputs"]) == ({"n": 1}, {"a": {"step": "a"}})
    assert snapshot["partition"] == {"day": "d"}
    last = await runner.get_checkpoint("r1", "b")
    assert last is not None
    assert last.context_snapshot["outputs"] == {"a": {"step": "a"}, "b": {"step": "b"}}


async def test_events_are_those_that_are_stored(runner: WorkflowRunner, stored_events: Any) -> None:
    seen = [event async for event in runner.events("r2")]
    stored = stored_events("r2")
    assert [(str(event.event_type), event.step_name) for event in seen] == [
        (event["event_type"], event["step_name"]) for event in stored
    ]
    assert [event.metadata for event in seen] == [event["metadata"] for event in stored]
    assert {event.run_id for event in seen} == {"r2"}
    assert all(event.timestamp.utcoffset() is not None for event in seen)


async def test_events_after_a_number(runner: WorkflowRunner) -> None:
    every = [event async for event in runner.events("r1", after=0)]
    assert len(every) == 6
    for after in (1, 4):
        assert [event async for event in runner.events("r1", after=after)] == every[after:]
    assert [event async for event in runner.events("r1", after=len(every))] == []


async def test_deleting_a_run_leaves_nothing_of_it(runner: WorkflowRunner, sql: Any) -> None:
    await runner.delete_run("r1")
    for table in ("core_workflow_runs", "core_workflow_checkpoints", "core_workflow_events"):
        assert sql(f"SELECT 1 FROM {table} WHERE run_id = ?", "r1") == []
        assert sql(f"SELECT 1 FROM {table} WHERE run_id = ?", "r2") != []
    with pytest.raises(RunNotFoundError, match="r1"):
        await runner.get_run("r1")
    assert {run.run_id for run in await runner.list_runs()} == {"r2", "r3"}


async def test_a_deleted_run_id_is_free_again(runner: WorkflowRunner) -> None:
    await runner.delete_run("r1")
    result = await runner.execute(BAD, params={"other": True}, run_id="r1")
    assert result.error_step == "b"
    assert result.completed_steps == ["a"]


async def test_another_runner_reads_the_same(runner: WorkflowRunner, open_runner: Any) -> None:
    other = await open_runner()
    assert (await other.get_run("r2")).status == "failed"
    assert [checkpoint.step_name for checkpoint in await other.list_checkpoints("r1")] == ["a", "b"]
    assert await other.list_runs() == await runner.list_runs()
