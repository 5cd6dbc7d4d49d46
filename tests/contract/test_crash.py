"""A process dies during a run, and another one continues the run."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spine_async import Step, Workflow, WorkflowContext

pytestmark = pytest.mark.anyio

PROGRAM = """
import os, sys
import anyio
from spine_async import Step, Workflow, WorkflowRunner, WorkflowRunnerConfig

async def first(context, config):
    return {"when": "before the crash", "list": (1, 2)}

async def item(context, config):
    if context.params["item"] == 2:
        os._exit(9)
    return {"item": context.params["item"], "by": "first process"}

async def main():
    workflow = Workflow("crash", [
        Step.lambda_("first", first),
        Step.map("each", items=[0, 1, 2, 3], iterator=item, max_concurrency=1),
        Step.lambda_("last", first),
    ])
    runner = WorkflowRunner(config=WorkflowRunnerConfig(database_url=sys.argv[1]))
    await runner.execute(workflow, params={"n": 1}, run_id="r1")

anyio.run(main)
"""


class Second:
    """The same workflow in the process that continues."""

    def __init__(self) -> None:
        self.ran: list[Any] = []

    async def first(self, context: WorkflowContext, config: Any) -> dict[str, Any]:
        self.ran.append("first")
        return {}

    async def item(self, context: WorkflowContext, config: Any) -> dict[str, Any]:
        self.ran.append(context.params["item"])
        return {"item": context.params["item"], "by": "second process"}

    async def last(self, context: WorkflowContext, config: Any) -> dict[str, Any]:
        self.ran.append("last")
        return {"resumed": context.metadata.get("resumed")}

    def workflow(self) -> Workflow:
        each = Step.map("each", items=[0, 1, 2, 3], iterator=self.item, max_concurrency=1)
        return Workflow("crash", [Step.lambda_("first", self.first), each, Step.lambda_("last", self.last)])


def crash(database_url: str) -> None:
    root = Path(__file__).parents[2]
    died = subprocess.run([sys.executable, "-c", PROGRAM, database_url], cwd=root, capture_output=True, check=False)
    assert died.returncode == 9, died.stderr.decode()


@pytest.mark.parametrize("how", ["resume", "execute"])
async def test_what_had_finished_is_not_run_again(
    database_url: str, open_runner: Any, stored_events: Any, how: str
) -> None:
    crash(database_url)
    second = Second()
    runner = await open_runner()
    if how == "resume":
        result = await runner.resume("r1", workflow=second.workflow())
    else:
        result = await runner.execute(second.workflow(), params={"n": 1}, run_id="r1")
    assert result.status == "completed"
    assert second.ran == [2, 3, "last"]
    assert result.completed_steps == ["first", "each", "last"]
    assert result.context.get_output("first") == {"when": "before the crash", "list": [1, 2]}
    by = [one["by"] for one in result.context.get_output("each", "results")]
    assert by == ["first process", "first process", "second process", "second process"]
    assert dict(result.context.params) == {"n": 1}
    assert result.context.get_output("last") == {"resumed": True}
    types = [event["event_type"] for event in stored_events("r1")]
    assert types[0] == "workflow_started"
    assert types[-1] == "workflow_completed"
    assert types.count("workflow_completed") == 1


async def test_what_a_crash_leaves_behind(database_url: str, open_runner: Any, sql: Any, stored_events: Any) -> None:
    crash(database_url)
    rows = sql("SELECT step_name FROM core_workflow_checkpoints WHERE run_id = ? AND step_name = ?", "r1", "first")
    assert len(rows) == 1
    completed = [e["step_name"] for e in stored_events("r1") if e["event_type"] == "step_completed"]
    assert "first" in completed
    assert "last" not in completed
    assert "each" not in completed
    runner = await open_runner()
    assert (await runner.get_run("r1")).status == "running"
