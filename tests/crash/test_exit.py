"""A handler ends the process, as `sys.exit()` or Ctrl-C does, while several runs execute."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from spine_async import Step, Workflow, WorkflowRunner, WorkflowRunnerConfig
from tests.interpreter import ROOT

SERVICE = """
import asyncio, sys
from spine_async import Step, Workflow, WorkflowRunner, WorkflowRunnerConfig

async def leave(context, config):
    await asyncio.sleep(0)
    if context.run_id == "r1":
        raise {error}
    await asyncio.sleep(3600)

async def main():
    runner = WorkflowRunner(config=WorkflowRunnerConfig(database_url=sys.argv[1]))
    flow = Workflow("leaving", [Step.lambda_("first", lambda context, config: None), Step.lambda_("leave", leave)])
    await asyncio.gather(*(runner.execute(flow, run_id=f"r{{number}}") for number in range(3)))

asyncio.run(main())
"""


@pytest.mark.anyio
@pytest.mark.parametrize(("error", "code"), [("SystemExit(3)", 3), ("KeyboardInterrupt", -2)])
async def test_the_process_ends_and_its_runs_can_be_resumed(error: str, code: int, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    script = [sys.executable, "-X", "dev", "-c", SERVICE.format(error=error), url]
    ended = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)  # noqa: ASYNC221
    assert ended.returncode == code, ended.stderr
    assert "never retrieved" not in ended.stderr
    assert "was destroyed" not in ended.stderr
    flow = Workflow("leaving", [Step.lambda_(name, lambda context, config: None) for name in ("first", "leave")])
    runner = WorkflowRunner(config=WorkflowRunnerConfig(database_url=url))
    for run in await runner.list_runs():
        assert (run.status, run.stop_reason) == ("pending", None)
        assert (await runner.resume(run.run_id, workflow=flow)).completed_steps == ["first", "leave"]
