"""Fixtures: runners on one store in memory, in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from spine_async import WorkflowRunner, WorkflowRunnerConfig
from spine_async.storage import MemoryRunStore
from spine_async.testing import VirtualClock, VirtualTimeLoop

MakeRunner = Callable[..., WorkflowRunner]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "asyncio", {"loop_factory": VirtualTimeLoop}


@pytest.fixture
def store() -> MemoryRunStore:
    return MemoryRunStore(VirtualClock())


@pytest.fixture
def make_runner(store: MemoryRunStore) -> MakeRunner:
    """Creates runners that share one store, as processes share a database; keywords are fields of the config."""

    def make(workflows: Any = (), work: bool = False, meter_provider: Any = None, **config: Any) -> WorkflowRunner:
        return WorkflowRunner(
            store=store,
            clock=VirtualClock(),
            workflows=workflows,
            work=work,
            meter_provider=meter_provider,
            config=WorkflowRunnerConfig(**config),
        )

    return make
