"""pydantic models as outputs and params: a step reads a value equal to the returned one, or the model is rejected."""

import enum
import re
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, TypeVar
from zoneinfo import ZoneInfo

import pytest
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    RootModel,
    SecretBytes,
    SecretStr,
    computed_field,
    field_validator,
)

from spine_async import InvalidParamsError, RetryPolicy, RunConflictError, Step, StepResult, Workflow, WorkflowContext

T = TypeVar("T")


class Aliased(BaseModel):
    model_config = ConfigDict(extra="forbid")
    user_id: int = Field(alias="user-id")
    note: str = Field("none", validation_alias=AliasChoices("note", "remark"), serialization_alias="memo")


class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    side: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def area(self) -> int:
        return self.side**2


class Animal(BaseModel):
    name: str


class Dog(Animal):
    tricks: int


class Owner(BaseModel):
    pet: Animal


class Hidden(BaseModel):
    shown: int
    hidden: str = Field("none", exclude=True)


class Secret(BaseModel):
    token: SecretStr


class SecretList(BaseModel):
    tokens: list[SecretBytes]


class Growing(BaseModel):
    cents: int

    @field_validator("cents")
    @classmethod
    def _times_100(cls, value: int) -> int:
        return value * 100


class Stripped(BaseModel):
    text: str

    @field_validator("text")
    @classmethod
    def _strip(cls, value: str) -> str:
        return value.strip()


class Page(BaseModel, Generic[T]):
    items: list[T]


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Fish(BaseModel):
    kind: Literal["fish"] = "fish"


class Zoo(BaseModel):
    animals: list[Annotated[Cat | Fish, Field(discriminator="kind")]]


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    at: datetime
    price: Decimal
    tags: frozenset[str]
    raw: bytes
    ident: uuid.UUID


class Private(BaseModel):
    n: int
    _cache: dict[str, int] = PrivateAttr(default_factory=dict)


class Untyped(BaseModel):
    anything: Any


Numbers = RootModel[list[int]]


class Color(enum.Enum):
    RED = "red"


class Painted(BaseModel):
    by_color: dict[Color, int]


class Reader:
    def __init__(self, value: Any, model: type[BaseModel] | None) -> None:
        self.value, self.model, self.seen = value, model, []

    async def gives(self, context: WorkflowContext, config: dict[str, Any]) -> Any:
        return self.value

    async def reads(self, context: WorkflowContext, config: dict[str, Any]) -> None:
        self.seen.append(context.get_output("gives"))
        if len(self.seen) == 1:
            raise ConnectionError("once")

    def workflow(self) -> Workflow:
        gives = Step.lambda_("gives", self.gives, output_model=self.model, on_error="continue")
        return Workflow("w", [gives, Step.lambda_("reads", self.reads)])


STRICT = Strict(
    at=datetime(2026, 1, 2, tzinfo=UTC),
    price=Decimal("1.50"),
    tags=frozenset({"a", "b"}),
    raw=b"text",
    ident=uuid.uuid4(),
)


@pytest.mark.parametrize(
    "value",
    [
        Aliased.model_validate({"user-id": 5, "remark": "x"}),
        Computed(side=3),
        Owner(pet=Animal(name="a")),
        Hidden(shown=1),
        Stripped(text=" a "),
        Page[int](items=[1, 2]),
        Page[Aliased](items=[Aliased.model_validate({"user-id": 5})]),
        Page[Computed](items=[Computed(side=2)]),
        Zoo(animals=[Cat(), Fish()]),
        STRICT,
        Private(n=1),
        Numbers([1, 2]),
        Painted(by_color={Color.RED: 1}),
        Untyped(anything={"a": [1, 2.5, None]}),
    ],
)
async def test_a_model_is_read_as_it_was_returned(make_runner: Any, value: BaseModel) -> None:
    story = Reader(value, type(value))
    failed = await make_runner().execute(story.workflow())
    assert failed.error_step == "reads", failed.error
    assert failed.failed_steps == ["reads"], failed.step_metrics
    resumed = await make_runner().resume(failed.run_id, workflow=story.workflow())
    assert resumed.status == "completed", resumed.error
    assert story.seen == [value, value]


@pytest.mark.parametrize(
    ("value", "model", "named"),
    [
        (Secret(token=SecretStr("x")), Secret, "token"),
        (SecretList(tokens=[SecretBytes(b"x")]), SecretList, "tokens[0]"),
        (Secret(token=SecretStr("x")), None, "token"),
        ({"deep": [Secret(token=SecretStr("x"))]}, None, "deep[0].token"),
        (Owner(pet=Dog(name="a", tricks=3)), Owner, "pet"),
        (Dog(name="a", tricks=3), Animal, "Animal"),
        (Hidden(shown=1, hidden="x"), Hidden, "hidden"),
        ({"cents": 5}, Growing, "cents"),
        (Untyped(anything=(1, 2)), Untyped, "anything"),
        (Untyped(anything=Decimal(1)), Untyped, "anything"),
        (Untyped(anything=object()), Untyped, "anything"),
        (Untyped(anything=b"\xff"), Untyped, "anything"),
        (Untyped(anything=float("nan")), Untyped, "anything"),
    ],
)
async def test_a_model_that_would_be_read_differently_is_refused_by_its_field(
    runner: Any, value: Any, model: type[BaseModel] | None, named: str
) -> None:
    story = Reader(value, model)
    step = Step.lambda_("gives", story.gives, output_model=model)
    result = await runner.execute(Workflow("w", [step]))
    assert (result.status, result.error_step) == ("failed", "gives")
    assert named in str(result.error)


class Timed(BaseModel):
    at: datetime
    others: list[datetime] = []


@pytest.mark.parametrize("fold", [0, 1])
async def test_a_moment_in_an_hour_that_a_change_of_the_clocks_repeats_is_kept(make_runner: Any, fold: int) -> None:
    """Python says that it does not equal the same moment with an offset instead of the zone."""
    at = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=fold)
    given, read = Timed(at=at, others=[at]), list[Timed]()

    def gives(context: WorkflowContext, config: Any) -> Timed:
        return given

    def reads(context: WorkflowContext, config: Any) -> None:
        read.append(context.get_output("gives"))

    steps = [Step.lambda_("gives", gives, output_model=Timed), Step.lambda_("reads", reads)]
    result = await make_runner().execute(Workflow("w", steps))
    assert result.status == "completed", result.error
    assert [each.astimezone(UTC) for each in (read[0].at, *read[0].others)] == [at.astimezone(UTC)] * 2
    params = await make_runner().execute(Workflow("p", steps, params_model=Timed), params={"at": at})
    assert params.status == "completed", params.error


async def test_a_plain_model_keeps_the_fields_of_a_subclass(runner: Any) -> None:
    story = Reader(Owner(pet=Dog(name="a", tricks=3)), None)
    result = await runner.execute(story.workflow())
    assert result.context.get_output("gives") == {"pet": {"name": "a", "tricks": 3}}


class Kennel(BaseModel):
    owners: list[Owner] = []
    pet: Animal | None = Field(None, alias="the-pet")
    guests: RootModel[list[Animal]] = RootModel[list[Animal]]([])


DOG = Dog(name="a", tricks=3)


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"pet": DOG}, "'pet' is a Dog"),
        ({"the-pet": DOG}, "'the-pet' is a Dog"),
        ({"owners": [Owner(pet=Animal(name="b")), Owner(pet=DOG)]}, "'owners[1].pet' is a Dog"),
        ({"owners": [{"pet": DOG}]}, "'owners[0].pet' is a Dog"),
        ({"guests": [DOG]}, "'guests[0]' is a Dog"),
    ],
)
async def test_params_of_a_subclass_whose_fields_would_be_lost_are_refused(
    make_runner: Any, params: dict[str, object], named: str
) -> None:
    kennel = Workflow("kennel", [Step.lambda_("gives", lambda context, config: {"x": 1})], params_model=Kennel)
    parent = Workflow("parent", [Step.workflow("child", kennel, lambda context: params)])
    runner = make_runner()
    with pytest.raises(InvalidParamsError, match=re.escape(f"{named}, but Kennel declares a base class")):
        await runner.execute(kennel, params=params)
    result = await runner.execute(parent)
    assert named in str(result.error)
    await runner.execute(kennel, params={"pet": Animal(name="a")}, run_id="r")
    async with make_runner() as entered:
        with pytest.raises(InvalidParamsError, match=re.escape(named)):
            await entered.fork("r", "gives", params=params, workflow=kennel)


async def test_a_dict_with_other_fields_is_left_to_the_model(runner: Any) -> None:
    kennel = Workflow("kennel", [Step.lambda_("gives", lambda context, config: {"x": 1})], params_model=Kennel)
    result = await runner.execute(kennel, params={"pet": {"name": "a", "tricks": 3}})
    assert result.context.params["pet"] == {"name": "a"}


@pytest.mark.parametrize(
    "result", [StepResult.skip("empty", {"why": 1}), StepResult.fail("x", output={"why": 1}, category="INTERNAL")]
)
async def test_the_output_of_a_skip_or_a_failure_is_not_read_as_the_model(make_runner: Any, result: StepResult) -> None:
    story = Reader(result, Computed)
    failed = await make_runner().execute(story.workflow())
    assert failed.error_step == "reads", failed.error
    resumed = await make_runner().resume(failed.run_id, workflow=story.workflow())
    assert resumed.status == "completed", resumed.error
    assert story.seen == [{"why": 1}, {"why": 1}]


class Params(BaseModel):
    model_config = ConfigDict(extra="forbid")
    day: int = Field(ge=1, alias="the-day")
    token: str = Field(default_factory=lambda: uuid.uuid4().hex)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def next_day(self) -> int:
        return self.day + 1


def _params_flow(seen: list[dict[str, Any]], model: type[BaseModel]) -> Workflow:
    def read(context: WorkflowContext, config: dict[str, Any]) -> StepResult:
        seen.append(dict(context.params))
        return StepResult.fail("once") if len(seen) == 1 else StepResult.ok()

    return Workflow("w", [Step.lambda_("a", read)], params_model=model)


async def test_the_same_call_twice_is_no_conflict_although_the_model_draws_a_default(make_runner: Any) -> None:
    seen: list[dict[str, Any]] = []
    flow = _params_flow(seen, Params)
    first = await make_runner().execute(flow, params={"the-day": 5}, run_id="r")
    again = await make_runner().execute(flow, params={"the-day": 5}, run_id="r")
    assert (first.status, again.status, len(seen)) == ("failed", "failed", 1)
    with pytest.raises(RunConflictError):
        await make_runner().execute(flow, params={"the-day": 6}, run_id="r")


@pytest.mark.parametrize("override", [{"the-day": 0}, {"day": "x"}, {"more": 1}])
async def test_an_override_that_does_not_fit_the_model_is_refused(make_runner: Any, override: dict[str, Any]) -> None:
    flow = _params_flow([], Params)
    await make_runner().execute(flow, params={"the-day": 5}, run_id="r")
    with pytest.raises(InvalidParamsError):
        await make_runner().resume("r", workflow=flow, params_override=override)


@pytest.mark.parametrize("override", [{"the-day": "7"}, {"day": "7"}])
async def test_an_override_is_validated_and_changes_nothing_else(make_runner: Any, override: dict[str, Any]) -> None:
    seen: list[dict[str, Any]] = []
    flow = _params_flow(seen, Params)
    await make_runner().execute(flow, params={"the-day": 5}, run_id="r")
    result = await make_runner().resume("r", workflow=flow, params_override=override)
    assert result.status == "completed"
    assert (seen[1]["day"], seen[1]["next_day"], seen[1]["token"]) == (7, 8, seen[0]["token"])


@pytest.mark.parametrize(("model", "params"), [(Secret, {"token": "x"}), (Growing, {"cents": 5})])
async def test_params_that_would_be_read_differently_are_refused_at_the_start(
    runner: Any, model: type[BaseModel], params: dict[str, Any]
) -> None:
    with pytest.raises(InvalidParamsError, match=next(iter(params))):
        await runner.execute(_params_flow([], model), params=params)


class ItemParams(BaseModel):
    model_config = ConfigDict(extra="forbid")
    item: int
    token: str = Field(default_factory=lambda: uuid.uuid4().hex)


async def test_items_of_a_map_go_through_the_params_model_of_its_iterator(make_runner: Any) -> None:
    seen: list[dict[str, Any]] = []

    def first(context: WorkflowContext, config: dict[str, Any]) -> None:
        seen.append(dict(context.params))

    def second(context: WorkflowContext, config: dict[str, Any]) -> None:
        seen.append(dict(context.params))
        if len(seen) == 2:
            raise ConnectionError("once")

    steps = [Step.lambda_("first", first), Step.lambda_("second", second)]
    iterator = Workflow("each", steps, params_model=ItemParams)
    flow = Workflow("w", [Step.map("m", items=["7"], iterator=iterator)])
    failed = await make_runner().execute(flow, params={"other": 1})
    assert failed.status == "failed"
    resumed = await make_runner().resume(failed.run_id, workflow=flow)
    assert resumed.status == "completed", resumed.error
    assert [each["item"] for each in seen] == [7, 7, 7]
    assert len({each["token"] for each in seen}) == 1
    assert {each["other"] for each in seen} == {1}


async def test_an_item_that_does_not_fit_fails_by_itself(runner: Any) -> None:
    iterator = Workflow("each", [Step.lambda_("a", lambda _c, _d: {"n": 1})], params_model=ItemParams)
    flow = Workflow("w", [Step.map("m", items=[1, "x", 2], iterator=iterator, tolerated_failures=1)])
    result = await runner.execute(flow)
    assert result.status == "completed", result.error
    output = result.context.get_output("m")
    assert (output["succeeded"], output["failed"]) == (2, 1)
    assert (output["errors"][0]["index"], output["errors"][0]["category"]) == (1, "DATA_QUALITY")
    assert "item" in output["errors"][0]["error"]


async def test_an_item_that_fits_only_at_the_next_attempt_of_its_map_repeats_no_step(make_runner: Any) -> None:
    problems, ran = ["broken"], list[str]()

    class Fitting(BaseModel):
        item: int

        @field_validator("item")
        @classmethod
        def fits(cls, value: int) -> int:
            if "unfit" in problems:
                problems.remove("unfit")
                raise ValueError("not yet")
            return value

    def first(context: WorkflowContext, config: dict[str, Any]) -> None:
        ran.append("first")

    def second(context: WorkflowContext, config: dict[str, Any]) -> None:
        if "broken" in problems:
            raise ConnectionError("once")
        ran.append("second")

    iterator = Workflow("each", [Step.lambda_("first", first), Step.lambda_("second", second)], params_model=Fitting)
    retry = RetryPolicy(max_attempts=2, initial_delay=0, retryable_errors="DATA_QUALITY")
    flow = Workflow("w", [Step.map("m", items=[7], iterator=iterator, retry=retry)])
    failed = await make_runner().execute(flow)
    assert (failed.status, ran) == ("failed", ["first"])
    problems[:] = ["unfit"]
    resumed = await make_runner().resume(failed.run_id, workflow=flow)
    assert resumed.status == "completed", resumed.error
    assert (problems, ran) == ([], ["first", "second"])
