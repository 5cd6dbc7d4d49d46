"""Fixtures: a dashboard over a store in memory or a database, and clients of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from spine_async import WorkflowRunner, WorkflowRunnerConfig
from spine_async.storage import MemoryRunStore
from tests.dashboard.board import Board
from tests.dashboard.flows import QUEUES, SCHEDULES, WORKFLOWS
from tests.plain_http import NO_CERTIFICATES

CONFIG: dict[str, Any] = {"park_after": 0.0, "drain_timeout": 0.2, "trace_enabled": False, "lease_ttl": 60.0}


@pytest.fixture
async def runner() -> AsyncIterator[WorkflowRunner]:
    """A working runner that knows the workflows of the tests."""
    config = WorkflowRunnerConfig(**CONFIG)
    made = WorkflowRunner(
        store=MemoryRunStore(), config=config, workflows=WORKFLOWS, queues=QUEUES, schedules=SCHEDULES
    )
    async with made:
        yield made


@pytest.fixture
async def board(runner: WorkflowRunner) -> AsyncIterator[Board]:
    """The dashboard of this runner, for somebody who may do everything."""
    async with httpx.AsyncClient(verify=NO_CERTIFICATES) as client:
        yield Board(runner, client)
