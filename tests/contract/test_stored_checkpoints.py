"""Runs and checkpoints as plain SQL reads them, on SQLite and PostgreSQL alike."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread

from spine_async import (
    ErrorPolicy,
    QualityMetrics,
    Step,
    StepResult,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
    WorkflowRunnerConfig,
)

pytestmark = pytest.mark.anyio

CHECKPOINTS = "SELECT run_id, step_name, context_snapshot, created_at FROM core_workflow_checkpoints WHERE run_id = ?"


async def work(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"step": context.step_name, "when": datetime(2026, 1, 2, tzinfo=UTC)}


async def updates(context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
    quality = QualityMetrics(record_count=10, valid_count=9)
    return StepResult.ok({"n": 1}, context_updates={"late": [1, 2]}, quality=quality)


async def breaks(context: WorkflowContext, config: Mapping[str, Any]) -> None:
    raise ValueError("odd")


def snapshots(sql: Any, run_id: str) -> dict[str, Any]:
    rows = {row["step_name"]: row["context_snapshot"] for row in sql(CHECKPOINTS, run_id)}
    return {name: json.loads(value) if isinstance(value, str) else value for name, value in rows.items()}


async def test_a_run_has_one_row(open_runner: Any, sql: Any) -> None:
    runner = await open_runner()
    workflow = Workflow("orders", [Step.lambda_("a", work)])
    await runner.execute(workflow, run_id="r1")
    await runner.execute(Workflow("broken", [Step.lambda_("a", breaks)]), run_id="r2")
    rows = sql("SELECT run_id, workflow_name, status FROM core_workflow_runs ORDER BY run_id")
    assert rows == [
        {"run_id": "r1", "workflow_name": "orders", "status": "completed"},
        {"run_id": "r2", "workflow_name": "broken", "status": "failed"},
    ]


async def test_a_snapshot_is_the_context_after_its_step(open_runner: Any, sql: Any) -> None:
    runner = await open_runner()
    steps = [Step.lambda_("a", work), Step.lambda_("b", updates), Step.lambda_("c", work)]
    result = await runner.execute(Workflow("w", steps), params={"p": 1}, partition={"day": "d"})
    seen = snapshots(sql, result.run_id)
    assert list(seen) == ["a", "b", "c"]
    a = {"step": "a", "when": "2026-01-02T00:00:00Z"}
    assert seen["a"]["params"] == {"p": 1}
    assert seen["a"]["outputs"] == {"a": a}
    assert seen["a"]["partition"] == {"day": "d"}
    assert not seen["a"]["quality"]
    assert seen["b"]["params"] == {"p": 1, "late": [1, 2]}
    assert seen["b"]["outputs"] == {"a": a, "b": {"n": 1}}
    assert seen["b"]["quality"]["b"]["record_count"] == 10
    assert seen["c"]["outputs"] == {"a": a, "b": {"n": 1}, "c": a | {"step": "c"}}
    assert seen["c"]["quality"] == seen["b"]["quality"]


async def test_values_that_databases_get_wrong(open_runner: Any, sql: Any) -> None:
    """Each text is read back unchanged: no database may reinterpret it."""
    odd = {"nul": "a\x00b", "text": "🐎'\"\\%s?:x", "big": 2**70, "float": 1e300, "key\x00": 1, "one": 1.0}

    async def gives(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
        return odd

    result = await (await open_runner()).execute(Workflow("w", [Step.lambda_("a", gives)]), params={"odd": odd})
    assert result.error is None
    snapshot = snapshots(sql, result.run_id)["a"]
    assert snapshot["outputs"]["a"] == odd
    assert snapshot["params"]["odd"] == odd
    assert isinstance(snapshot["outputs"]["a"]["one"], float)
    assert isinstance(snapshot["outputs"]["a"]["big"], int)


async def test_only_completed_visits_have_a_row(open_runner: Any, sql: Any) -> None:
    steps = [
        Step.lambda_("a", work),
        Step.lambda_("b", breaks, on_error=ErrorPolicy.CONTINUE),
        Step.choice("c", lambda context: True, "e"),
        Step.lambda_("d", work),
        Step.wait("e", 0),
        Step.map("f", items=[1], iterator=work),
        Step.lambda_("g", breaks),
    ]
    result = await (await open_runner()).execute(Workflow("w", steps))
    names = {row["step_name"] for row in sql(CHECKPOINTS, result.run_id)}
    assert {"a", "c", "e", "f"} <= names
    assert not names & {"b", "d", "g"}
    choice = snapshots(sql, result.run_id)["c"]["outputs"]["c"]
    assert choice == {"condition_result": True, "branch": "then", "next_step": "e"}


async def test_each_visit_of_a_loop_has_its_own_row(open_runner: Any, sql: Any) -> None:
    async def count(context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
        n = context.get_param("n", 0) + 1
        return StepResult.ok({"n": n}, context_updates={"n": n})

    steps = [Step.lambda_("work", count), Step.choice("again", lambda context: context.params["n"] < 3, "work")]
    result = await (await open_runner()).execute(Workflow("loop", steps))
    assert result.status == "completed"
    rows = [json.loads(row["context_snapshot"]) for row in sql(CHECKPOINTS, result.run_id)]
    assert len(rows) == 6
    assert sorted(row["outputs"]["work"]["n"] for row in rows) == [1, 1, 2, 2, 3, 3]
    assert sorted(row["params"]["n"] for row in rows) == [1, 1, 2, 2, 3, 3]


async def test_the_query_of_the_specification(open_runner: Any, sql: Any) -> None:
    result = await (await open_runner()).execute(Workflow("w", [Step.lambda_("a", work), Step.lambda_("b", work)]))
    rows = sql(CHECKPOINTS + " ORDER BY created_at", result.run_id)
    assert [row["step_name"] for row in rows] == ["a", "b"]
    moments = [str(row["created_at"]) for row in rows]
    years = tuple(str((datetime.now(UTC) + timedelta(days=days)).year) for days in (-1, 1))
    assert all(moment.startswith(years) for moment in moments)


async def test_the_override_of_a_resume_is_in_later_snapshots(open_runner: Any, sql: Any) -> None:
    mended: list[bool] = []

    async def breaks_once(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        if not mended:
            raise ValueError("once")

    runner = await open_runner()
    workflow = Workflow("w", [Step.lambda_("a", work), Step.lambda_("b", breaks_once)])
    failed = await runner.execute(workflow, params={"n": 1})
    mended.append(True)
    await runner.resume(failed.run_id, params_override={"n": 2})
    seen = snapshots(sql, failed.run_id)
    assert seen["a"]["params"] == {"n": 1}
    assert seen["b"]["params"] == {"n": 2}


async def test_a_run_is_stored_before_its_first_step(open_runner: Any, sql: Any) -> None:
    """Accepted means recorded."""
    statement = "SELECT status FROM core_workflow_runs WHERE run_id = ?"
    seen: list[Any] = []

    async def looks(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        seen.extend(await to_thread.run_sync(sql, statement, context.run_id))

    await (await open_runner()).execute(Workflow("w", [Step.lambda_("a", looks)]))
    assert seen == [{"status": "running"}]


async def test_a_step_is_committed_before_the_next_begins(open_runner: Any, sql: Any, stored_events: Any) -> None:
    def looks(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
        completed = [e["step_name"] for e in stored_events(context.run_id) if e["event_type"] == "step_completed"]
        return {"rows": sorted(snapshots(sql, context.run_id)), "completed": completed}

    steps = [Step.lambda_("a", work), Step.lambda_("b", looks), Step.lambda_("c", looks)]
    result = await (await open_runner()).execute(Workflow("w", steps))
    assert result.context.get_output("b") == {"rows": ["a"], "completed": ["a"]}
    assert result.context.get_output("c") == {"rows": ["a", "b"], "completed": ["a", "b"]}


def size_of(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))


async def test_the_bytes_of_a_run_grow_with_its_steps(tmp_path: Path) -> None:
    async def kilobyte(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, str]:
        return {"text": "x" * 1000}

    sizes = []
    for count in (50, 200):
        path = tmp_path / f"{count}.db"
        config = WorkflowRunnerConfig(database_url=f"sqlite+aiosqlite:///{path}")
        async with WorkflowRunner(config=config) as runner:
            await runner.execute(Workflow("w", [Step.lambda_(f"s{n}", kilobyte) for n in range(count)]))
        sizes.append(size_of(path))
    assert sizes[1] < 6 * sizes[0], "sixteen times as much if each step stored all before it"
