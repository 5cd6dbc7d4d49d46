"""Releases the runs that are held in the name of a runner with `work=False` and that it does not execute.

The answer to a creation or a claim may have been lost, or a run could not be released. As long as the process lives, no
other runner on this host claims such a run, because its owner might be executing it. A working runner finds its own in
its sweeps.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from dataclasses import dataclass, field

import anyio

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.service.active_runs import ActiveRuns
from spine_async._engine.service.background import BackgroundTask
from spine_async._engine.tasks import run_shielded
from spine_async.errors import StoreError

_log = logging.getLogger("spine_async")


@dataclass(slots=True)
class StrandedRuns:
    """Releases such runs once per `lease_ttl`, while the runner is entered."""

    runtime: Runtime
    active_runs: ActiveRuns
    _task: BackgroundTask = field(default_factory=lambda: BackgroundTask("spine_async stranded runs"))

    def start(self) -> None:
        """Begin, unless it has begun."""
        if not self._task.is_running:
            self._task.start(self._work())

    async def end_with(self, rest: Awaitable[None]) -> None:
        """Await `rest`, and wait for the call of the store that is under way."""
        await self._task.end_with(rest)

    async def _work(self) -> None:
        runtime = self.runtime
        while True:
            await anyio.sleep(runtime.config.lease_ttl)
            call = runtime.due_runs.sweep(lapsed=[runtime.owner], spared=self.active_runs.run_ids)
            try:
                await run_shielded(call, "spine_async stranded runs")
            except StoreError as exc:
                _log.debug("stranded runs were not released; it will be retried: %s", exc)
            except Exception:  # noqa: BLE001 - it must not end with one error
                _log.exception("stranded runs were not released; it will be retried")
