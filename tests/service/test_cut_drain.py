"""A drain that is cut short, and what a runner says of itself."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from spine_async import Queue, Step, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig
from spine_async.storage import MemoryRunStore

pytestmark = pytest.mark.anyio

PATIENCE = 20.0


async def test_running_steps_are_cancelled_at_once() -> None:
    began, reasons = anyio.Event(), []

    async def work_for_ever(context: WorkflowContext, config: dict[str, Any]) -> None:
        began.set()
        try:
            await anyio.sleep_forever()
        finally:
            reasons.append(context.cancel_reason)

    async def cut() -> None:
        await anyio.wait_all_tasks_blocked()  # the runner waits for the step
        runner.cut_drain_short()

    config = WorkflowRunnerConfig(drain_timeout=60)  # too long for the suite
    runner = WorkflowRunner(store=MemoryRunStore(), config=config)
    async with anyio.create_task_group() as tasks, runner:
        handle = await runner.start(Workflow("long", [Step.lambda_("work", work_for_ever)]))
        with anyio.fail_after(PATIENCE):
            await began.wait()
        runner.cut_drain_short()  # nothing is drained yet
        assert reasons == []
        leaves_at = anyio.current_time()
        tasks.start_soon(cut)
    assert anyio.current_time() - leaves_at < PATIENCE
    assert reasons == ["shutdown"]
    record = await handle.record()
    assert (record.status, record.due_at is not None) == ("pending", True)


async def test_a_drain_of_nothing_can_be_cut_short() -> None:
    runner = WorkflowRunner(store=MemoryRunStore())
    runner.cut_drain_short()
    async with runner:
        pass
    runner.cut_drain_short()


def test_what_a_runner_works_on() -> None:
    runner = WorkflowRunner(store=MemoryRunStore(), queues=[Queue("mail", concurrency=1), "print"])
    assert runner.works
    assert runner.queue_names == {"default", "mail", "print"}
    assert not WorkflowRunner(store=MemoryRunStore(), work=False).works
