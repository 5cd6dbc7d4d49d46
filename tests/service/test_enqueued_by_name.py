"""A run that was enqueued by the name of its workflow learns the definition from the first process that executes it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from spine_async import RunHandle, Step, Workflow, WorkflowContext, WorkflowRunner
from tests.service.flows import Config
from tests.service.places import Place
from tests.service.services import until

SOON = 10.0


class Notes:
    """What the handlers have done."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.begun = anyio.Event()

    def workflow(self, *steps: Step, **options: Any) -> Workflow:
        cleanup = [Step.lambda_("tidy", self._tidy)]
        return Workflow("flow", [Step.lambda_("first", self._first), *steps], version=3, cleanup=cleanup, **options)

    async def _first(self, context: WorkflowContext, config: Config) -> dict[str, int]:
        self.begun.set()
        return {"x": 1}

    async def _tidy(self, context: WorkflowContext, config: Config) -> None:
        self.lines.append("tidy")


@pytest.fixture
async def caller(place: Place) -> AsyncIterator[WorkflowRunner]:
    """A runner that does not know the workflow and does not work."""
    async with place.runner(work=False) as runner:
        yield runner


async def test_its_record_has_the_number_of_steps_from_its_first_commit(place: Place, caller: WorkflowRunner) -> None:
    notes = Notes()
    workflow = notes.workflow(Step.wait_for_signal("go"))
    handle = await caller.enqueue("flow", run_id="r")
    assert ((await handle.record()).total_steps, (await handle.record()).workflow_version) == (0, 0)
    async with place.runner(workflows=[workflow], config={"park_after": 0.0}):
        await _status(handle, "waiting")
        record = await handle.record()
        assert (record.total_steps, record.workflow_version) == (2, 3)
        assert [each.total_steps for each in await caller.list_runs()] == [2]
        events = [each async for each in handle.events()]
        assert events[0].metadata == {"workflow_version": 3, "total_steps": 2}
        await handle.signal("go", 1)
        assert (await handle.result(timeout=SOON)).total_steps == 2
    assert (await caller.handle("r").result()).total_steps == 2  # where the definition is not known


@pytest.mark.parametrize("how", ["execute", "start", "resume"])
async def test_a_call_that_continues_it_stores_the_definition_too(place: Place, how: str) -> None:
    workflow = Notes().workflow()
    async with place.runner(work=False) as runner:
        await runner.enqueue("flow", run_id="r")
        if how == "execute":
            result = await runner.execute(workflow, run_id="r")
        elif how == "start":
            result = await (await runner.start(workflow, run_id="r")).result(timeout=SOON)
        else:
            result = await runner.resume("r", workflow=workflow)
        record = await runner.get_run("r")
        events = [each async for each in runner.handle("r").events()]
    assert (result.status, result.total_steps) == ("completed", 1)
    assert (record.total_steps, record.workflow_version) == (1, 3)
    assert events[0].metadata == {"workflow_version": 3, "total_steps": 1}


async def test_it_cleans_up_when_it_is_stopped_while_it_is_parked(place: Place, caller: WorkflowRunner) -> None:
    """Whether it has cleanup steps is part of what it learns."""
    notes = Notes()
    handle = await caller.enqueue("flow", run_id="r")
    async with place.runner(workflows=[notes.workflow(Step.wait_for_signal("go"))], config={"park_after": 0.0}):
        await _status(handle, "waiting")
        await handle.stop("enough")
        result = await handle.result(timeout=SOON)
    assert (result.status, result.stop_reason, notes.lines) == ("stopped", "enough", ["tidy"])


class Params(BaseModel):
    size: int = 3


async def test_its_params_are_completed_once(place: Place, caller: WorkflowRunner) -> None:
    workflow = Notes().workflow(params_model=Params)
    handle = await caller.enqueue("flow", params={"note": "a"}, run_id="r")
    async with place.runner(workflows=[workflow]):
        assert (await handle.result(timeout=SOON)).context.params == {"note": "a", "size": 3}
        again = await caller.enqueue("flow", params={"note": "a"}, run_id="r")
        assert (await again.record()).total_steps == 1


async def _status(handle: RunHandle, status: str) -> None:
    async def has_status() -> bool:
        return await handle.status() == status

    await until(has_status, within=SOON)
