"""Visits and items of maps without their values, as pages about a run read them."""

from __future__ import annotations

from typing import Any

import pytest

from spine_async import (
    MapItems,
    RunNotFoundError,
    Step,
    StepError,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
)
from spine_async.storage import FileRunStore
from tests.service.places import Place

pytestmark = pytest.mark.anyio


async def note(context: WorkflowContext, config: Any) -> dict[str, object]:
    return {"path": str(context.idempotency_key).partition("/")[2]}


async def fail_odd(context: WorkflowContext, config: Any) -> dict[str, object]:
    if context.params["item"] % 2:
        raise StepError("<b>odd</b>", category="DATA_QUALITY")
    return {"item": context.params["item"]}


INNER = Workflow(
    steps=[Step.lambda_("a", note), Step.map("deep", items=range(3), iterator=fail_odd, tolerated_failures=2)]
)
FLOW = Workflow(
    "shown",
    [
        Step.lambda_("first", note),
        Step.map("each", items=range(12), iterator=fail_odd, tolerated_failures=6),
        Step.map("outer", items=range(2), iterator=INNER),
        Step.lambda_("bad", fail_odd, on_error="continue"),
    ],
)


async def executed(runner: WorkflowRunner) -> None:
    await runner.execute(FLOW, run_id="r", params={"item": 1})


async def check_items(runner: WorkflowRunner) -> MapItems:
    each = await runner.map_items("r", "each")
    assert [state.index for state in each.states] == list(range(12))
    assert [state.has_failed for state in each.states] == [bool(index % 2) for index in range(12)]
    assert {state.has_ended for state in each.states} == {True}
    failed = each.states[1]
    assert (failed.error, failed.error_category) == ("StepError: <b>odd</b>", "DATA_QUALITY")
    assert each.total == 12
    outer = await runner.map_items("r", "outer")
    assert [(state.index, state.has_ended, state.has_failed) for state in outer.states] == [
        (0, True, False),
        (1, True, False),
    ]
    deep = await runner.map_items("r", "outer[1]/deep")
    assert [(state.index, state.has_failed) for state in deep.states] == [(0, False), (1, True), (2, False)]
    assert (await runner.map_items("r", "nothing")) == MapItems("nothing", [], None)
    return each


async def test_the_items_of_a_map_are_read_in_one_call(place: Place) -> None:
    async with place.runner() as runner:
        await executed(runner)
        each = await check_items(runner)
        assert each.states[0].attempts == 1
        assert each.states[0].duration > 0
        with pytest.raises(RunNotFoundError):
            await runner.map_items("unknown", "each")


async def test_a_store_without_outlines_reads_the_events(tmp_path: Any) -> None:
    async with WorkflowRunner(store=FileRunStore(tmp_path)) as runner:
        await executed(runner)
        await check_items(runner)
        assert [visit.path for visit in await runner.list_visits("r")] == ["first", "each", "outer", "bad"]


async def test_an_item_that_completes_after_a_resume_has_completed(place: Place) -> None:
    fails = {1}

    async def fail_some(context: WorkflowContext, config: Any) -> dict[str, object]:
        if context.params["item"] in fails:
            raise StepError("not yet")
        return {}

    flow = Workflow("again", [Step.map("each", items=range(3), iterator=fail_some)])
    async with place.runner() as runner:
        await runner.execute(flow, run_id="r")
        assert [state.index for state in (await runner.map_items("r", "each")).states if state.has_failed] == [1]
        fails.clear()
        await runner.resume("r", workflow=flow)
        states = (await runner.map_items("r", "each")).states
        assert [(state.has_ended, state.has_failed) for state in states] == [(True, False)] * 3


async def test_visits_are_listed_with_and_without_values(place: Place) -> None:
    async with place.runner() as runner:
        await executed(runner)
        visits = await runner.list_visits("r")
        assert [(visit.path, visit.kind, visit.status) for visit in visits] == [
            ("first", "lambda", "completed"),
            ("each", "map", "completed"),
            ("outer", "map", "completed"),
            ("bad", "lambda", "failed"),
        ]
        assert [visit.output for visit in visits] == [None] * 4
        assert visits[0].output_size > 0
        assert visits[3].error == "StepError: <b>odd</b>"
        assert visits[3].error_category == "DATA_QUALITY"
        with_values = await runner.list_visits("r", with_values=True)
        assert with_values[0].output == {"path": "first"}
        assert (with_values[0].updates, with_values[0].appended) == ({}, {})
        assert [visit.path for visit in await runner.list_visits("r", after=visits[1].seq)] == ["outer", "bad"]
        assert [visit.path for visit in await runner.list_visits("r", limit=1)] == ["first"]
        inner = await runner.list_visits("r", inside="outer")
        assert {"outer[0]/a", "outer[1]/a", "outer[0]/deep[0]/item", "outer[1]/deep"} <= {each.path for each in inner}
        with pytest.raises(RunNotFoundError):
            await runner.list_visits("unknown")
        with pytest.raises(ValueError, match="limit"):
            await runner.list_visits("r", limit=0)


async def test_a_record_has_the_number_of_its_last_event(place: Place) -> None:
    async with place.runner() as runner:
        await executed(runner)
        record = await runner.get_run("r", with_outputs=False)
        assert record.outputs is None
        assert (await runner.get_run("r")).outputs is not None
        last = [event.seq async for event in runner.events("r", after=record.last_seq - 1)]
        assert last == [record.last_seq]
