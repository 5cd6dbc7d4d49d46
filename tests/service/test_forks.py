"""Forks: a new run with the finished steps of another one, edited, from any state of that run."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from spine_async import (
    DefinitionError,
    InvalidParamsError,
    RunConflictError,
    RunNotFoundError,
    RunStatus,
    Step,
    StepError,
    StepResult,
    StoreError,
    StoreUnavailableError,
    Workflow,
    WorkflowChangedError,
    WorkflowContext,
    WorkflowResult,
)
from spine_async.storage import MemoryRunStore
from spine_async.testing import FaultInjectingStore
from tests.service.flows import Config
from tests.service.places import Place
from tests.service.services import until


class Amount(BaseModel):
    value: int


class Orders:
    """Three steps and a map; the last step fails while `is_broken`, and waits while `gate` is closed."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, str]] = []
        self.is_broken = False
        self.gate = anyio.Event()
        self.gate.set()
        steps = [
            Step.lambda_("load", self._load, output_model=Amount),
            Step.map("each", items=[1, 2], iterator=self._item),
            Step.lambda_("sum", self._sum),
            Step.lambda_("send", self._send),
        ]
        self.flow = Workflow("orders", steps, defaults={"factor": 1, "by": "Ada"})

    def _note(self, context: WorkflowContext) -> None:
        self.ran.append((context.run_id, str(context.idempotency_key).partition("/")[2]))

    def _load(self, context: WorkflowContext, config: Config) -> StepResult:
        self._note(context)
        return StepResult.ok({"value": 10}, context_updates={"seen": "load"})

    def _item(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        self._note(context)
        return {"item": context.params["item"]}

    def _sum(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        self._note(context)
        amount = context.get_output("load", model=Amount)
        return {"sum": amount.value * int(str(context.params["factor"]))}

    async def _send(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        self._note(context)
        await self.gate.wait()
        if self.is_broken:
            raise StepError("no connection")
        return {"sent": context.get_output("sum", "sum"), "by": context.params["by"], "seen": context.params["seen"]}

    def steps_of(self, run_id: str) -> list[str]:
        return [path for run, path in self.ran if run == run_id]


@pytest.fixture
def orders() -> Orders:
    return Orders()


async def forked(place: Place, orders: Orders, path: str, **edits: Any) -> WorkflowResult:
    async with place.runner() as runner:
        await runner.execute(orders.flow, run_id="r")
        handle = await runner.fork("r", path, new_run_id="f", **edits)
        return await handle.result()


async def test_a_fork_repeats_only_what_follows_and_the_other_run_stays(place: Place, orders: Orders) -> None:
    result = await forked(place, orders, "sum", params={"factor": 3})
    assert (result.status, result.context.get_output("send", "sent")) == ("completed", 30)
    assert orders.steps_of("f") == ["sum", "send"]
    reader = place.runner(work=False)
    record = await reader.get_run("f")
    assert (record.forked_from, record.queue) == ("r", None)
    assert (await reader.get_run("r")).forked_from is None
    assert (await reader.get_checkpoint("r", "sum")).context_snapshot["params"]["factor"] == 1  # type: ignore[union-attr,index]
    events = [event async for event in reader.events("f")]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    kinds = [event.event_type for event in events]
    assert kinds.count("workflow_started") == kinds.count("workflow_forked") == 1
    assert "workflow_resumed" not in kinds
    (marker,) = (event for event in events if event.event_type == "workflow_forked")
    assert marker.metadata == {"forked_from": "r", "before": "sum"}
    paths = [each.path for each in await reader.list_checkpoints("f")]
    assert paths[0] == "load"
    assert sorted(paths) == sorted(each.path for each in await reader.list_checkpoints("r"))


async def test_an_edited_output_is_what_later_steps_see(place: Place, orders: Orders) -> None:
    result = await forked(place, orders, "sum", outputs={"load": Amount(value=7)})
    assert result.context.get_output("send", "sent") == 7
    assert (await place.runner(work=False).get_run("f")).outputs["load"] == {"value": 7}  # type: ignore[index]


async def test_edited_params_win_over_those_that_a_step_has_changed(place: Place, orders: Orders) -> None:
    result = await forked(place, orders, "send", params={"seen": "edited"})
    assert result.context.get_output("send") == {"sent": 10, "by": "Ada", "seen": "edited"}


async def test_a_fork_at_the_first_step_is_a_new_start(place: Place, orders: Orders) -> None:
    result = await forked(place, orders, "load", params={"by": "Bob"})
    assert result.context.get_output("send", "by") == "Bob"
    assert sorted(orders.steps_of("f")) == sorted(orders.steps_of("r"))


async def test_a_failed_run_is_forked_at_the_step_that_failed(place: Place, orders: Orders) -> None:
    orders.is_broken = True
    async with place.runner() as runner:
        await runner.execute(orders.flow, run_id="r")
        orders.is_broken = False
        result = await (await runner.fork("r", "send", new_run_id="f")).result()
        assert result.status == "completed"
        assert orders.steps_of("f") == ["send"]
        assert (await runner.get_run("r")).status == RunStatus.FAILED


async def test_params_that_a_resume_has_changed_stay_changed(place: Place, orders: Orders) -> None:
    orders.is_broken = True
    async with place.runner() as runner:
        await runner.execute(orders.flow, run_id="r")
        await runner.resume("r", params_override={"by": "Eve"})
        orders.is_broken = False
        for path in ("send", "sum"):
            result = await (await runner.fork("r", path)).result()
            assert result.context.get_output("send", "by") == ("Eve" if path == "send" else "Ada")
        first = await (await runner.fork("r", "send", new_run_id="f")).result()
        assert first.status == "completed"
        again = await (await runner.fork("f", "send")).result()
        assert again.context.get_output("send", "by") == "Eve"


async def test_a_run_under_way_is_forked_as_it_is_now(place: Place, orders: Orders) -> None:
    orders.gate = anyio.Event()
    async with place.runner() as runner:
        source = await runner.start(orders.flow, run_id="r")
        await until(lambda: ("r", "send") in orders.ran)
        handle = await runner.fork("r", "send", new_run_id="f")
        await until(lambda: ("f", "send") in orders.ran)
        orders.gate.set()
        assert (await source.result()).status == (await handle.result()).status == "completed"
    assert orders.steps_of("f") == ["send"]


async def test_a_stopped_run_can_be_forked_and_the_fork_can_be_resumed(place: Place, orders: Orders) -> None:
    orders.gate, orders.is_broken = anyio.Event(), True
    async with place.runner() as runner:
        await runner.start(orders.flow, run_id="r")
        await until(lambda: ("r", "send") in orders.ran)
        await runner.stop("r")
        orders.gate.set()
        handle = await runner.fork("r", "send", params={"by": "Bob"})
        assert (await handle.result()).status == "failed"
        orders.is_broken = False
        resumed = await runner.resume(handle.run_id, params_override={"seen": "later"})
        assert resumed.context.get_output("send") == {"sent": 10, "by": "Bob", "seen": "later"}


async def test_a_visit_of_a_loop_is_named_by_its_path(place: Place) -> None:
    def count(context: WorkflowContext, config: Config) -> StepResult:
        done = int(str(context.get_param("done", 0))) + 1
        return StepResult.ok({"done": done}, context_updates={"done": done})

    again = Step.choice("again", lambda context: context.params["done"] < 3, "count", "end")
    steps = [Step.lambda_("count", count), again, Step.lambda_("end", lambda context, config: {})]
    async with place.runner() as runner:
        await runner.execute(Workflow("loop", steps), run_id="r")
        result = await (await runner.fork("r", "count#3", params={"done": -1})).result()
        assert result.context.params["done"] == 3
        paths = [each.path for each in await runner.list_checkpoints(result.run_id)]
        assert (paths[0], paths[-2:]) == ("count", ["again#6", "end"])
        with pytest.raises(DefinitionError, match="cannot replace the output of a choice"):
            await runner.fork("r", "count#3", outputs={"again": {"next_step": "end"}})


async def test_a_changed_definition_is_checked_up_to_the_visit(place: Place, orders: Orders) -> None:
    async with place.runner() as runner:
        await runner.execute(orders.flow, run_id="r")
        note = Step.lambda_("note", lambda context, config: {"noted": context.get_output("sum", "sum")})
        later = Workflow("orders", [*orders.flow.steps[:3], note], version=2)
        with pytest.raises(DefinitionError, match="'send'"):
            await runner.fork("r", "send", workflow=later)
        kept = Workflow("orders", [*orders.flow.steps[:2], note, *orders.flow.steps[2:]], version=2)
        with pytest.raises(WorkflowChangedError):
            await runner.fork("r", "send", workflow=kept)
        wider = Workflow("orders", [*orders.flow.steps, note], version=2)
        result = await (await runner.fork("r", "sum", params={"factor": 2}, workflow=wider)).result()
        assert result.context.get_output("note", "noted") == 20
        record = await runner.get_run(result.run_id)
        assert (record.workflow_version, record.total_steps) == (2, 5)
        with pytest.raises(RunConflictError):
            await runner.fork("r", "sum", workflow=Workflow("other", orders.flow.steps))


async def test_branches_children_and_recorded_calls_are_copied(place: Place) -> None:
    ran: list[str] = []

    async def note(context: WorkflowContext, config: Config) -> dict[str, object]:
        path = str(context.idempotency_key).partition("/")[2]
        ran.append(path)
        return {"path": await context.once("call", lambda: path)}

    steps = [
        Step.parallel("both", {"left": note, "right": note}),
        Step.workflow("child", Workflow("inner", [Step.lambda_("in", note)])),
        Step.lambda_("last", note),
    ]
    flow = Workflow("nested", steps)
    async with place.runner() as runner:
        await runner.execute(flow, run_id="r")
        for path, repeated in (("last", ["last"]), ("child", ["child/in", "last"])):
            ran.clear()
            result = await (await runner.fork("r", path)).result()
            assert (result.status, ran) == ("completed", repeated)
            assert result.context.outputs == (await runner.get_run("r")).outputs


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("each[0]/each", "is inside step 'each'"),
        ("nothing", "names no step of the workflow"),
        ("sum#2", "has no visit 'sum#2'"),
    ],
)
async def test_a_path_that_is_no_visit_of_the_run_is_refused(
    place: Place, orders: Orders, path: str, problem: str
) -> None:
    with pytest.raises(DefinitionError, match=problem):
        await forked(place, orders, path)
    assert [record.run_id for record in await place.runner(work=False).list_runs()] == ["r"]


async def test_a_step_that_is_not_reached_is_no_place_to_fork(place: Place, orders: Orders) -> None:
    orders.is_broken = True
    end = Step.lambda_("end", lambda context, config: {})
    more = Workflow("orders", [*orders.flow.steps, end], defaults=orders.flow.defaults)
    async with place.runner() as runner:
        await runner.execute(more, run_id="r")
        with pytest.raises(DefinitionError, match="its next visit is 'send'"):
            await runner.fork("r", "end")


async def test_invalid_edits_are_refused_and_store_nothing(place: Place, orders: Orders) -> None:
    class Params(BaseModel):
        factor: int
        by: str

    strict = Workflow("orders", orders.flow.steps, defaults={"factor": 1, "by": "Ada"}, params_model=Params)
    async with place.runner() as runner:
        await runner.execute(strict, run_id="r")
        with pytest.raises(InvalidParamsError, match="Params") as failure:
            await runner.fork("r", "sum", params={"factor": "many"})
        assert "many" not in str(failure.value)
        with pytest.raises(InvalidParamsError, match="output_model") as failure:
            await runner.fork("r", "sum", outputs={"load": {"value": "secret"}})
        assert "secret" not in str(failure.value)
        with pytest.raises(DefinitionError, match="step 'send' has no output before 'sum'"):
            await runner.fork("r", "sum", outputs={"send": {}})
        assert len(await runner.list_runs()) == 1


async def test_the_same_fork_twice_is_one_run_and_another_one_is_a_conflict(place: Place, orders: Orders) -> None:
    async with place.runner() as runner:
        await runner.execute(orders.flow, run_id="r")
        for _ in range(2):
            handle = await runner.fork("r", "send", params={"by": "Bob"}, new_run_id="f")
            assert (await handle.result()).status == "completed"
        assert orders.steps_of("f") == ["send"]
        with pytest.raises(RunConflictError):
            await runner.fork("r", "send", params={"by": "Eve"}, new_run_id="f")
        with pytest.raises(RunConflictError):
            await runner.execute(orders.flow, run_id="f")
        with pytest.raises(RunNotFoundError):
            await runner.fork("absent", "send")


async def test_a_fork_needs_an_entered_runner(place: Place, orders: Orders) -> None:
    with pytest.raises(DefinitionError, match=r"fork\(\) needs an entered runner"):
        await place.runner().fork("r", "send")


async def test_an_enqueued_run_that_has_not_begun_can_be_forked(place: Place, orders: Orders) -> None:
    await place.runner(work=False).enqueue("orders", params={"factor": 5}, run_id="r", queue="nobody")
    async with place.runner(workflows=[orders.flow]) as runner:
        result = await (await runner.fork("r", "load", params={"by": "Bob"})).result()
    assert result.context.get_output("send") == {"sent": 50, "by": "Bob", "seen": "load"}


async def test_a_fork_whose_runner_dies_is_continued_by_another(orders: Orders) -> None:
    """Here the runner dies after the fork is stored and before it is claimed."""
    memory = MemoryRunStore()
    store = FaultInjectingStore(memory)
    place = Place(None)
    place._memory = store  # type: ignore[assignment]
    async with place.runner(config={"lease_ttl": 0.4}) as runner:
        await runner.execute(orders.flow, run_id="r")
        store.fail("claim", call=1)
        with pytest.raises(StoreUnavailableError):
            await runner.fork("r", "sum", new_run_id="f")
        assert (await runner.handle("f").result()).status == "completed"
        kinds = [event.event_type async for event in runner.events("f")]
        assert "workflow_resumed" not in kinds


async def test_a_store_without_the_capability_says_so(orders: Orders) -> None:
    class Plain(MemoryRunStore):
        fork = property()  # as if it had no such method

    place = Place(None)
    place._memory = Plain()
    with pytest.raises(StoreError, match="cannot fork runs"):
        await forked(place, orders, "sum")
