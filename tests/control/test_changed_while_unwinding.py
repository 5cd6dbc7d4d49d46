"""Workers with another definition meet runs that are to be compensated."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from spine_async import RunHandle, RunStatus, Step, Workflow, WorkflowContext
from tests.service.places import Place
from tests.service.services import until

pytestmark = pytest.mark.anyio

PARKS: dict[str, Any] = {"park_after": 0.0, "poll_interval": 0.02}


class Saga:
    """A workflow with a map; notes what was undone, by path."""

    def __init__(self) -> None:
        self.undone: list[str] = []

    async def work(self, context: WorkflowContext, config: dict[str, Any]) -> None:
        if config.get("fails"):
            raise ConnectionError("gone")

    async def undo(self, context: WorkflowContext, config: dict[str, Any]) -> None:
        self.undone.append(str(context.idempotency_key).partition("/")[2])

    def step(self, name: str) -> Step:
        return Step.lambda_(name, self.work, compensate=self.undo)

    def workflow(self, inner: str, *after: Step) -> Workflow:
        """The items wait for a signal, unless steps follow the map."""
        item = [self.step(inner), *([] if after else [Step.wait_for_signal("approval")])]
        return Workflow("saga", [self.step("a"), Step.map("m", items=[1, 2], iterator=Workflow(steps=item)), *after])


async def is_parked(handle: RunHandle) -> bool:
    record = await handle.record()
    return (record.status, record.owner) == (RunStatus.WAITING, None)


async def is_put_off(handle: RunHandle) -> bool:
    due_at = (await handle.record()).due_at
    return due_at is not None and due_at - datetime.now(UTC) > timedelta(seconds=50)


async def test_an_unfinished_map_with_other_steps_is_left_to_a_worker_with_its_definition(place: Place) -> None:
    saga = Saga()
    stored, changed = saga.workflow("i"), saga.workflow("j")
    async with place.runner(work=False) as producer:
        handle = await producer.enqueue(stored)
        async with place.runner(workflows=[stored], config=PARKS):
            await until(lambda: is_parked(handle))
        assert await handle.stop("enough", compensate=True)
        async with place.runner(workflows=[changed], config=PARKS):
            await until(lambda: is_put_off(handle))
        assert saga.undone == []
        assert await handle.stop("now", compensate=True)
        async with place.runner(workflows=[stored], config=PARKS) as runner:
            result = await runner.handle(handle.run_id).result(timeout=10)
    assert (result.status, result.stop_reason) == ("stopped", "enough")
    assert sorted(result.compensated_steps) == ["a", "m[0]/i", "m[1]/i"]


async def test_a_finished_map_with_other_steps_keeps_nothing_from_being_compensated(place: Place) -> None:
    saga = Saga()
    wait = Step.wait_for_signal("approval")
    stored, changed = saga.workflow("i", wait), saga.workflow("j", wait)
    async with place.runner(work=False) as producer:
        handle = await producer.enqueue(stored)
        async with place.runner(workflows=[stored], config=PARKS):
            await until(lambda: is_parked(handle))
        assert await handle.stop("enough", compensate=True)
        async with place.runner(workflows=[changed], config=PARKS) as runner:
            result = await runner.handle(handle.run_id).result(timeout=10)
    assert (result.status, result.compensated_steps, saga.undone) == ("stopped", ["a"], ["a~compensate"])


async def test_steps_of_an_earlier_cleanup_keep_nothing_from_being_compensated(place: Place) -> None:
    saga = Saga()
    tidy = Step.map("tidy", items=[1], iterator=Workflow(steps=[Step.lambda_("sweep", saga.work)]))
    after = [Step.wait_for_signal("approval"), Step.lambda_("fail", saga.work, {"fails": True})]
    workflow = Workflow("saga", [saga.step("a"), *after], cleanup=[tidy])
    async with place.runner(config=PARKS) as runner:
        handle = await runner.start(workflow)
        await until(lambda: is_parked(handle))
        assert await handle.stop()
        assert (await handle.result(timeout=10)).status == "stopped"
        await handle.signal("approval", 1)
        result = await runner.resume(handle.run_id)
    assert (result.status, result.error_step, result.compensated_steps) == ("failed", "fail", ["a"])
