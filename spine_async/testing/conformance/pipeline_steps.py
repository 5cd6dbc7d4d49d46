"""Steps and runs that the contract of dispatchers is tested with."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import anyio

from spine_async._model.step import Step
from spine_async._model.workflow import Workflow
from spine_async._model.workflow_result import WorkflowResult
from spine_async.ports import Dispatcher
from spine_async.runner import WorkflowRunner
from spine_async.storage.memory import MemoryRunStore

LONGEST_WAIT = 30.0
"""Seconds until a test gives up; a slow machine must not fail it."""


def pipeline_step(pipeline: str, params: dict[str, Any] | None = None, **options: Any) -> Workflow:
    """A workflow of one pipeline step, `step`."""
    return Workflow("conformance", [Step.pipeline("step", f"conformance.{pipeline}", params or {}, **options)])


def runner_of(dispatcher: Dispatcher, **options: Any) -> WorkflowRunner:
    """A runner without a disk."""
    return WorkflowRunner(store=MemoryRunStore(), dispatcher=dispatcher, **options)


async def executed(dispatcher: Dispatcher, flow: Workflow, **options: Any) -> WorkflowResult:
    """The result of a run."""
    async with runner_of(dispatcher) as runner:
        with anyio.fail_after(LONGEST_WAIT):
            return await runner.execute(flow, **options)


async def appears(folder: Path, name: str) -> str:
    """Wait until a pipeline has written a file; returns its text."""
    file = anyio.Path(folder / name)
    give_up_at = time.monotonic() + LONGEST_WAIT
    while not await file.exists():
        assert time.monotonic() < give_up_at, f"no pipeline has written {name} within {LONGEST_WAIT} s"
        await anyio.sleep(0.005)
    return await file.read_text()


async def touch(folder: Path, name: str) -> None:
    """Create a file that a pipeline waits for."""
    await anyio.Path(folder / name).touch()
