"""Fixtures for tests of workflows; `pytest_plugins = ["spine_async.testing.plugin"]` in `conftest.py` adds them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

import pytest

from spine_async._model.config import WorkflowRunnerConfig
from spine_async.ports import RunStore
from spine_async.runner import WorkflowRunner
from spine_async.storage.memory import MemoryRunStore


class MakeRunner(Protocol):
    """Makes a runner on the store of the test; takes all arguments of `WorkflowRunner`."""

    def __call__(self, **settings: Any) -> WorkflowRunner: ...


@pytest.fixture
def run_store() -> RunStore:
    """The store of the test: an empty one in memory. Override it to test with a database."""
    return MemoryRunStore()


@pytest.fixture
def runner_config() -> WorkflowRunnerConfig:
    """Settings of the runners of the test: without spans, and with short waits. Override it for others."""
    return WorkflowRunnerConfig(trace_enabled=False, poll_interval=0.05, drain_timeout=0.5, cancel_grace=0.5)


@pytest.fixture
def make_runner(run_store: RunStore, runner_config: WorkflowRunnerConfig) -> MakeRunner:
    """Makes runners that share the store of the test, as several processes share a database."""

    def make(**settings: Any) -> WorkflowRunner:
        return WorkflowRunner(**{"store": run_store, "config": runner_config, **settings})

    return make


@pytest.fixture
async def workflow_runner(make_runner: MakeRunner) -> AsyncIterator[WorkflowRunner]:
    """An entered runner on the store of the test. It needs a plugin for async fixtures, such as that of anyio."""
    async with make_runner() as runner:
        yield runner
