"""Plain SQL, by `sqlite3` and psycopg, on a run that was killed and resumed.

Source: workflow-runner specification, "Checkpoint Storage" and "Execution Events".
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from spine_async import WorkflowRunner, WorkflowRunnerConfig
from tests.crash.conftest import Processes

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

MAIN = ["check_calendar", "choose_period", "common_period", "load", "validate", "analyse", "aggregate", "write_report"]


@pytest.fixture
def resumed(processes: Processes) -> None:
    """Run r1, killed in the middle of its map and resumed."""
    processes.dies("stocks", "--kill", "before:analyse[2]/risk")
    processes.completes("stocks", "--resume")


@pytest.mark.usefixtures("resumed")
async def test_checkpoints(query: Callable[..., Any], database_url: str) -> None:
    rows = query(
        "SELECT run_id, step_name, context_snapshot, created_at FROM core_workflow_checkpoints "
        "WHERE run_id = 'r1' AND path = step_name ORDER BY seq"
    )
    assert [(run_id, step) for run_id, step, _, _ in rows] == [("r1", step) for step in MAIN]
    moments = [_moment(at) for *_, at in rows]
    assert moments == sorted(moments)
    snapshots = [json.loads(text) for _, _, text, _ in rows]
    assert all(snapshot.keys() == {"params", "outputs", "quality", "partition"} for snapshot in snapshots)
    assert [sorted(snapshot["outputs"]) for snapshot in snapshots] == [
        sorted(MAIN[: count + 1]) for count in range(len(MAIN))
    ]
    assert snapshots[1]["outputs"]["choose_period"]["next_step"] == "common_period"
    assert "first_month" not in snapshots[1]["params"]
    assert snapshots[2]["params"]["first_month"] == "2004-08"
    assert snapshots[4]["quality"]["validate"]["record_count"] == 340
    async with WorkflowRunner(config=WorkflowRunnerConfig(database_url=database_url)) as runner:
        checkpoints = await runner.list_checkpoints("r1")
    assert [each.context_snapshot for each in checkpoints if each.path == each.step_name] == snapshots


@pytest.mark.usefixtures("resumed")
def test_checkpoints_inside_of_a_map(query: Callable[..., Any]) -> None:
    rows = query("SELECT context_snapshot FROM core_workflow_checkpoints WHERE path = 'analyse[2]/risk'")
    snapshot = json.loads(rows[0][0])
    assert snapshot["params"]["symbol"] == "GOOG"
    assert {"load", "validate", "returns", "risk"} <= snapshot["outputs"].keys()
    assert "analyse" not in snapshot["outputs"]


@pytest.mark.usefixtures("resumed")
def test_events(query: Callable[..., Any]) -> None:
    rows = query(
        "SELECT seq, event_type, step_name, timestamp, metadata FROM core_workflow_events "
        "WHERE run_id = 'r1' ORDER BY seq"
    )
    assert [seq for seq, *_ in rows] == list(range(1, len(rows) + 1))
    kinds = [kind for _, kind, *_ in rows]
    assert (kinds[0], kinds[-1]) == ("workflow_started", "workflow_completed")
    assert [kinds.count(kind) for kind in ("workflow_resumed", "map_item_completed", "step_skipped")] == [1, 5, 1]
    completed = {name: json.loads(text) for _, kind, name, _, text in rows if kind == "step_completed"}
    assert completed.keys() == {*MAIN, "returns", "risk", "summary"}
    assert all(each["duration_ms"] >= 0 and each["output_size"] > 0 for each in completed.values())
    started = [name for _, kind, name, _, text in rows if kind == "step_started" and text == "{}"]
    assert set(started) == completed.keys()
    assert all(_moment(at).tzinfo is not None for _, _, _, at, _ in rows)


def _moment(value: object) -> datetime:
    """The moment of a column; SQLite stores ISO 8601 text, PostgreSQL a timestamp."""
    return value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
