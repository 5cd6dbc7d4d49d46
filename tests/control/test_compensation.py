"""Compensations: what finished steps did is undone, the last one first, when the run fails or is stopped with it."""

from __future__ import annotations

from typing import Any

import pytest

from spine_async import (
    DefinitionError,
    RetryPolicy,
    RunNotResumableError,
    Step,
    StepResult,
    Workflow,
    WorkflowContext,
)
from tests.control.conftest import Trace
from tests.service.places import Place
from tests.service.services import until

pytestmark = pytest.mark.anyio


class Bookings:
    """Steps that book something, with compensations that cancel the booking."""

    def __init__(self) -> None:
        self.booked: list[str] = []
        self.undone: list[Any] = []

    def step(self, name: str, **options: Any) -> Step:
        async def book(context: WorkflowContext, config: dict[str, Any]) -> dict[str, str]:
            key = f"{name}{len([each for each in self.booked if each.startswith(name)]) + 1}"
            self.booked.append(key)
            return {"key": key}

        return Step.lambda_(name, book, {"of": name}, compensate=self.undo, **options)

    async def undo(self, context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
        self.undone.append(context.get_output(config["of"], "key"))
        return {"undone": self.undone[-1]}


@pytest.fixture
def bookings() -> Bookings:
    return Bookings()


async def test_a_failed_run_undoes_its_finished_steps_in_reverse_order(
    place: Place, bookings: Bookings, trace: Trace
) -> None:
    steps = [bookings.step("hotel"), trace.step("plain"), bookings.step("flight"), trace.failing("pay")]
    workflow = Workflow("trip", steps)
    async with place.runner(work=False) as runner:
        result = await runner.execute(workflow, run_id="r")
        events = [(each.event_type, each.path) async for each in runner.events("r")]
        paths = [each.path for each in await runner.list_checkpoints("r")]
        stored = await runner.execute(workflow, run_id="r")
        record = await runner.get_run("r")
    async with place.runner(work=False) as other:
        unknown = await other.handle("r").result()
    assert (result.status, result.error_step, result.error_category) == ("failed", "pay", "TRANSIENT")
    assert bookings.undone == ["flight1", "hotel1"]
    assert result.compensated_steps == stored.compensated_steps == unknown.compensated_steps == ["flight", "hotel"]
    assert result.completed_steps == stored.completed_steps == unknown.completed_steps == ["hotel", "plain", "flight"]
    assert result.failed_steps == stored.failed_steps == ["pay"]
    assert (record.status, record.error_step) == ("failed", "pay")
    assert paths == ["hotel", "plain", "flight", "flight~compensate", "hotel~compensate"]
    assert events[-7:] == [
        ("workflow_ending", None),
        ("step_started", "flight~compensate"),
        ("step_completed", "flight~compensate"),
        ("step_started", "hotel~compensate"),
        ("step_completed", "hotel~compensate"),
        ("workflow_compensated", None),
        ("workflow_failed", None),
    ]


async def test_a_completed_run_undoes_nothing(place: Place, bookings: Bookings) -> None:
    async with place.runner(work=False) as runner:
        result = await runner.execute(Workflow("trip", [bookings.step("hotel")]), run_id="r")
        events = {each.event_type async for each in runner.events("r")}
    assert (result.status, result.compensated_steps, bookings.undone) == ("completed", [], [])
    assert "workflow_ending" not in events


async def test_each_visit_of_a_loop_is_undone_with_its_own_output(
    place: Place, bookings: Bookings, trace: Trace
) -> None:
    steps = [
        bookings.step("book"),
        Step.choice("again", lambda context: len(bookings.booked) < 3, "book", "pay"),
        trace.failing("pay"),
    ]
    async with place.runner(work=False) as runner:
        result = await runner.execute(Workflow("trip", steps), run_id="r")
        paths = [each.path for each in await runner.list_checkpoints("r")]
    assert bookings.undone == ["book3", "book2", "book1"]
    assert result.compensated_steps == ["book#3", "book#2", "book"]
    assert paths[-3:] == ["book#3~compensate", "book#2~compensate", "book~compensate"]


async def test_steps_inside_items_are_undone(place: Place, trace: Trace) -> None:
    """Also those of a map in a map; each sees the item, and what its scope had at the end."""
    undone: list[Any] = []

    def undo(context: WorkflowContext, config: dict[str, Any]) -> None:
        own = context.get_output("reserve")
        undone.append((context.params["item"], own, context.params.get("late"), context.get_output("first", "visit")))

    def reserve(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
        return {"of": context.params["item"]}

    def late(context: WorkflowContext, config: dict[str, Any]) -> StepResult:
        return StepResult.ok(context_updates={"late": context.params["item"]})

    inner = Workflow(steps=[Step.lambda_("reserve", reserve, compensate=undo), Step.lambda_("late", late)])
    nested = Workflow(
        steps=[Step.map("inner", items=lambda context: [context.params["item"] * 10], iterator=inner), trace.step("x")]
    )
    steps = [
        trace.step("first"),
        Step.map("flat", items=[1, 2], iterator=inner, max_concurrency=1),
        Step.map("outer", items=[3], iterator=nested),
        trace.failing("pay"),
    ]
    async with place.runner(work=False) as runner:
        result = await runner.execute(Workflow("trip", steps), run_id="r")
        again = await runner.execute(Workflow("trip", steps), run_id="r")
        events = [each.event_type async for each in runner.events("r")]
    assert undone == [(30, {"of": 30}, 30, 1), (2, {"of": 2}, 2, 1), (1, {"of": 1}, 1, 1)]
    paths = ["outer[0]/inner[0]/reserve", "flat[1]/reserve", "flat[0]/reserve"]
    assert result.compensated_steps == again.compensated_steps == paths
    assert events.count("map_item_completed") == 4


async def test_the_finished_items_of_a_map_that_failed_are_undone(place: Place, bookings: Bookings) -> None:
    async def picky(context: WorkflowContext, config: dict[str, Any]) -> None:
        if context.params["item"] == 2:
            raise ConnectionError("gone")

    inner = Workflow(steps=[bookings.step("book"), Step.lambda_("picky", picky)])
    each = Step.map("each", items=[1, 2, 3], iterator=inner, max_concurrency=1)
    async with place.runner(work=False) as runner:
        result = await runner.execute(Workflow("trip", [each]))
    assert result.compensated_steps == ["each[1]/book", "each[0]/book"]
    assert bookings.undone == ["book2", "book1"]


async def test_a_compensation_has_the_retries_of_its_step(place: Place, trace: Trace) -> None:
    """One that fails for good is recorded, and the others go on."""
    tries: list[str] = []

    def undo(context: WorkflowContext, config: dict[str, Any]) -> None:
        tries.append(f"{context.step_name} {context.attempt}")
        if context.step_name == "b~compensate" or context.attempt < 2:
            raise ConnectionError("gone")

    retry = RetryPolicy(delays=[0, 0])
    steps = [trace.step(name, compensate=undo, retry=retry) for name in "abc"]
    workflow = Workflow("w", [*steps, trace.failing("pay")])
    async with place.runner(work=False) as runner:
        result = await runner.execute(workflow, run_id="r")
        failed = [each.path async for each in runner.events("r") if each.event_type == "step_failed"]
        (compensated,) = [each async for each in runner.events("r") if each.event_type == "workflow_compensated"]
    assert tries == [f"{name}~compensate {n}" for name, n in [("c", 1), ("c", 2), ("b", 1), ("b", 2), ("b", 3)]] + [
        "a~compensate 1",
        "a~compensate 2",
    ]
    assert (result.status, result.error_step, result.compensated_steps) == ("failed", "pay", ["c", "a"])
    assert failed == ["pay", "b~compensate"]
    assert compensated.metadata == {"compensated": 2, "failed": 1}


async def test_a_compensated_run_can_only_be_forked(place: Place, bookings: Bookings, trace: Trace) -> None:
    def workflow(last: Step) -> Workflow:
        return Workflow("trip", [bookings.step("hotel"), last], cleanup=[trace.step("tidy")])

    async with place.runner() as runner:
        await runner.execute(workflow(trace.failing("pay")), run_id="r")
        with pytest.raises(RunNotResumableError, match="'r' cannot be resumed, because its finished steps have been"):
            await runner.resume("r")
        if place.url is None or place.url:
            fork = await runner.fork("r", "pay", new_run_id="f", workflow=workflow(trace.step("pay")))
            result = await fork.result(30)
            assert (result.status, result.completed_steps) == ("completed", ["hotel", "pay", "tidy"])
    assert bookings.undone == ["hotel1"]


async def test_a_run_without_anything_to_undo_can_be_resumed(place: Place, bookings: Bookings, trace: Trace) -> None:
    async with place.runner(work=False) as runner:
        await runner.execute(Workflow("trip", [trace.failing("check"), bookings.step("hotel")]), run_id="r")
        again = await runner.resume("r", workflow=Workflow("trip", [trace.step("check"), bookings.step("hotel")]))
    assert (again.status, again.completed_steps) == ("completed", ["check", "hotel"])


async def test_a_stop_undoes_only_if_it_is_asked_to(place: Place, bookings: Bookings) -> None:
    workflow = Workflow("trip", [bookings.step("hotel"), Step.wait_for_signal("approval")])
    async with place.runner(config={"park_after": 1000}) as runner:
        for name, compensate in (("plain", False), ("undo", True)):
            handle = await runner.start(workflow, run_id=name)
            await until(lambda name=name: _waits(runner, name))
            assert await handle.stop("enough", compensate=compensate)
            result = await handle.result(30)
            assert (result.status, result.stop_reason) == ("stopped", "enough")
            assert result.compensated_steps == (["hotel"] if compensate else [])
    assert bookings.undone == ["hotel2"]


async def test_a_stop_from_elsewhere_reaches_a_run_that_is_held_and_one_that_waits(
    database_url: str, bookings: Bookings
) -> None:
    """The parked run has no owner; a worker executes its compensations."""
    place = Place(database_url)
    workflow = Workflow("trip", [bookings.step("hotel"), Step.wait_for_signal("approval")])
    async with place.runner(work=False) as asker:
        for name, park_after in (("held", 1000), ("parked", 0)):
            async with place.runner(workflows=[workflow], config={"park_after": park_after}) as runner:
                await runner.enqueue(workflow, run_id=name)
                await until(lambda name=name: _waits(runner, name))
                if name == "parked":
                    await until(lambda: not runner._active_runs.run_ids)
                assert await asker.stop(name, compensate=True)
                result = await asker.handle(name).result(30)
                assert (result.status, result.stop_reason) == ("stopped", "user")
                assert result.compensated_steps == ["hotel"]
    assert sorted(bookings.undone) == ["hotel1", "hotel2"]


async def _waits(runner: Any, run_id: str) -> bool:
    return bool((await runner.get_run(run_id)).status == "waiting")


async def test_a_run_that_times_out_undoes_its_steps_without_a_limit(place: Place, bookings: Bookings) -> None:
    steps = [bookings.step("hotel"), Step.wait("long", 3600)]
    async with place.runner(work=False, config={"workflow_timeout": 1.5}) as runner:
        result = await runner.execute(Workflow("trip", steps))
    assert (result.status, result.error_category, result.compensated_steps) == ("failed", "TIMEOUT", ["hotel"])


@pytest.mark.parametrize("settings", [{"dry_run": True}, {"checkpoint_enabled": False}])
async def test_runs_that_are_not_stored_undo_their_steps_too(
    bookings: Bookings, trace: Trace, settings: dict[str, Any]
) -> None:
    inner = Workflow(steps=[bookings.step("book")])
    steps = [bookings.step("hotel"), Step.map("each", items=[1, 2], iterator=inner, max_concurrency=1)]
    async with Place(None).runner(**settings) as runner:
        result = await runner.execute(Workflow("trip", [*steps, trace.failing("pay")]))
    assert result.compensated_steps == ["each[1]/book", "each[0]/book", "hotel"]
    assert bookings.undone == ["book2", "book1", "hotel1"]


def test_definitions_that_make_no_sense_are_refused(trace: Trace) -> None:
    def undo(context: WorkflowContext, config: dict[str, Any]) -> None:
        return None

    with pytest.raises(DefinitionError, match=r"step 'a': compensate .* cannot be called with 2 positional arguments"):
        trace.step("a", compensate=lambda context: None)
    with pytest.raises(DefinitionError, match="'a~compensate' ends with ~compensate, which is reserved"):
        trace.step("a~compensate")
    with pytest.raises(DefinitionError, match="step 'c': compensate has no effect on a cleanup step"):
        Workflow("w", [trace.step("a")], cleanup=[trace.step("c", compensate=undo)])


async def test_steps_inside_branches_and_inner_workflows_are_undone(place: Place, trace: Trace) -> None:
    """Each sees what its own scope had: a branch also the params of the run, a child workflow only its own."""
    undone: list[Any] = []

    def reserve(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
        return {"of": config["of"]}

    def undo(context: WorkflowContext, config: dict[str, Any]) -> None:
        undone.append((context.get_output(config["step"]), dict(context.params), context.has_output("first")))

    def step(name: str) -> Step:
        return Step.lambda_(name, reserve, {"of": name, "step": name}, compensate=undo)

    child = Workflow("child", [step("deep")])
    steps = [
        trace.step("first"),
        Step.parallel(
            "both", {"a": [step("left")], "b": [step("right")]}, max_concurrency=1, compensate=undo_all(undone)
        ),
        Step.workflow("inline", child, {"own": 2}),
        trace.failing("pay"),
    ]
    async with place.runner(work=False) as runner:
        result = await runner.execute(Workflow("trip", steps), params={"n": 1}, run_id="r")
        again = await runner.execute(Workflow("trip", steps), params={"n": 1}, run_id="r")
    paths = ["inline/deep", "both", "both[b]/right", "both[a]/left"]
    assert result.compensated_steps == again.compensated_steps == paths
    assert undone == [
        ({"of": "deep"}, {"own": 2}, False),
        {"a": {"of": "left"}, "b": {"of": "right"}},
        ({"of": "right"}, {"n": 1}, True),
        ({"of": "left"}, {"n": 1}, True),
    ]


def undo_all(undone: list[Any]) -> Any:
    def undo(context: WorkflowContext, config: dict[str, Any]) -> None:
        undone.append(context.get_output("both"))

    return undo
