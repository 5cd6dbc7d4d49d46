"""A `params_model` reads its own stored params again, whatever aliases and forms it has: items, overrides, contexts."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    computed_field,
    model_serializer,
    model_validator,
)
from pydantic.alias_generators import to_camel

from spine_async import RetryPolicy, Step, StepResult, Workflow, WorkflowContext, WorkflowResult

pytestmark = pytest.mark.anyio


class Strictly(BaseModel):
    model_config = ConfigDict(extra="forbid")
    item: int = 0


class Alias(Strictly):
    user_id: int = Field(alias="user-id")


class Choices(Strictly):
    user_id: int = Field(validation_alias=AliasChoices("uid", "user-id", "user_id"), serialization_alias="memo")


class Path(Strictly):
    user_id: int = Field(validation_alias=AliasPath("user", "id"))
    name: str = Field("none", validation_alias=AliasChoices(AliasPath("user", "names", 0), "user-name"))


class Populated(Strictly):
    model_config = ConfigDict(populate_by_name=True, alias_generator=to_camel)
    user_id: int


class DumpedByAlias(Strictly):
    model_config = ConfigDict(serialize_by_alias=True)
    user_id: int = Field(validation_alias="user-id", serialization_alias="memo")

    @computed_field(alias="twice-id")  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return 2 * self.user_id


class Computed(Strictly):
    user_id: int = Field(alias="user-id")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return 2 * self.user_id


def _draws() -> Iterator[int]:
    yield from range(1_000)


_numbers = _draws()


class Drawn(Strictly):
    user_id: int = Field(alias="user-id")
    number: int = Field(default_factory=lambda: next(_numbers), alias="the-number")


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    city: str = Field(alias="the-city")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def loud(self) -> str:
        return self.city.upper()


class Nested(Strictly):
    user_id: int = Field(alias="user-id")
    homes: list[Inner] = Field(default_factory=lambda: [Inner(**{"the-city": "Rome"})], alias="the-homes")


class Cat(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["cat"] = Field("cat", alias="type")
    lives: int = Field(9, alias="the-lives")


class Dog(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["dog"] = Field("dog", alias="type")


class Union(Strictly):
    user_id: int = Field(alias="user-id")
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] = Field(default_factory=Cat, alias="the-pet")


class Swapped(Strictly):
    user_id: int = Field(alias="user-id")
    left: int = Field(1, alias="right")
    right: int = Field(2, alias="left")


class Reshaped(Strictly):
    user_id: int = Field(alias="user-id")

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, data: Any) -> Any:
        return data["flat"] if isinstance(data, dict) and "flat" in data else data


class Serialized(Strictly):
    user_id: int = Field(alias="user-id")

    @model_serializer
    def _dump(self) -> dict[str, Any]:
        return {"user-id": self.user_id, "item": self.item}


class Extra(BaseModel):
    model_config = ConfigDict(extra="allow")
    user_id: int = Field(alias="user-id")


FORMS: list[tuple[type[BaseModel], dict[str, Any]]] = [
    (Alias, {"user-id": "5"}),
    (Alias, {"user_id": "5"}),
    (Choices, {"user-id": "5"}),
    (Choices, {"uid": "5"}),
    (Path, {"user": {"id": "5", "names": ["Ada", "Eve"]}}),
    (Path, {"user": {"id": "5"}, "user-name": "Ada"}),
    (Populated, {"userId": "5"}),
    (Populated, {"user_id": "5"}),
    (DumpedByAlias, {"user-id": "5"}),
    (Computed, {"user-id": "5"}),
    (Drawn, {"user-id": "5"}),
    (Nested, {"user-id": "5", "the-homes": [{"the-city": "Bern"}]}),
    (Nested, {"user-id": "5"}),
    (Union, {"user-id": "5", "the-pet": {"type": "dog"}}),
    (Union, {"user-id": "5"}),
    (Swapped, {"user-id": "5", "left": 3}),
    (Reshaped, {"user-id": "5"}),
    (Serialized, {"user-id": "5"}),
    (Extra, {"user-id": "5", "more": 1}),
]


def by_form(forms: list[tuple[type[BaseModel], dict[str, Any]]]) -> Any:
    return pytest.mark.parametrize(("model", "params"), forms, ids=[f"{m.__name__}-{'-'.join(p)}" for m, p in forms])


class Seen:
    """Records the params that a step sees, and fails the first `failing` times."""

    def __init__(self, failing: int = 0) -> None:
        self.params: list[dict[str, Any]] = []
        self.failing = failing

    def reads(self, context: WorkflowContext, config: dict[str, Any]) -> None:
        self.params.append(dict(context.params))
        if len(self.params) <= self.failing:
            raise ConnectionError("once")


def completed(result: WorkflowResult) -> None:
    assert result.status == "completed", result.error


@by_form(FORMS)
async def test_the_iterator_of_a_map_has_the_model_of_the_workflow(
    make_runner: Any, model: type[BaseModel], params: dict[str, Any]
) -> None:
    seen = Seen(failing=1)
    steps = [Step.lambda_("first", lambda context, config: None), Step.lambda_("second", seen.reads)]
    iterator = Workflow("each", steps, params_model=model)
    flow = Workflow("w", [Step.map("m", items=["7"], iterator=iterator)], params_model=model)
    failed = await make_runner().execute(flow, params=params)
    assert (failed.status, len(seen.params)) == ("failed", 1), failed.error
    completed(await make_runner().resume(failed.run_id, workflow=flow))
    assert seen.params[0] == seen.params[1]
    assert seen.params[0]["user_id" if "user_id" in seen.params[0] else "user-id"] == 5


@by_form(FORMS)
async def test_a_map_in_a_map_has_the_model_too(
    make_runner: Any, model: type[BaseModel], params: dict[str, Any]
) -> None:
    seen = Seen()
    inner = Workflow("inner", [Step.lambda_("reads", seen.reads)], params_model=model)
    outer = Workflow("outer", [Step.map("in", items=[1], iterator=inner)], params_model=model)
    flow = Workflow("w", [Step.map("out", items=[2], iterator=outer)], params_model=model)
    completed(await make_runner().execute(flow, params=params))
    assert len(seen.params) == 1


@by_form(FORMS)
@pytest.mark.parametrize("key", ["user_id", "given"])
async def test_an_override_reads_the_stored_params_again(
    make_runner: Any, model: type[BaseModel], params: dict[str, Any], key: str
) -> None:
    seen = Seen(failing=2)
    flow = Workflow("w", [Step.lambda_("a", seen.reads)], params_model=model)
    failed = await make_runner().execute(flow, params=params)
    given = {**params, next(iter(params)): {"id": "6"} if model is Path else "6"}
    override = {"user_id": "6"} if key == "user_id" else {name: given[name] for name in list(params)[:1]}
    again = await make_runner().resume(failed.run_id, workflow=flow, params_override=override)
    assert again.status == "failed"
    completed(await make_runner().resume(failed.run_id, workflow=flow, params_override=override))
    assert seen.params[1] == seen.params[2]
    assert seen.params[1].get("user_id", 6) == 6
    assert seen.params[1].get("user-id") in {None, 6, "6"}
    changed = {"user_id", "user-id", "uid", "userId", "user", "memo", "twice", "twice-id", "name", "user-name"}
    kept = [{k: v for k, v in each.items() if k not in changed} for each in seen.params]
    assert kept[0] == kept[1]


@by_form(FORMS)
async def test_the_context_of_a_run_starts_another_one(
    make_runner: Any, model: type[BaseModel], params: dict[str, Any]
) -> None:
    seen = Seen()
    flow = Workflow("w", [Step.lambda_("a", seen.reads)], params_model=model)
    first = await make_runner().execute(flow, params=params)
    completed(await make_runner().execute(flow, context=first.context))
    completed(await make_runner().execute(flow, context=first.context, params={"user_id": 6}))
    assert seen.params[0] == seen.params[1]
    assert seen.params[2].get("user_id", 6) == 6


@pytest.mark.parametrize("default", ["user-id", "user_id"])
@pytest.mark.parametrize("given", ["user-id", "user_id"])
async def test_a_given_param_replaces_a_default_of_the_same_field(make_runner: Any, default: str, given: str) -> None:
    seen = Seen()
    flow = Workflow("w", [Step.lambda_("a", seen.reads)], params_model=Alias, defaults={default: 1})
    completed(await make_runner().execute(flow, params={given: 2}))
    completed(await make_runner().execute(flow))
    assert [each["user_id"] for each in seen.params] == [2, 1]
    assert {each.get("user-id", each["user_id"]) - each["user_id"] for each in seen.params} == {0}


@pytest.mark.parametrize("item_param", ["user-id", "user_id"])
async def test_an_item_replaces_the_inherited_value_under_all_its_names(make_runner: Any, item_param: str) -> None:
    seen = Seen(failing=1)
    steps = [Step.lambda_("first", lambda context, config: None), Step.lambda_("reads", seen.reads)]
    iterator = Workflow("each", steps, params_model=Alias)
    retry = RetryPolicy(max_attempts=2, initial_delay=0)
    each = Step.map("m", items=[7], iterator=iterator, item_param=item_param, retry=retry)
    flow = Workflow("w", [each], params_model=Alias)
    completed(await make_runner().execute(flow, params={"user-id": 5}))
    assert [(each["user_id"], each["user-id"]) for each in seen.params] == [(7, 7), (7, 7)]


async def test_an_iterator_reads_aliases_of_params_that_no_model_has_validated(make_runner: Any) -> None:
    seen = Seen()
    iterator = Workflow("each", [Step.lambda_("reads", seen.reads)], params_model=Alias)
    flow = Workflow("w", [Step.map("m", items=[7], iterator=iterator)])
    completed(await make_runner().execute(flow, params={"user-id": 5, "user_id": "of somebody else", "more": 1}))
    assert seen.params[0]["user_id"] == 5


async def test_a_root_model_as_params_model(make_runner: Any) -> None:
    seen = Seen(failing=1)
    flow = Workflow("w", [Step.lambda_("a", seen.reads)], params_model=RootModel[dict[str, int]])
    failed = await make_runner().execute(flow, params={"a": "1", "b": 2})
    completed(await make_runner().resume(failed.run_id, workflow=flow, params_override={"b": "3"}))
    assert seen.params[1] == {"a": 1, "b": 3}


@pytest.mark.parametrize("key", ["user-id", "user_id"])
async def test_an_update_by_a_step_replaces_the_value_under_all_names(make_runner: Any, key: str) -> None:
    seen, fails = Seen(), [True]

    def updates(context: WorkflowContext, config: dict[str, Any]) -> StepResult:
        return StepResult.ok(context_updates={key: 9})

    def maybe(context: WorkflowContext, config: dict[str, Any]) -> None:
        if fails:
            raise ConnectionError("once")

    iterator = Workflow("each", [Step.lambda_("reads", seen.reads)], params_model=Alias)
    steps = [Step.lambda_("updates", updates), Step.lambda_("maybe", maybe)]
    steps += [Step.lambda_("reads", seen.reads), Step.map("m", items=[7], iterator=iterator)]
    flow = Workflow("w", steps, params_model=Alias)
    failed = await make_runner().execute(flow, params={"user-id": 5})
    fails.clear()
    completed(await make_runner().resume(failed.run_id, workflow=flow))
    completed(await make_runner().execute(flow, params={"user-id": 5}))
    assert [(each["user_id"], each["user-id"]) for each in seen.params] == [(9, 9)] * 4


@pytest.mark.parametrize("default", ["user-id", "user_id"])
@pytest.mark.parametrize("given", ["user-id", "user_id"])
async def test_an_inherited_param_precedes_a_default_of_the_iterator(
    make_runner: Any, default: str, given: str
) -> None:
    seen = Seen()
    iterator = Workflow("each", [Step.lambda_("reads", seen.reads)], params_model=Alias, defaults={default: 1})
    flow = Workflow("w", [Step.map("m", items=[7], iterator=iterator)])
    completed(await make_runner().execute(flow, params={given: 5}))
    completed(await make_runner().execute(flow))
    assert [each["user_id"] for each in seen.params] == [5, 1]
