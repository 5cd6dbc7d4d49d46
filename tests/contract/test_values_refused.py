"""A value that JSON would lose is rejected when the step returns; the error contains the path of the value."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel

from spine_async import SpineError, Step, StepResult, Workflow, WorkflowContext, WorkflowRunner

pytestmark = pytest.mark.anyio

NAN = float("nan")
INFINITY = float("inf")


class Quote(BaseModel):
    price: float


@dataclass
class Tick:
    price: float


def cycle_of_dicts() -> dict[str, Any]:
    inner: dict[str, Any] = {}
    inner["price"] = inner
    return inner


class Node(BaseModel):
    next: "Node | None" = None


def cycle_of_models() -> Node:
    node = Node()
    node.next = node
    return node


def cycle_of_lists() -> list[Any]:
    inner: list[Any] = []
    inner.append(inner)
    return inner


AT_PRICE = r"rows\W+1\W+price"

REFUSED = [
    pytest.param({"rows": [0, {"price": NAN}]}, AT_PRICE, id="NaN"),
    pytest.param({"rows": [0, {"price": INFINITY}]}, AT_PRICE, id="Infinity"),
    pytest.param({"rows": [0, {"price": -INFINITY}]}, AT_PRICE, id="-Infinity"),
    pytest.param({"rows": (0, {"price": NAN})}, AT_PRICE, id="NaN in a tuple"),
    pytest.param({"rows": [0, Quote(price=NAN)]}, AT_PRICE, id="NaN in a model"),
    pytest.param({"rows": [0, Tick(price=NAN)]}, AT_PRICE, id="NaN in a dataclass"),
    pytest.param({"rows": [0, {"price": b"\xff\xfehunter2"}]}, AT_PRICE, id="bytes"),
    pytest.param({"rows": [0, {"price": "hunter2\ud800"}]}, AT_PRICE, id="lone surrogate"),
    pytest.param({"rows": [0, {"price": object()}]}, AT_PRICE, id="object"),
    pytest.param({"rows": [0, {"price": lambda: None}]}, AT_PRICE, id="function"),
    pytest.param({"rows": [0, {"price": 1j}]}, AT_PRICE, id="complex"),
    pytest.param({"rows": [0, {"price": ValueError("hunter2")}]}, AT_PRICE, id="exception"),
    pytest.param({"rows": [0, {"price": {1: "hunter2"}}]}, AT_PRICE, id="int key"),
    pytest.param({"rows": [0, {"price": {None: "hunter2"}}]}, AT_PRICE, id="None key"),
    pytest.param({"rows": [0, {"price": {True: "hunter2"}}]}, AT_PRICE, id="bool key"),
    pytest.param({"rows": [0, {"price": {(1, 2): "hunter2"}}]}, AT_PRICE, id="tuple key"),
    pytest.param({"rows": [0, {"price": {"1": "a", 1: "b"}}]}, AT_PRICE, id="keys that would merge"),
    pytest.param({"rows": [0, {"price": {"\udfff": 1}}]}, AT_PRICE, id="key with a surrogate"),
    pytest.param({"rows": [0, cycle_of_dicts()]}, AT_PRICE, id="cycle of dicts"),
    pytest.param({"rows": [0, {"price": cycle_of_lists()}]}, AT_PRICE, id="cycle of lists"),
    pytest.param({"rows": [0, {"price": cycle_of_models()}]}, AT_PRICE, id="cycle of models"),
]


class Story:
    """A step that gives `answer`, and one that must not run."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.ran: list[str] = []

    async def gives(self, context: WorkflowContext, config: Mapping[str, Any]) -> Any:
        self.ran.append("gives")
        return self.answer

    async def after(self, context: WorkflowContext, config: Mapping[str, Any]) -> None:
        self.ran.append("after")

    def workflow(self, **options: Any) -> Workflow:
        return Workflow("w", [Step.lambda_("gives", self.gives, **options), Step.lambda_("after", self.after)])


@pytest.mark.parametrize("where", ["output", "result", "update"])
@pytest.mark.parametrize(("value", "path"), REFUSED)
async def test_a_step_fails_that_gives(runner: WorkflowRunner, value: Any, path: str, where: str) -> None:
    answers = {
        "output": value,
        "result": StepResult.ok(value),
        "update": StepResult.ok({"fine": 1}, context_updates={"update": value}),
    }
    story = Story(answers[where])
    result = await runner.execute(story.workflow())
    assert (result.status, result.error_step, result.error_category) == ("failed", "gives", "INTERNAL")
    assert re.search(path, str(result.error)), result.error
    assert "hunter2" not in str(result.error)
    assert story.ran == ["gives"]
    assert not result.context.has_output("gives")
    assert "update" not in result.context.params


@pytest.mark.parametrize(("value", "path"), REFUSED)
async def test_params_are_refused(runner: WorkflowRunner, value: Any, path: str) -> None:
    story = Story({})
    with pytest.raises(SpineError) as refused:
        await runner.execute(story.workflow(), params={"given": value}, run_id="r1")
    assert re.search(path, str(refused.value)), refused.value
    assert "given" in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert story.ran == []
    assert await runner.list_runs() == []


async def test_what_is_wrong_at_the_top(runner: WorkflowRunner) -> None:
    result = await runner.execute(Story({"price": NAN}).workflow())
    assert "price" in str(result.error)
    result = await runner.execute(Story(Quote(price=NAN)).workflow())
    assert result.error_category == "INTERNAL"
    assert "price" in str(result.error)


async def test_a_value_nested_without_end_is_a_failure_not_a_crash(runner: WorkflowRunner) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    result = await runner.execute(Story({"deep": deep}).workflow())
    assert (result.status, result.error_step, result.error_category) == ("failed", "gives", "INTERNAL")
    while deep:
        deep = deep.pop()


async def test_a_value_nested_fifty_deep_is_kept(runner: WorkflowRunner) -> None:
    deep: list[Any] = []
    for _ in range(50):
        deep = [deep]
    result = await runner.execute(Story({"deep": deep}).workflow())
    assert result.error is None
    assert result.context.get_output("gives", "deep") == deep


async def test_params_override_is_refused_too(runner: WorkflowRunner) -> None:
    async def breaks(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        raise ValueError("always")

    failed = await runner.execute(Workflow("breaks", [Step.lambda_("a", breaks)]))
    with pytest.raises(SpineError, match="price"):
        await runner.resume(failed.run_id, params_override={"price": NAN})
    assert (await runner.get_run(failed.run_id)).status == "failed"


async def test_what_a_map_item_gives_is_refused_with_its_index(runner: WorkflowRunner) -> None:
    async def gives(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"price": NAN if context.params["item"] == 1 else 1.0}

    step = Step.map("each", items=[0, 1, 2], iterator=gives, tolerated_failures=1)
    result = await runner.execute(Workflow("w", [step]))
    (error,) = result.context.get_output("each", "errors")
    assert (error["index"], error["category"]) == (1, "INTERNAL")
    assert "price" in error["error"]


async def test_the_name_of_a_param_that_has_no_json_form(runner: WorkflowRunner) -> None:
    name = "hunter2\ud800"
    for given in ({"params": {name: 1}}, {"partition": {name: 1}}):
        with pytest.raises(SpineError, match="surrogate"):
            await runner.execute(Story({}).workflow(), run_id="r1", **given)
    assert await runner.list_runs() == []
    result = await runner.execute(Story(StepResult.ok(context_updates={name: 1})).workflow())
    assert (result.status, result.error_category) == ("failed", "INTERNAL")
    assert "surrogate" in str(result.error)
