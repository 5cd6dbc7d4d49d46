"""A step that awaits another run of its runner cannot block it."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from spine_async import Enqueued, Step, Workflow, WorkflowContext, WorkflowRunner
from tests.service.conftest import StartService
from tests.service.flows import Config, Notes
from tests.service.places import Place
from tests.service.services import until


@pytest.mark.parametrize("how", ["execute", "start", "enqueue"])
@pytest.mark.parametrize(
    "config", [{"worker_concurrency": 1}, {"max_concurrent_steps": 1}], ids=lambda c: next(iter(c))
)
async def test_a_step_that_awaits_another_run_gives_up_its_slot(place: Place, how: str, config: dict[str, Any]) -> None:
    async def inner(context: WorkflowContext, config: Config) -> dict[str, object]:
        return {"from": context.run_id}

    async def outer(context: WorkflowContext, config: Config) -> dict[str, object]:
        run_id = f"{context.run_id}-child"
        if how == "execute":
            result = await runner.execute(child, run_id=run_id)
        else:
            result = await (await getattr(runner, how)(child, run_id=run_id)).result()
        return {"status": result.status}

    child = Workflow("child", [Step.lambda_("inner", inner)])
    parent = Workflow("parent", [Step.lambda_("outer", outer)])
    async with place.runner(config=config, workflows=[parent, child]) as runner:
        handles = [await runner.enqueue(parent, run_id=f"p{number}") for number in range(3)]
        for handle in handles:
            result = await handle.result(timeout=10)
            assert result.context.get_output("outer", "status") == "completed"


async def test_more_runs_than_one_claim_takes_begin_without_a_pause(place: Place) -> None:
    count, begun = 450, 0
    everything_began = anyio.Event()

    async def block(context: WorkflowContext, config: Config) -> None:
        nonlocal begun
        begun += 1
        if begun == count:
            everything_began.set()
        await everything_began.wait()

    flow = Workflow("block", [Step.lambda_("block", block)])
    config = {"worker_concurrency": 1_000, "poll_interval": 60.0}
    async with place.runner(config=config, work=False) as producer:
        await producer.enqueue_many(flow, [Enqueued() for _ in range(count)])
    async with place.runner(config=config, workflows=[flow]):
        with anyio.fail_after(30):
            await everything_began.wait()


@pytest.mark.slow
async def test_a_parent_and_its_child_complete_when_both_are_killed(
    service: StartService, observer: WorkflowRunner, notes: Notes
) -> None:
    handles = [await observer.enqueue("nested", run_id=f"p{number}") for number in range(5)]
    for kill in range(3):
        process, before = await service(), len(notes.read())
        if kill == 0:
            await until(lambda: all(notes.begun(f"{handle.run_id}-child") for handle in handles))
        else:
            await until(lambda before=before: len(notes.read()) > before)
        await process.kill()
    await service()
    with anyio.fail_after(20):
        for handle in handles:
            result = await handle.result()
            assert result.context.get_output("hold", "steps") == ["hold", "last"]
