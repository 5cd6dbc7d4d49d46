"""A retried map is not mistaken for a map whose items do not end."""

from __future__ import annotations

import anyio
import pytest

from spine_async import RetryPolicy, RunStatus, Step, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig
from spine_async.storage import MemoryRunStore

pytestmark = pytest.mark.anyio


async def test_a_second_attempt_may_take_longer_than_the_grace_of_the_first() -> None:
    tries = 0
    reasons: list[str | None] = []

    async def fails_once(context: WorkflowContext, config: dict[str, object]) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ConnectionError("once")
        await anyio.sleep(0.8)  # the watcher must see this much time pass
        reasons.append(context.cancel_reason)

    step = Step.map("each", items=[1], iterator=fails_once, retry=RetryPolicy(initial_delay=0))
    runner = WorkflowRunner(store=MemoryRunStore(), config=WorkflowRunnerConfig(cancel_grace=0.3))
    result = await runner.execute(Workflow("w", [step]))
    assert (result.status, result.error, reasons) == (RunStatus.COMPLETED, None, [None])
