"""A place where runs are stored: shared memory, or a database."""

from __future__ import annotations

from typing import Any

from spine_async import WorkflowRunner, WorkflowRunnerConfig
from spine_async.storage import MemoryRunStore

LEASE_TTL = 60.0  # so long that a test which waits for the end of a lease fails


class Place:
    """Opens runners that share one store, as processes share a database."""

    def __init__(self, url: str | None) -> None:
        self.url = url
        self._memory = MemoryRunStore() if url is None else None

    def runner(self, *, config: dict[str, Any] | None = None, **settings: Any) -> WorkflowRunner:
        chosen = {"lease_ttl": LEASE_TTL, "drain_timeout": 0.2, "trace_enabled": False, **(config or {})}
        if self._memory is not None:
            return WorkflowRunner(store=self._memory, config=WorkflowRunnerConfig(**chosen), **settings)
        return WorkflowRunner(config=WorkflowRunnerConfig(database_url=self.url, **chosen), **settings)
