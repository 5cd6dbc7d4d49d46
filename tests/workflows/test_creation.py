"""A run is stored but its creation is not acknowledged, as when the event loop ends: the runner still owns it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import anyio
import pytest

from spine_async import RunRecord, Step, Workflow, WorkflowContext, WorkflowRunner
from spine_async._model.run_claim import Claim
from spine_async._model.run_row import NewRun
from spine_async.storage import SqlRunStore


class Hesitant(SqlRunStore):
    """Stores the first creation, and returns only when the call is cancelled."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.stored = asyncio.Event()

    async def create(self, runs: Sequence[NewRun]) -> list[Claim | None]:
        claims = await super().create(runs)
        if not self.stored.is_set():
            self.stored.set()
            await anyio.sleep_forever()
        return claims


async def nothing(context: WorkflowContext, config: dict[str, object]) -> None:
    return None


WORKFLOW = Workflow("w", [Step.lambda_("only", nothing)])


def test_a_run_stored_as_the_loop_ends_is_given_up_and_can_be_resumed(database_url: str) -> None:
    store = Hesitant(database_url)

    async def leave() -> None:
        runner = WorkflowRunner(store=store)
        executing = asyncio.create_task(runner.execute(WORKFLOW, run_id="r"))
        await store.stored.wait()
        assert not executing.done()

    async def look() -> tuple[RunRecord, str]:
        async with WorkflowRunner(store=store) as other:
            left = await other.get_run("r")
            return left, (await other.resume("r", workflow=WORKFLOW)).status

    asyncio.run(leave())
    left, status = asyncio.run(look())
    assert (left.status, status) == ("pending", "completed")


@pytest.mark.anyio
async def test_a_creation_whose_writer_is_cancelled_is_made_once(database_url: str) -> None:
    """The run was not resumed, so it has no event that says so."""
    store = Hesitant(database_url)
    runner = WorkflowRunner(store=store)

    async def execute() -> None:
        await runner.execute(WORKFLOW, run_id="r")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(execute)
        await store.stored.wait()
        (writer,) = (task for task in asyncio.all_tasks() if task.get_name() == "spine_async journal")
        writer.cancel()
    events = [event.event_type async for event in runner.events("r")]
    assert events == ["workflow_started", "step_started", "step_completed", "workflow_completed"]
