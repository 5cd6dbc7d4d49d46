"""`catch`: a failure continues with another step, which can read it, also in another process."""

from __future__ import annotations

from typing import Any

import pytest

from spine_async import (
    END,
    DefinitionError,
    QualityMetrics,
    QualityThresholds,
    RetryPolicy,
    Step,
    StepError,
    StepResult,
    UnknownStepError,
    Workflow,
    WorkflowChangedError,
    WorkflowContext,
)
from tests.control.conftest import Trace
from tests.service.places import Place

pytestmark = pytest.mark.anyio

GONE = {"error": "ConnectionError: gone", "category": "TRANSIENT", "attempts": 1}


def rescued(trace: Trace, catch: dict[str, str], **options: Any) -> Workflow:
    """`a` fails and `rescue` catches it, unless the failure has another category."""
    return Workflow(
        "w",
        [trace.failing("a", catch=catch, **options), trace.step("b", next_step=END), trace.step("rescue", sees="a")],
    )


async def test_a_caught_failure_continues_with_its_target(place: Place, trace: Trace) -> None:
    async with place.runner(work=False) as runner:
        result = await runner.execute(rescued(trace, {"TRANSIENT": "rescue"}), run_id="r")
        events = [each async for each in runner.events("r")]
    assert result.status == "completed"
    assert (result.completed_steps, result.failed_steps, result.skipped_steps) == (["rescue"], ["a"], ["b"])
    assert trace.ran == ["a", "rescue"]
    assert trace.errors == {"rescue": (GONE, False, None)}
    assert result.context.get_error("a") == GONE
    (failed,) = (each for each in events if each.event_type == "step_failed")
    assert (failed.step_name, failed.metadata["next_step"]) == ("a", "rescue")


@pytest.mark.parametrize(
    ("catch", "status"),
    [
        ({"TIMEOUT": "rescue"}, "failed"),
        ({"*": "rescue"}, "completed"),
        ({"TIMEOUT": "b", "*": "rescue"}, "completed"),
        ({"transient": "rescue", "*": "b"}, "completed"),
    ],
)
async def test_the_category_chooses_the_target(memory: Place, trace: Trace, catch: dict[str, str], status: str) -> None:
    async with memory.runner() as runner:
        result = await runner.execute(rescued(trace, catch))
    assert result.status == status
    assert trace.ran == (["a", "rescue"] if status == "completed" else ["a"])
    if status == "failed":
        assert (result.error_step, result.context.get_error("a")) == ("a", None)


async def test_a_category_of_the_users_own_is_caught(memory: Place, trace: Trace) -> None:
    steps = [
        trace.failing("a", lambda: StepError("no", category="stock"), catch={"stock": "b"}),
        trace.step("b", sees="a"),
    ]
    async with memory.runner() as runner:
        result = await runner.execute(Workflow("w", steps))
    assert result.status == "completed"
    assert trace.errors["b"][0]["category"] == "stock"


async def test_it_is_used_when_the_attempts_are_used_up_and_wins_over_on_error(memory: Place, trace: Trace) -> None:
    retry = RetryPolicy(max_attempts=3, initial_delay=0)
    async with memory.runner() as runner:
        result = await runner.execute(rescued(trace, {"*": "rescue"}, retry=retry, on_error="continue"))
    assert trace.ran == ["a", "a", "a", "rescue"]
    assert result.context.get_error("a") == {**GONE, "attempts": 3}


async def test_a_continued_failure_can_be_read_too(place: Place, trace: Trace) -> None:
    workflow = Workflow("w", [trace.failing("a", on_error="continue"), trace.step("b", sees="a")])
    async with place.runner(work=False) as runner:
        result = await runner.execute(workflow, run_id="r")
    async with place.runner(work=False) as other:
        again = await other.execute(workflow, run_id="r")
    assert trace.errors == {"b": (GONE, False, None)}
    assert again.context.get_error("a") == GONE
    assert repr(again.context.get_error("a")) == repr(result.context.get_error("a"))
    assert again.context.get_error("b") is None


async def test_a_resumed_run_sees_the_same_failure_and_goes_the_same_way(place: Place, trace: Trace) -> None:
    """Also if the definition catches the failure elsewhere by now: the way of the stored visit counts."""

    def workflow(last: Step, target: str) -> Workflow:
        steps = [trace.failing("a", catch={"*": target}), trace.step("b", next_step=END), trace.step("rescue"), last]
        return Workflow("w", steps)

    async with place.runner(work=False) as runner:
        failed = await runner.execute(workflow(trace.failing("last"), "rescue"), run_id="r")
    assert failed.error_step == "last"
    async with place.runner(work=False) as other:
        result = await other.resume("r", workflow=workflow(trace.step("last", sees="a"), "b"))
    assert result.status == "completed"
    assert trace.ran == ["a", "rescue", "last", "last"]
    assert trace.errors == {"last": (GONE, False, None)}


async def test_a_definition_without_the_target_is_refused(memory: Place, trace: Trace) -> None:
    async with memory.runner() as runner:
        await runner.execute(Workflow("w", [trace.failing("a", catch={"*": "b"}), trace.failing("b")]), run_id="r")
        changed = Workflow("w", [trace.failing("a", catch={"*": "c"}), trace.step("c")])
        with pytest.raises(WorkflowChangedError, match="'a' jumped to a step that is missing"):
            await runner.resume("r", workflow=changed)


async def test_a_loop_forgets_the_output_of_a_visit_before_and_the_failure_after(place: Place) -> None:
    """The third visit succeeds; each visit of `look` sees the visit before it."""
    seen: list[Any] = []

    async def turn(context: WorkflowContext, config: dict[str, Any]) -> dict[str, int]:
        visits = sum(1 for each in seen) + 1
        if visits == 2:
            raise ConnectionError("gone")
        return {"visit": visits}

    async def look(context: WorkflowContext, config: dict[str, Any]) -> None:
        seen.append((context.get_output("turn"), context.get_error("turn")))

    workflow = Workflow(
        "w",
        [
            Step.lambda_("turn", turn, catch={"*": "look"}),
            Step.lambda_("look", look),
            Step.choice("again", lambda context: len(seen) < 3, "turn", END),
        ],
    )
    async with place.runner(work=False) as runner:
        result = await runner.execute(workflow, run_id="r")
        checkpoints = await runner.list_checkpoints("r")
    async with place.runner(work=False) as other:
        again = await other.execute(workflow, run_id="r")
    assert seen == [({"visit": 1}, None), (None, GONE), ({"visit": 3}, None)]
    assert (result.context.get_error("turn"), again.context.get_error("turn")) == (None, None)
    outputs = {each.path: each.context_snapshot["outputs"].get("turn") for each in checkpoints}  # type: ignore[attr-defined]
    assert (outputs["look"], outputs["look#2"], outputs["look#3"]) == ({"visit": 1}, None, {"visit": 3})


async def test_an_output_that_the_failure_has_can_be_read(memory: Place, trace: Trace) -> None:
    async def partial(context: WorkflowContext, config: dict[str, Any]) -> StepResult:
        return StepResult.fail("no", output={"done": 2})

    steps = [Step.lambda_("a", partial, catch={"*": "b"}), trace.step("b", sees="a")]
    async with memory.runner() as runner:
        await runner.execute(Workflow("w", steps))
    error = {"error": "no", "category": "INTERNAL", "attempts": 1}
    assert trace.errors == {"b": (error, True, {"done": 2})}


async def test_every_kind_of_step_can_be_caught(memory: Place, trace: Trace) -> None:
    def breaks(context: WorkflowContext) -> Any:
        raise ConnectionError("gone")

    def odd(context: WorkflowContext, config: dict[str, Any]) -> StepResult:
        return StepResult.ok(quality=QualityMetrics(record_count=0))

    thresholds = QualityThresholds(min_record_count=1)
    steps = [
        Step.choice("choice", breaks, END, catch={"*": "wait"}),
        Step.wait("wait", until=breaks, catch={"*": "map"}),
        Step.map("map", items=[1, 2], iterator=Workflow(steps=[trace.failing("x")]), catch={"*": "pipeline"}),
        Step.pipeline("pipeline", "unknown", catch={"CONFIGURATION": "signal"}),
        Step.wait_for_signal("signal", timeout=0.001, catch={"TIMEOUT": "slow"}),
        Step.lambda_("slow", odd, quality_thresholds=thresholds, catch={"DATA_QUALITY": "end"}),
        trace.step("end"),
    ]
    async with memory.runner(work=False) as runner:
        result = await runner.execute(Workflow("w", steps))
    assert result.status == "completed", result.error
    assert result.failed_steps == ["choice", "wait", "map", "pipeline", "signal", "slow"]
    categories = [(result.context.get_error(each.name) or {}).get("category") for each in steps[:-1]]
    assert categories == ["TRANSIENT", "TRANSIENT", "TRANSIENT", "CONFIGURATION", "TIMEOUT", "DATA_QUALITY"]


async def test_end_inside_an_item_ends_the_item(place: Place, trace: Trace) -> None:
    """The failure of an item is read inside it, and leaks into no other item."""
    seen: dict[int, Any] = {}

    async def picky(context: WorkflowContext, config: dict[str, Any]) -> dict[str, int]:
        if context.params["item"] == 1:
            raise ConnectionError("gone")
        return {"item": context.params["item"]}

    async def last(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
        seen[context.params["item"]] = context.get_error("picky")
        return {"last": context.params["item"]}

    inner = Workflow(
        steps=[
            Step.lambda_("picky", picky, catch={"*": "last"}),
            Step.choice("odd", lambda context: context.params["item"] == 0, END, "last"),
            Step.lambda_("last", last),
        ]
    )
    workflow = Workflow("w", [Step.map("each", items=[0, 1, 2], iterator=inner), trace.step("after", sees="picky")])
    async with place.runner(work=False) as runner:
        result = await runner.execute(workflow)
    results = result.context.get_output("each", "results")
    assert results == [{"condition_result": True, "branch": "then", "next_step": None}, {"last": 1}, {"last": 2}]
    assert seen == {1: GONE, 2: None}
    assert trace.errors["after"][0] is None


async def test_a_caught_failure_in_a_dry_run(trace: Trace) -> None:
    async with Place(None).runner(dry_run=True) as runner:
        result = await runner.execute(rescued(trace, {"*": "rescue"}))
    assert (result.status, trace.ran) == ("completed", ["a", "rescue"])


@pytest.mark.parametrize(
    ("catch", "message"),
    [
        ([("TIMEOUT", "b")], "catch is of type list; it must be a mapping of error categories to steps"),
        ({1: "b"}, "catch contains the key 1; it must be an error category or '*'"),
        ({"": "b"}, "catch contains the key ''; it must be an error category or '*'"),
        ({"*": None}, r"catch\['\*'\] is None; it must be the name of a step, or END"),
        ({"TIMEOUT": "b", "timeout": "b"}, "catch names the category 'TIMEOUT' twice"),
    ],
)
def test_a_catch_that_makes_no_sense_is_refused(trace: Trace, catch: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        trace.step("a", catch=catch)


@pytest.mark.parametrize(
    "step",
    [
        Step.wait("a", 0, next_step="nowhere"),
        Step.wait("a", 0, catch={"*": "nowhere"}),
        Step.choice("a", lambda context: True, END, next_step="nowhere"),
        Step.wait_for_signal("a", timeout=1, on_timeout="nowhere"),
    ],
)
def test_an_unknown_target_is_refused(step: Step) -> None:
    with pytest.raises(UnknownStepError, match="step 'a': it jumps to 'nowhere', which is not a step"):
        Workflow("w", [step])


def test_what_a_step_catches_belongs_to_the_fingerprint(trace: Trace) -> None:
    plain = [trace.step("a"), trace.step("b")]
    prints = {
        Workflow("w", [trace.step("a", **options), plain[1]]).fingerprint
        for options in ({}, {"catch": {"*": "b"}}, {"catch": {"TIMEOUT": "b"}}, {"next_step": "b"}, {"next_step": END})
    }
    assert len(prints) == 5
    assert Workflow("w", plain).fingerprint == Workflow("w", [trace.step("a", catch={}), plain[1]]).fingerprint
