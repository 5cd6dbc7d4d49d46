"""Waits for runs that are executed elsewhere, when their runner is left, entered again, or used in another loop."""

from __future__ import annotations

import asyncio
import time

from spine_async import Step, Workflow, WorkflowRunner
from spine_async.storage import MemoryRunStore
from tests.service.places import Place

FLOW = Workflow("short", [Step.wait("nap", 0.05)])
SELDOM = 30.0  # the looks at the store that nothing wakes


def _tasks() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()}


async def test_a_runner_that_is_left_has_no_task_that_looks_at_awaited_runs(database: Place) -> None:
    async with database.runner(workflows=[FLOW]) as worker:
        handle = await worker.enqueue(FLOW)
        before = _tasks()
        async with database.runner(work=False, config={"poll_interval": SELDOM}) as reader:
            assert (await reader.handle(handle.run_id).result(timeout=10)).status == "completed"
        assert "spine_async waits" not in _tasks() - before


async def test_a_runner_that_is_entered_again_waits_as_before(database: Place) -> None:
    async with database.runner(workflows=[FLOW]) as worker:
        reader = database.runner(work=False, config={"poll_interval": SELDOM})
        began = time.monotonic()
        for _ in range(3):
            async with reader:
                handle = await worker.enqueue(FLOW)
                assert (await reader.handle(handle.run_id).result(timeout=10)).status == "completed"
        assert time.monotonic() - began < SELDOM / 2


def test_a_loop_that_is_closed_without_its_tasks_delays_no_wait_in_the_next_one() -> None:
    store = MemoryRunStore()
    runner = WorkflowRunner(store=store)

    async def wait_for_another_runner(run_id: str) -> None:
        async with WorkflowRunner(store=store, workflows=[FLOW]) as worker:
            await worker.enqueue(FLOW, run_id=run_id)
            await runner.handle(run_id).result(timeout=10)

    for run_id in ("one", "two"):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(wait_for_another_runner(run_id))
        loop.close()
