"""A caller claims a run that others have executed since the caller has loaded it."""

from __future__ import annotations

import anyio
import pytest

from spine_async import RunHandle, Step, StepError, Workflow, WorkflowContext
from spine_async._model.visit_filter import OWN_VISITS
from spine_async.testing import FaultInjectingStore
from tests.service.flows import Config
from tests.service.late import answer, late_runner, spawn
from tests.service.services import until


class Noted:
    """A workflow that waits for a signal after its first step; `begun` has the names of the steps that have begun."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.fails = False
        self.flow = Workflow(
            "noted",
            [Step.lambda_("first", self._note), Step.wait_for_signal("go"), Step.lambda_("last", self._last)],
            defaults={"size": 1},
        )

    async def _note(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        self.begun.append("first")
        return {"n": len(self.begun)}

    async def _last(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        self.begun.append("last")
        if self.fails:
            raise StepError("as planned", category="VALIDATION")
        return {"n": context.get_output("first", "n"), "size": context.params["size"]}


@pytest.mark.parametrize("verb", ["execute", "resume"])
@pytest.mark.parametrize("by_name", [False, True])
async def test_a_run_that_has_begun_since_it_was_loaded_is_not_begun_again(
    store: FaultInjectingStore, verb: str, by_name: bool
) -> None:
    noted = Noted()
    params = {} if by_name else {"size": 2}
    async with late_runner(store, noted.flow) as caller:
        hang = store.hang("claim")
        handle = await caller.enqueue(noted.flow.name if by_name else noted.flow, run_id="r", params=params)
        call = caller.resume("r") if verb == "resume" else caller.execute(noted.flow, run_id="r", params=params)
        calling = spawn(call)
        await hang.reached.wait()
        async with late_runner(store, noted.flow, work=True):
            await until(lambda: is_parked(store))
        hang.release.set()
        await handle.signal("go", 1)
        result = await answer(calling)
    assert noted.begun == ["first", "last"]
    assert result.status == "completed", result
    assert result.context.get_output("last") == {"n": 1, "size": params.get("size", 1)}


async def test_a_run_that_a_newer_version_has_ended_since_it_was_loaded(store: FaultInjectingStore) -> None:
    gate, old = anyio.Event(), Noted().flow

    async def last(context: WorkflowContext, config: Config) -> None:
        await gate.wait()

    new = Workflow("noted", [old.steps[0], Step.lambda_("z", last)], version=2, defaults={"size": 1})
    async with late_runner(store, old) as caller, late_runner(store, new, work=True):
        handle = await caller.enqueue(old, run_id="r")
        await until(lambda: has_finished_a_step(store))
        hang = store.hang("load", call=store.calls["load"] + 1, moment="after")
        calling = spawn(caller.execute(old, run_id="r"))
        await hang.reached.wait()
        gate.set()
        await until(lambda: has_ended(handle))
        hang.release.set()
        result = await answer(calling)
    assert result.completed_steps == ["first", "z"]


async def has_finished_a_step(store: FaultInjectingStore) -> bool:
    return bool(await store.visits("r", OWN_VISITS))


async def has_ended(handle: RunHandle) -> bool:
    return (await handle.status()).is_final


async def is_parked(store: FaultInjectingStore) -> bool:
    found = await store.load("r")
    return found is not None and found.status == "waiting" and found.owner is None
