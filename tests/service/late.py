"""Calls whose answers, or whose ends, come late."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from spine_async import Step, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig
from spine_async.ports import RunStore
from spine_async.testing.faults import Hang
from tests.service.flows import Config

LEASE = 60.0  # so long that a test which waits for the end of a lease fails


def late_runner(store: RunStore, flow: Workflow, *, work: bool = False, **config: Any) -> WorkflowRunner:
    """A runner that polls often and whose leases last."""
    chosen = WorkflowRunnerConfig(**{"lease_ttl": LEASE, "poll_interval": 0.05, "trace_enabled": False, **config})
    return WorkflowRunner(store=store, config=chosen, workflows=[flow], work=work)


def spawn(call: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """The call in a task of its own."""
    return asyncio.get_running_loop().create_task(call)


async def cancel_before(call: asyncio.Task[Any], hang: Hang) -> None:
    """Cancel a call that waits for a call of the store, and let the store answer once the cancellation has arrived."""
    await _turns()
    call.cancel()
    await _turns()
    hang.release.set()


async def _turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def answer(call: asyncio.Task[Any]) -> Any:
    """The result of a call, or its error."""
    await asyncio.wait([call], timeout=15)
    assert call.done(), "the call does not end"
    return call.exception() or call.result()


async def is_cancelled(call: asyncio.Task[Any]) -> bool:
    """Whether a call ends with its cancellation."""
    await asyncio.wait([call], timeout=15)
    assert call.done(), "the call does not end"
    return call.cancelled()


class Failing:
    """A workflow whose one step fails; `begun` has an entry for each attempt."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.flow = Workflow("failing", [Step.lambda_("step", self._step)], defaults={"size": 1})

    async def _step(self, context: WorkflowContext, config: Config) -> None:
        self.begun.append(context.run_id)
        raise ValueError("as planned")
