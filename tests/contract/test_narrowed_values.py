"""An instance of a subclass whose fields the declared model would drop is refused, wherever it comes from."""

import dataclasses
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field, RootModel

from spine_async import (
    InvalidParamsError,
    RetryPolicy,
    Schedule,
    Step,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
    WorkflowRunnerConfig,
)


class Animal(BaseModel):
    name: str


class Dog(Animal):
    tricks: int


class Owner(BaseModel):
    pet: Animal


@dataclasses.dataclass
class Tool:
    weight: int


@dataclasses.dataclass
class Saw(Tool):
    teeth: int


class Visit(BaseModel):
    item: Animal | Owner | Tool | list[Animal] | dict[str, Animal] | RootModel[list[Owner]] = Field(alias="the-item")
    pet: Animal | None = None
    room: int = 1


CAT, DOG = Animal(name="cat"), Dog(name="dog", tricks=3)


def _iterator(seen: list[object] | None = None) -> Workflow:
    def visits(context: WorkflowContext, config: dict[str, Any]) -> dict[str, object]:
        if seen is not None:
            seen.append(context.params["item"])
        return {"x": 1}

    return Workflow("visit", [Step.lambda_("visits", visits)], params_model=Visit)


async def _stream(context: WorkflowContext) -> AsyncIterator[object]:
    for each in (CAT, DOG):
        yield each


def _generator(context: WorkflowContext) -> Iterator[object]:
    yield from (CAT, DOG)


async def _later(context: WorkflowContext) -> list[object]:
    return [CAT, DOG]


@pytest.mark.parametrize(
    "items", [lambda context: [CAT, DOG], lambda context: (CAT, DOG), _stream, _generator, _later, [CAT, DOG]]
)
async def test_an_item_of_a_subclass_fails_and_is_named(runner: Any, items: Any) -> None:
    seen: list[object] = []
    step = Step.map("map", iterator=_iterator(seen), items=items, max_concurrency=1)
    result = await runner.execute(Workflow("w", [step]))
    assert (result.status, result.error_step, result.error_category) == ("failed", "map", "DATA_QUALITY")
    assert "first: item 1: item 1:" not in str(result.error)
    assert "first: item 1: " in str(result.error)
    refused = "first: item 1: workflow 'visit': param 'item' is a Dog, but Visit declares a base class"
    assert refused in str(result.error)
    assert seen == [{"name": "cat"}]


@pytest.mark.parametrize(
    ("item", "named"),
    [
        (DOG, "'item' is a Dog"),
        (Owner(pet=DOG), "'item.pet' is a Dog"),
        ({"pet": DOG}, "'item.pet' is a Dog"),
        ([CAT, DOG], "'item[1]' is a Dog"),
        ((CAT, DOG), "'item[1]' is a Dog"),
        ({"a": CAT, "b": DOG}, "'item.b' is a Dog"),
        ([Owner(pet=CAT), {"pet": DOG}], "'item[1].pet' is a Dog"),
        (RootModel[list[Animal]]([CAT, DOG]), "'item[1]' is a Dog"),
        (Saw(weight=1, teeth=2), "'item' is a Saw"),
    ],
)
async def test_the_field_of_an_item_is_named(runner: Any, item: object, named: str) -> None:
    workflow = Workflow("w", [Step.map("map", iterator=_iterator(), items=[item])])
    result = await runner.execute(workflow)
    assert f"param {named}, but Visit declares" in str(result.error)


@pytest.mark.parametrize(
    "item",
    [CAT, Owner(pet=CAT), Tool(weight=1), {"name": "cat", "tricks": 3}, [CAT], {"a": CAT}, [Owner(pet=CAT)], [], {}],
)
async def test_items_that_lose_nothing_run(runner: Any, item: object) -> None:
    workflow = Workflow("w", [Step.map("map", iterator=_iterator(), items=[item])])
    assert (await runner.execute(workflow)).status == "completed"


class Kennel(BaseModel):
    pets: list[Dog]


async def test_items_in_an_earlier_output_and_of_a_map_in_a_map(runner: Any) -> None:
    gives = Step.lambda_("gives", lambda context, config: Kennel(pets=[DOG]), output_model=Kennel)
    inner = Step.map("map", iterator=_iterator(), items_path="gives.pets")
    result = await runner.execute(Workflow("w", [gives, inner]))
    assert "item 0: " in str(result.error)
    assert "param 'item' is a Dog" in str(result.error)
    outer = Step.map("outer", iterator=Workflow("inner", [inner]), items=[1, 2], max_concurrency=1)
    result = await runner.execute(Workflow("w", [gives, outer]))
    assert "param 'item' is a Dog" in str(result.error)


async def test_a_tolerated_item_of_a_subclass_is_reported(runner: Any) -> None:
    seen: list[object] = []
    step = Step.map("map", iterator=_iterator(seen), items=[CAT, DOG, CAT], tolerated_failures=1)
    result = await runner.execute(Workflow("w", [step]))
    output = result.context.get_output("map")
    assert (result.status, output["succeeded"], output["failed"], len(seen)) == ("completed", 2, 1, 2)
    (error,) = output["errors"]
    assert (error["index"], error["category"]) == (1, "DATA_QUALITY")
    assert "'item' is a Dog" in error["error"]


async def test_a_resumed_or_retried_map_refuses_it_too(make_runner: Any) -> None:
    items: list[object] = [CAT, {"name": "dog", "tricks": 3}]

    def visits(context: WorkflowContext, config: dict[str, Any]) -> dict[str, object]:
        if context.params["item"] == {"name": "dog"}:
            raise ConnectionResetError
        return {"x": 1}

    def given(context: WorkflowContext) -> list[object]:
        return items

    iterator = Workflow("visit", [Step.lambda_("visits", visits)], params_model=Visit)
    step = Step.map("map", iterator=iterator, items=given, retry=RetryPolicy(max_attempts=2, initial_delay=0))
    runner = make_runner()
    failed = await runner.execute(Workflow("w", [step]), run_id="r")
    assert "ConnectionResetError" in str(failed.error)
    items[1] = DOG  # has the same JSON form
    result = await make_runner().resume("r", workflow=Workflow("w", [step]))
    assert "item 1: " in str(result.error)
    assert "'item' is a Dog" in str(result.error)


def test_a_param_of_a_schedule_is_refused(tmp_path: Path) -> None:
    config = WorkflowRunnerConfig(database_url=f"sqlite:///{tmp_path}/runs.db")
    schedule = Schedule("nightly", _iterator(), cron="0 0 * * *", params={"item": DOG})
    with pytest.raises(InvalidParamsError, match="'item' is a Dog"):
        WorkflowRunner(config=config, schedules=[schedule])
