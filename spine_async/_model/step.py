"""The five kinds of steps, as values checked when they are built."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeAlias, TypedDict, Unpack

from pydantic import BaseModel

from spine_async._model.async_callable import is_async_callable
from spine_async._model.item_source import ItemSource, as_item_source, check_tolerance
from spine_async._model.naming import name_problem
from spine_async._model.policy import RetryPolicy, to_seconds
from spine_async._model.quality import QualityThresholds
from spine_async._model.status import ErrorPolicy, StepType
from spine_async.errors import DefinitionError

if TYPE_CHECKING:
    from spine_async._model.context import WorkflowContext

Handler: TypeAlias = "Callable[[WorkflowContext, dict[str, object]], object]"
Condition: TypeAlias = "Callable[[WorkflowContext], bool | Awaitable[bool]]"
ItemFunction: TypeAlias = "Callable[[WorkflowContext], object]"
Moment: TypeAlias = "datetime | str | Callable[[WorkflowContext], datetime | str]"


class Definition(Protocol):
    """A named list of steps, as the engine reads it; `Workflow` is the implementation.

    Attributes:
        positions: Index of each step in the list, by step name.
        models: The `output_model` of each step that has one, by step name.
        defaults: Params that apply if no others are given.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int: ...

    @property
    def steps(self) -> tuple[Step, ...]: ...

    @property
    def step_names(self) -> tuple[str, ...]: ...

    @property
    def positions(self) -> Mapping[str, int]: ...

    @property
    def models(self) -> Mapping[str, type[BaseModel]]: ...

    @property
    def defaults(self) -> Mapping[str, object]: ...

    def step(self, name: str, /) -> Step:
        """The step of that name; raises `UnknownStepError` if there is none."""
        ...


class StepOptions(TypedDict, total=False):
    """Options that lambda, pipeline and map steps share.

    Keys:
        on_error: What happens once the attempts are used up.
        retry: Policy for further attempts; None means one attempt (or the runner's default with `on_error=RETRY`).
        timeout: Seconds (or a `timedelta`) for each attempt; None means the runner's default.
        checkpoint: True or False to overrule `checkpoint_every_step` for this step.
        output_model: Pydantic model that the output must fit and that later steps are given.
        quality_thresholds: Limits on the quality the step reports.
        next_step: Step to go to afterwards instead of the next in the list.
    """

    on_error: ErrorPolicy | str
    retry: RetryPolicy | None
    timeout: float | timedelta | None
    checkpoint: bool | None
    output_model: type[BaseModel] | None
    quality_thresholds: QualityThresholds | None
    next_step: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a workflow. Build it with `lambda_`, `pipeline`, `choice`, `map` or `wait`.

    Raises:
        DefinitionError: A name, a limit or an option is not usable; the message names the step.

    Example:
        >>> Step.lambda_("greet", lambda context, config: {"hello": context.params["name"]}).name
        'greet'
    """

    step_type: ClassVar[StepType]

    name: str
    config: Mapping[str, object] = field(default_factory=dict)
    on_error: ErrorPolicy = ErrorPolicy.STOP
    retry: RetryPolicy | None = None
    timeout: float | None = None
    checkpoint: bool | None = None
    output_model: type[BaseModel] | None = None
    quality_thresholds: QualityThresholds | None = None
    next_step: str | None = None

    def __post_init__(self) -> None:
        problem = name_problem(self.name)
        if problem:
            raise DefinitionError(problem, step=str(self.name)[:40])
        self._set("config", MappingProxyType(dict(self.config or {})))
        self._set("on_error", self._checked(lambda: ErrorPolicy(self.on_error)))
        if self.timeout is not None:
            self._set("timeout", self._checked(lambda: _positive(self.timeout, "timeout")))
        self._check_types()

    @staticmethod
    def lambda_(
        name: str, handler: Handler, config: Mapping[str, object] | None = None, **options: Unpack[StepOptions]
    ) -> LambdaStep:
        """A step that calls `handler(context, config)`, an `async def` or a `def` (run in a worker thread)."""
        return LambdaStep(name=name, handler=handler, config=config or {}, **options)  # type: ignore[arg-type]

    @staticmethod
    def pipeline(
        name: str, pipeline: str, params: Mapping[str, object] | None = None, **options: Unpack[StepOptions]
    ) -> PipelineStep:
        """A step that has the runner's dispatcher run the named pipeline with the run's params and `params` on top."""
        return PipelineStep(name=name, pipeline_name=pipeline, config=params or {}, **options)  # type: ignore[arg-type]

    @staticmethod
    def choice(name: str, condition: Condition, then_step: str, else_step: str | None = None) -> ChoiceStep:
        """A step that goes to `then_step` or `else_step` (None: the next in the list), as `condition(context)` says."""
        return ChoiceStep(name=name, condition=condition, then_step=then_step, else_step=else_step)

    @staticmethod
    def map(
        name: str,
        *,
        iterator: Definition | Handler,
        items: Iterable[object] | AsyncIterable[object] | ItemFunction | None = None,
        items_path: str | None = None,
        item_param: str = "item",
        max_concurrency: int = 10,
        tolerated_failures: float = 0,
        collect: bool = True,
        **options: Unpack[StepOptions],
    ) -> MapStep:
        """A step that runs `iterator` once for each item, `max_concurrency` of them at a time.

        Args:
            name: Name of the step.
            iterator: A workflow, or a handler as shorthand for a workflow of one lambda.
            items: An iterable, an async iterable, or a function of the context that returns either.
            items_path: Where the items are instead: a key of the params, or `step.key` of an earlier output.
            item_param: Param under which an item's steps find their item.
            max_concurrency: Items in work at once; at least 1.
            tolerated_failures: Items that may fail, as a count (int) or as a share of all (float, 0 to 1).
            collect: False keeps no results, so that memory stays flat however many items there are.
            **options: See `StepOptions`.
        """
        return MapStep(
            name=name,
            iterator=iterator,
            source=as_item_source(items, items_path, step=name),
            item_param=item_param,
            max_concurrency=max_concurrency,
            tolerated_failures=tolerated_failures,
            collect=collect,
            **options,  # type: ignore[arg-type]
        )

    @staticmethod
    def wait(name: str, seconds: float | timedelta | None = None, *, until: Moment | None = None) -> WaitStep:
        """A step that waits for `seconds`, or until a moment (aware datetime, ISO 8601 text, or a function of context).

        The moment it ends at is stored when it begins, so that a resumed run waits only for what is left.
        """
        return WaitStep(name=name, seconds=seconds, until=until)

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the steps this one may go to."""
        return (self.next_step,) if self.next_step is not None else ()

    def _check_types(self) -> None:
        expected = (
            ("retry", RetryPolicy, "a RetryPolicy"),
            ("quality_thresholds", QualityThresholds, "QualityThresholds"),
            ("checkpoint", bool, "True, False or None"),
            ("next_step", str, "the name of a step"),
        )
        for option, kind, wanted in expected:
            value = getattr(self, option)
            if value is not None and not isinstance(value, kind):
                raise self._error(f"{option} is {value!r}; it must be {wanted}")
        model = self.output_model
        if model is not None and not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise self._error(f"output_model is {model!r}; it must be a pydantic model class")

    def _set(self, option: str, value: object) -> None:
        object.__setattr__(self, option, value)

    def _error(self, problem: str) -> DefinitionError:
        return DefinitionError(problem, step=self.name)

    def _checked(self, build: Callable[[], object]) -> object:
        try:
            return build()
        except ValueError as exc:
            raise self._error(str(exc)) from None

    def _require_callable(self, option: str, value: object) -> None:
        if not callable(value):
            raise self._error(f"{option} is {value!r}; it must be callable")


@dataclass(frozen=True, slots=True, kw_only=True)
class LambdaStep(Step):
    """Calls a function of the user's."""

    step_type: ClassVar[StepType] = StepType.LAMBDA

    handler: Handler
    is_async: bool = field(init=False)

    def __post_init__(self) -> None:
        Step.__post_init__(self)
        self._require_callable("handler", self.handler)
        self._set("is_async", is_async_callable(self.handler))


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineStep(Step):
    """Has a dispatcher run a pipeline; `config` holds the params of this step."""

    step_type: ClassVar[StepType] = StepType.PIPELINE

    pipeline_name: str

    def __post_init__(self) -> None:
        Step.__post_init__(self)
        if not isinstance(self.pipeline_name, str) or not self.pipeline_name:
            raise self._error(f"pipeline is {self.pipeline_name!r}; it must be the name of a pipeline")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceStep(Step):
    """Jumps to one of two steps."""

    step_type: ClassVar[StepType] = StepType.CHOICE

    condition: Condition
    then_step: str
    else_step: str | None = None

    def __post_init__(self) -> None:
        Step.__post_init__(self)
        self._require_callable("condition", self.condition)
        for option, target in (("then_step", self.then_step), ("else_step", self.else_step)):
            if not isinstance(target, str) and not (option == "else_step" and target is None):
                raise self._error(f"{option} is {target!r}; it must be the name of a step")

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.then_step,) if self.else_step is None else (self.then_step, self.else_step)


@dataclass(frozen=True, slots=True, kw_only=True)
class MapStep(Step):
    """Runs a workflow for each of many items."""

    step_type: ClassVar[StepType] = StepType.MAP

    iterator: Definition | Handler
    source: ItemSource
    item_param: str = "item"
    max_concurrency: int = 10
    tolerated_failures: int | float = 0
    collect: bool = True

    def __post_init__(self) -> None:
        Step.__post_init__(self)
        limit = self.max_concurrency
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise self._error(f"max_concurrency is {limit!r}; it must be an integer of at least 1")
        if not isinstance(self.item_param, str) or not self.item_param:
            raise self._error(f"item_param is {self.item_param!r}; it must be the name of a param")
        self._checked(lambda: check_tolerance(self.tolerated_failures))

    @property
    def workflow(self) -> Definition:
        """What runs for each item."""
        return self.iterator  # type: ignore[return-value]


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitStep(Step):
    """Waits for a time, or until a moment."""

    step_type: ClassVar[StepType] = StepType.WAIT

    seconds: float | timedelta | None = None
    until: Moment | None = None

    def __post_init__(self) -> None:
        Step.__post_init__(self)
        if (self.seconds is None) == (self.until is None):
            raise self._error("a wait takes either seconds or until, exactly one of them")
        if self.seconds is not None:
            self._set("seconds", self._checked(lambda: _seconds(self.seconds, "seconds")))
        elif not callable(self.until):
            self._set("until", self._checked(lambda: as_moment(self.until)))


def as_moment(value: object) -> datetime:
    """An aware datetime, given as one or as ISO 8601 text.

    Raises:
        ValueError: It is neither, or has no time zone.
    """
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError(f"until is {value!r}; text must be ISO 8601, like 2026-01-10T12:00:00+00:00") from None
    if not isinstance(moment, datetime):
        told = f"until is of type {type(value).__name__}; it must be a datetime, ISO 8601 text or a function"
        raise ValueError(told)  # noqa: TRY004 - as for every unusable value of a step
    if moment.tzinfo is None:
        raise ValueError("until has no time zone; give an aware datetime, for instance in datetime.UTC")
    return moment


def _seconds(value: object, option: str) -> float:
    try:
        return to_seconds(value)  # type: ignore[arg-type]
    except ValueError as exc:
        raise ValueError(f"{option}: {exc}") from None


def _positive(value: object, option: str) -> float:
    seconds = _seconds(value, option)
    if seconds == 0:
        raise ValueError(f"{option} is 0; it must be a number of seconds above 0, or None for no limit")
    return seconds
