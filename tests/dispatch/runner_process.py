"""A process that executes a run whose pipeline runs on a Dask cluster, to be killed.

python runner_process.py ADDRESS DATABASE_URL FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import anyio

from spine_async import Step, Workflow, WorkflowRunner, WorkflowRunnerConfig
from spine_async.dispatch.dask import DaskDispatcher

REGISTRY = "spine_async.testing.conformance.pipelines:CONFORMANCE_PIPELINES"


def runner(address: str, database_url: str) -> WorkflowRunner:
    config = WorkflowRunnerConfig(database_url=database_url, lease_ttl=2, drain_timeout=0.05)
    return WorkflowRunner(config=config, dispatcher=DaskDispatcher(address, pipelines=REGISTRY), work=False)


def flow(folder: Path) -> Workflow:
    return Workflow("joins", [Step.pipeline("step", "conformance.ignore", {"folder": str(folder)})])


async def execute(address: str, database_url: str, folder: Path) -> None:
    async with runner(address, database_url) as entered:
        await entered.execute(flow(folder), run_id="r")


if __name__ == "__main__":
    anyio.run(execute, sys.argv[1], sys.argv[2], Path(sys.argv[3]))
