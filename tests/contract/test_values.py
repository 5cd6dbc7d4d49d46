"""Values become strict JSON as a step returns, and later steps see that form, resumed or not."""

import enum
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from spine_async import Step, StepResult, Workflow, WorkflowContext

pytestmark = pytest.mark.anyio


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Mode(enum.StrEnum):
    FAST = "fast"


class Line(BaseModel):
    sku: str
    price: Decimal


class Order(BaseModel):
    placed: datetime
    lines: list[Line]


@dataclass
class Point:
    x: int
    when: date


FORMS = [
    pytest.param(None, None, id="None"),
    pytest.param(True, True, id="bool"),
    pytest.param(0.1, 0.1, id="float"),
    pytest.param(1.7976931348623157e308, 1.7976931348623157e308, id="largest float"),
    pytest.param(5e-324, 5e-324, id="smallest float"),
    pytest.param(2**70, 2**70, id="large int"),
    pytest.param(-(2**63) - 1, -(2**63) - 1, id="large negative int"),
    pytest.param("", "", id="empty text"),
    pytest.param("žluťoučký 🐎 \u2028 \x7f", "žluťoučký 🐎 \u2028 \x7f", id="text"),
    pytest.param("null \x00 byte", "null \x00 byte", id="text with U+0000"),
    pytest.param('"\\\n\t/', '"\\\n\t/', id="escapes"),
    pytest.param([], [], id="empty list"),
    pytest.param((1, (2, 3)), [1, [2, 3]], id="tuples"),
    pytest.param({"a": {"b": {}}}, {"a": {"b": {}}}, id="nested"),
    pytest.param({"": 1, "\x00": 2, "a.b": 3}, {"": 1, "\x00": 2, "a.b": 3}, id="odd keys"),
    pytest.param(OrderedDict(a=1), {"a": 1}, id="ordered dict"),
    pytest.param(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05Z", id="datetime"),
    pytest.param(date(2026, 1, 2), "2026-01-02", id="date"),
    pytest.param(UUID(int=5), "00000000-0000-0000-0000-000000000005", id="UUID"),
    pytest.param(Decimal("1.10"), "1.10", id="Decimal"),
    pytest.param(Colour.RED, "red", id="enum"),
    pytest.param(Level.HIGH, 3, id="int enum"),
    pytest.param(Mode.FAST, "fast", id="str enum"),
    pytest.param(b"text", "text", id="bytes that are text"),
    pytest.param(Line(sku="s", price=Decimal("2.50")), {"sku": "s", "price": "2.50"}, id="model"),
    pytest.param(Point(1, date(2026, 1, 2)), {"x": 1, "when": "2026-01-02"}, id="dataclass"),
    pytest.param([Line(sku="s", price=Decimal(1))], [{"sku": "s", "price": "1"}], id="models in a list"),
]


def typed(value: Any) -> Any:
    """The value with the type of each part, because 1, True and 1.0 are equal."""
    if isinstance(value, Mapping):
        return dict, {key: typed(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return list, [typed(inner) for inner in value]
    return type(value), value


class Story:
    """A step that gives a value in three ways, one that fails once, and one that reads."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.seen: list[Any] = []

    async def gives(self, context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
        return StepResult.ok({"value": self.value}, context_updates={"update": self.value})

    async def reads(self, context: WorkflowContext, config: Mapping[str, Any]) -> None:
        self.seen.append(
            [context.get_output("gives", "value"), context.params["update"], context.params["given"]],
        )
        if len(self.seen) == 1:
            raise ConnectionError("once")

    def workflow(self) -> Workflow:
        return Workflow("w", [Step.lambda_("gives", self.gives), Step.lambda_("reads", self.reads)])


@pytest.mark.parametrize(("value", "form"), FORMS)
async def test_what_later_steps_see(open_runner: Any, value: Any, form: Any) -> None:
    story = Story(value)
    failed = await (await open_runner()).execute(story.workflow(), params={"given": value})
    assert failed.error_step == "reads", failed.error
    resumed = await (await open_runner()).resume(failed.run_id, workflow=story.workflow())
    assert resumed.status == "completed", resumed.error
    for seen in story.seen:
        assert [typed(one) for one in seen] == [typed(form)] * 3
    assert typed(resumed.context.get_output("gives", "value")) == typed(form)


async def test_the_output_itself_may_be_a_model(runner: Any) -> None:
    async def gives(context: WorkflowContext, config: Mapping[str, Any]) -> Order:
        return Order(placed=datetime(2026, 1, 2, tzinfo=UTC), lines=[Line(sku="s", price=Decimal("1.5"))])

    result = await runner.execute(Workflow("w", [Step.lambda_("a", gives)]))
    assert result.context.get_output("a") == {
        "placed": "2026-01-02T00:00:00Z",
        "lines": [{"sku": "s", "price": "1.5"}],
    }


async def test_one_object_in_two_places_is_no_cycle(runner: Any) -> None:
    shared = [1, 2]

    async def gives(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"a": shared, "b": shared, "c": {"d": [shared, shared]}}

    result = await runner.execute(Workflow("w", [Step.lambda_("a", gives)]))
    assert result.context.get_output("a") == {"a": [1, 2], "b": [1, 2], "c": {"d": [[1, 2], [1, 2]]}}


class Revived:
    """A step with an output model, and one that reads it."""

    def __init__(self, answer: Any, output_model: Any = Order) -> None:
        self.answer = answer
        self.output_model = output_model
        self.seen: list[Any] = []

    async def gives(self, context: WorkflowContext, config: Mapping[str, Any]) -> Any:
        return self.answer

    async def reads(self, context: WorkflowContext, config: Mapping[str, Any]) -> None:
        self.seen.append(context.get_output("gives"))
        if len(self.seen) == 1:
            raise ConnectionError("once")

    def workflow(self) -> Workflow:
        gives = Step.lambda_("gives", self.gives, output_model=self.output_model)
        return Workflow("w", [gives, Step.lambda_("reads", self.reads)])


ORDER = Order(placed=datetime(2026, 1, 2, tzinfo=UTC), lines=[Line(sku="s", price=Decimal("1.50"))])


@pytest.mark.parametrize("answer", [ORDER, ORDER.model_dump(), ORDER.model_dump(mode="json"), StepResult.ok(ORDER)])
async def test_an_output_model_is_revived(make_runner: Any, answer: Any) -> None:
    story = Revived(answer)
    failed = await make_runner().execute(story.workflow())
    assert failed.error_step == "reads", failed.error
    resumed = await make_runner().resume(failed.run_id, workflow=story.workflow())
    assert resumed.status == "completed"
    assert [type(seen) for seen in story.seen] == [Order, Order]
    assert story.seen == [ORDER, ORDER]


@pytest.mark.parametrize("answer", [{"placed": "never", "lines": []}, {}, None])
async def test_an_output_that_does_not_fit_its_model_fails_the_step(make_runner: Any, answer: Any) -> None:
    result = await make_runner().execute(Revived(answer).workflow())
    assert (result.status, result.error_step) == ("failed", "gives")
    assert "Order" in result.error


async def test_data_that_looks_like_code_is_data(make_runner: Any) -> None:
    """Loading a checkpoint imports nothing and calls nothing."""
    hostile = {"__class__": "os.system", "py/object": "os.system", "$type": "x", "__reduce__": ["os.system", ["true"]]}
    story = Story(hostile)
    failed = await make_runner().execute(story.workflow(), params={"given": hostile})
    resumed = await make_runner().resume(failed.run_id, workflow=story.workflow())
    assert resumed.status == "completed"
    assert story.seen == [[hostile] * 3] * 2


async def test_items_are_params_and_take_their_form(make_runner: Any) -> None:
    seen = []

    async def reads(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        seen.append(context.params["item"])

    items = [Decimal("1.5"), (1, 2), date(2026, 1, 2), Line(sku="s", price=Decimal(1))]
    step = Step.map("each", items=items, iterator=reads, max_concurrency=1)
    result = await make_runner().execute(Workflow("w", [step]))
    assert result.error is None
    assert typed(seen) == typed(["1.5", [1, 2], "2026-01-02", {"sku": "s", "price": "1"}])


@pytest.mark.parametrize("item", [float("nan"), object(), "\ud800", {1: "a"}])
async def test_an_item_without_a_form_fails_the_map_or_its_item(make_runner: Any, item: Any) -> None:
    async def never(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        raise AssertionError("it ran")

    result = await make_runner().execute(Workflow("w", [Step.map("each", items=[item], iterator=never)]))
    assert (result.status, result.error_step) == ("failed", "each")
    assert "it ran" not in str(result.error)
