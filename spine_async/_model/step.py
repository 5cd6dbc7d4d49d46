"""A step of a workflow: its options, validated when it is created, and the methods that create each kind."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from pydantic import BaseModel

from spine_async._model.item_source import as_item_source
from spine_async._model.naming import name_problem
from spine_async._model.output_model import OutputModel
from spine_async._model.policy import RetryPolicy
from spine_async._model.private_copy import private_members
from spine_async._model.quality import QualityThresholds
from spine_async._model.shown import shown
from spine_async._model.signature import check_callable
from spine_async._model.status import ErrorPolicy, StepType
from spine_async._model.step_options import (
    Concurrency,
    Condition,
    Handler,
    ItemFunction,
    Moment,
    OnError,
    ParamsFunction,
    check_option_types,
)
from spine_async._model.target import as_catch, caught_by
from spine_async._model.time_option import limit_option_seconds, positive_option_seconds
from spine_async.errors import DefinitionError

if TYPE_CHECKING:
    from spine_async._model.choice_step import ChoiceStep
    from spine_async._model.lambda_step import LambdaStep
    from spine_async._model.map_step import MapStep
    from spine_async._model.parallel_step import Branch, Need, ParallelStep
    from spine_async._model.pipeline_step import PipelineStep
    from spine_async._model.signal_step import SignalStep
    from spine_async._model.transaction_step import TransactionHandler, TransactionStep
    from spine_async._model.wait_step import WaitStep
    from spine_async._model.workflow_step import WorkflowStep


class Definition(Protocol):
    """A named list of steps, as the engine reads it; `Workflow` is the implementation.

    Attributes:
        positions: Index of each step in the list, by step name.
        models: The models that outputs are decoded to, by step name.
        defaults: Default values of params.
        cleanup: Steps that are executed when the other steps have ended.
        compensates: Whether one of the steps, or of those inside of them, has a compensation.
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
    def models(self) -> Mapping[str, OutputModel]: ...

    @property
    def defaults(self) -> Mapping[str, object]: ...

    @property
    def params_model(self) -> type[BaseModel] | None: ...

    @property
    def cleanup(self) -> tuple[Step, ...]: ...

    @property
    def compensates(self) -> bool: ...

    def step(self, name: str, /) -> Step:
        """The step with this name; raises `UnknownStepError` if there is none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step of a workflow. Build one with a static method of this class, such as `lambda_`.

    Raises:
        DefinitionError: A name, a limit or an option is invalid; the message names the step.

    Example:
        >>> Step.lambda_("greet", lambda context, config: {"hello": context.params["name"]}).name
        'greet'
    """

    step_type: ClassVar[StepType]
    can_interrupt: ClassVar[bool] = False
    """Whether its executor may end the run, for instance because a commit failed."""
    nests_steps: ClassVar[bool] = False
    """Whether the steps of other workflows may be executed inside of it."""

    name: str
    config: Mapping[str, object] = field(default_factory=dict)
    on_error: ErrorPolicy = ErrorPolicy.STOP
    retry: RetryPolicy | None = None
    timeout: float | None = None
    idle_timeout: float | None = None
    checkpoint: bool | None = None
    output_model: type[BaseModel] | None = None
    quality_thresholds: QualityThresholds | None = None
    next_step: str | None = None
    catch: Mapping[str, str] | None = None
    compensate: Handler | None = None

    def __post_init__(self) -> None:
        problem = name_problem(self.name)
        if problem:
            raise DefinitionError(
                problem, step=shown(self.name, 40) if not isinstance(self.name, str) else self.name[:40]
            )
        if not isinstance(self.config, Mapping):
            problem = f"of type {type(self.config).__name__}; it must be a mapping of names to values"
            raise self._error(f"{self._config_name} is {problem}")
        self._set("config", MappingProxyType(private_members(self.config)))
        self._set("on_error", self._checked(lambda: ErrorPolicy(self.on_error)))
        if self.timeout is not None:
            self._set("timeout", self._checked(lambda: limit_option_seconds(self.timeout, "timeout")))
        if self.idle_timeout is not None:
            self._set("idle_timeout", self._checked(lambda: positive_option_seconds(self.idle_timeout, "idle_timeout")))
        self._set("catch", self._checked(lambda: as_catch(self.catch)))
        if self.compensate is not None:
            self._checked(lambda: check_callable("compensate", self.compensate))
        self._checked(lambda: check_option_types(self))

    @property
    def _config_name(self) -> str:
        return "config"

    @staticmethod
    def lambda_(
        name: str,
        handler: Handler,
        config: Mapping[str, object] | None = None,
        *,
        on_error: OnError = ErrorPolicy.STOP,
        retry: RetryPolicy | None = None,
        timeout: float | timedelta | None = None,
        idle_timeout: float | timedelta | None = None,
        checkpoint: bool | None = None,
        output_model: type[BaseModel] | None = None,
        quality_thresholds: QualityThresholds | None = None,
        next_step: str | None = None,
        catch: Mapping[str, str] | None = None,
        compensate: Handler | None = None,
    ) -> LambdaStep:
        """A step that calls `handler(context, config)`.

        Args:
            name: Name of the step.
            handler: An `async def`, or a `def`, which runs in a worker thread.
            config: Second argument of the handler.
            on_error: What the run does after the last failed attempt.
            retry: Policy for further attempts; None means one attempt (or the default of the runner with
                `on_error="retry"`).
            timeout: Limit for each attempt, in seconds or as a `timedelta`; None means the default of the runner,
                `math.inf` no limit.
            idle_timeout: How long an attempt may neither emit an event nor report progress, in seconds or as a
                `timedelta`; then it ends with category TIMEOUT. `timeout` applies too. None means no such limit.
            checkpoint: True or False overrides `checkpoint_every_step` for this step.
            output_model: Pydantic model that validates the output; later steps read the output as this model.
            quality_thresholds: Limits on the quality metrics of the step.
            next_step: Step to continue with instead of the next in the list, or `END`.
            catch: Steps to continue with after the last failed attempt, by error category; `"*"` stands for every other
                category. It takes precedence over `on_error`.
            compensate: Handler that undoes what the step did, if the run fails, or is stopped with `compensate=True`.
                It is called with the context, in which it reads the output of the step, and the config of the step.
        """
        from spine_async._model.lambda_step import LambdaStep  # noqa: PLC0415 - LambdaStep derives from Step

        return LambdaStep(
            name=name,
            handler=handler,
            config={} if config is None else config,
            on_error=on_error,  # type: ignore[arg-type]
            retry=retry,
            timeout=timeout,  # type: ignore[arg-type]
            idle_timeout=idle_timeout,  # type: ignore[arg-type]
            checkpoint=checkpoint,
            output_model=output_model,
            quality_thresholds=quality_thresholds,
            next_step=next_step,
            catch=catch,
            compensate=compensate,
        )

    @staticmethod
    def pipeline(
        name: str,
        pipeline: str,
        params: Mapping[str, object] | None = None,
        *,
        on_error: OnError = ErrorPolicy.STOP,
        retry: RetryPolicy | None = None,
        timeout: float | timedelta | None = None,
        idle_timeout: float | timedelta | None = None,
        checkpoint: bool | None = None,
        output_model: type[BaseModel] | None = None,
        quality_thresholds: QualityThresholds | None = None,
        next_step: str | None = None,
        catch: Mapping[str, str] | None = None,
        compensate: Handler | None = None,
    ) -> PipelineStep:
        """A step that runs a pipeline through the dispatcher of the runner.

        Args:
            name: Name of the step.
            pipeline: Registered name of the pipeline.
            params: Params of the pipeline; they override the params of the run.
            on_error: What the run does after the last failed attempt.
            retry: Policy for further attempts; None means one attempt (or the default of the runner with
                `on_error="retry"`).
            timeout: Limit for each attempt, in seconds or as a `timedelta`; None means the default of the runner,
                `math.inf` no limit.
            idle_timeout: How long an attempt may neither emit an event nor report progress, in seconds or as a
                `timedelta`; then it ends with category TIMEOUT. `timeout` applies too. None means no such limit.
            checkpoint: True or False overrides `checkpoint_every_step` for this step.
            output_model: Pydantic model that validates the output; later steps read the output as this model.
            quality_thresholds: Limits on the quality metrics of the step.
            next_step: Step to continue with instead of the next in the list, or `END`.
            catch: Steps to continue with after the last failed attempt, by error category; `"*"` stands for every other
                category. It takes precedence over `on_error`.
            compensate: Handler that undoes what the step did, if the run fails, or is stopped with `compensate=True`.
                It is called with the context, in which it reads the output of the step, and the config of the step.
        """
        from spine_async._model.pipeline_step import PipelineStep  # noqa: PLC0415 - PipelineStep derives from Step

        return PipelineStep(
            name=name,
            pipeline_name=pipeline,
            config={} if params is None else params,
            on_error=on_error,  # type: ignore[arg-type]
            retry=retry,
            timeout=timeout,  # type: ignore[arg-type]
            idle_timeout=idle_timeout,  # type: ignore[arg-type]
            checkpoint=checkpoint,
            output_model=output_model,
            quality_thresholds=quality_thresholds,
            next_step=next_step,
            catch=catch,
            compensate=compensate,
        )

    @staticmethod
    def choice(
        name: str,
        condition: Condition,
        then_step: str,
        else_step: str | None = None,
        *,
        next_step: str | None = None,
        catch: Mapping[str, str] | None = None,
    ) -> ChoiceStep:
        """A step that chooses the next step. Each target is the name of a step, or `END`.

        Args:
            name: Name of the step.
            condition: Function of the context, sync or async, that returns a bool.
            then_step: Next step if the condition is true.
            else_step: Next step if it is false; None means `next_step`.
            next_step: Next step if no other option names one; None means the next in the list.
            catch: Steps to continue with if the condition raises, by error category; `"*"` stands for every other
                category.
        """
        from spine_async._model.choice_step import ChoiceStep  # noqa: PLC0415 - ChoiceStep derives from Step

        return ChoiceStep(
            name=name, condition=condition, then_step=then_step, else_step=else_step, next_step=next_step, catch=catch
        )

    @staticmethod
    def map(
        name: str,
        *,
        iterator: Definition | Handler,
        items: Iterable[object] | AsyncIterable[object] | ItemFunction | None = None,
        items_path: str | None = None,
        item_param: str = "item",
        max_concurrency: Concurrency = 10,
        tolerated_failures: float = 0,
        collect: bool = True,
        on_error: OnError = ErrorPolicy.STOP,
        retry: RetryPolicy | None = None,
        timeout: float | timedelta | None = None,
        checkpoint: bool | None = None,
        output_model: type[BaseModel] | None = None,
        quality_thresholds: QualityThresholds | None = None,
        next_step: str | None = None,
        catch: Mapping[str, str] | None = None,
        compensate: Handler | None = None,
    ) -> MapStep:
        """A step that runs a workflow for each item.

        Args:
            name: Name of the step.
            iterator: A workflow, or a handler as shorthand for a workflow of one lambda step.
            items: An iterable, an async iterable, or a function of the context that returns one.
            items_path: Path of the items instead of `items`: a key of the params, or `step.key` of an earlier output.
            item_param: Param that contains the item.
            max_concurrency: Maximum number of items that run at the same time, at least 1; or a plain function of the
                context that returns it, called at the start of each attempt.
            tolerated_failures: Number of items that may fail (int), or their share of all items (float, 0 to 1).
            collect: Whether the output contains the results; False keeps memory constant for any number of items.
            on_error: What the run does after the last failed attempt.
            retry: Policy for further attempts; None means one attempt (or the default of the runner with
                `on_error="retry"`).
            timeout: Limit for each attempt, in seconds or as a `timedelta`; None means no limit.
            checkpoint: True or False overrides `checkpoint_every_step` for this step.
            output_model: Pydantic model that validates the output; later steps read the output as this model.
            quality_thresholds: Refused; a map reports no quality metrics.
            next_step: Step to continue with instead of the next in the list, or `END`.
            catch: Steps to continue with after the last failed attempt, by error category; `"*"` stands for every other
                category. It takes precedence over `on_error`.
            compensate: Handler that undoes what the step did, if the run fails, or is stopped with `compensate=True`.
                It is called with the context, in which it reads the output of the step, and the config of the step.
        """
        from spine_async._model.map_step import MapStep  # noqa: PLC0415 - MapStep derives from Step

        return MapStep(
            name=name,
            iterator=iterator,
            source=as_item_source(items, items_path, step=name),
            item_param=item_param,
            max_concurrency=max_concurrency,
            tolerated_failures=tolerated_failures,
            collect=collect,
            on_error=on_error,  # type: ignore[arg-type]
            retry=retry,
            timeout=timeout,  # type: ignore[arg-type]
            checkpoint=checkpoint,
            output_model=output_model,
            quality_thresholds=quality_thresholds,
            next_step=next_step,
            catch=catch,
            compensate=compensate,
        )

    @staticmethod
    def parallel(
        name: str,
        branches: Mapping[str, Branch],
        *,
        need: Need = "all",
        max_concurrency: Concurrency | None = None,
        on_error: OnError = ErrorPolicy.STOP,
        retry: RetryPolicy | None = None,
        timeout: float | timedelta | None = None,
        checkpoint: bool | None = None,
        output_model: type[BaseModel] | None = None,
        quality_thresholds: QualityThresholds | None = None,
        next_step: str | None = None,
        catch: Mapping[str, str] | None = None,
        compensate: Handler | None = None,
    ) -> ParallelStep:
        """A step that runs branches at the same time.

        The steps of a branch see the params and outputs of the workflow around it. The output has a member for each
        branch: the output of its last step, or None if it did not finish.

        Args:
            name: Name of the step.
            branches: By the name of the branch, a workflow, a handler, a step, or a list of steps.
            need: How many branches must succeed: `all`, `any` (one), or a number. When enough have succeeded, the
                others are cancelled with the reason `sibling_done`. The step fails as soon as too few can succeed.
            max_concurrency: Maximum number of branches that run at the same time, or a function of the context that
                returns it; None means all.
            on_error: What the run does after the last failed attempt.
            retry: Policy for further attempts, which run only the branches that have not finished.
            timeout: Limit for each attempt, in seconds or as a `timedelta`; None means no limit.
            checkpoint: True or False overrides `checkpoint_every_step` for this step.
            output_model: Pydantic model that validates the output; later steps read the output as this model.
            quality_thresholds: Refused; a parallel step reports no quality metrics.
            next_step: Step to continue with instead of the next in the list, or `END`.
            catch: Steps to continue with after the last failed attempt, by error category; `"*"` stands for every other
                category. It takes precedence over `on_error`.
            compensate: Handler that undoes what the step did, if the run fails, or is stopped with `compensate=True`.
                It is called with the context, in which it reads the output of the step, and the config of the step.
        """
        from spine_async._model.parallel_step import ParallelStep  # noqa: PLC0415 - ParallelStep derives from Step

        return ParallelStep(
            name=name,
            branches=branches,
            need=need,
            max_concurrency=max_concurrency,
            on_error=on_error,  # type: ignore[arg-type]
            retry=retry,
            timeout=timeout,  # type: ignore[arg-type]
            checkpoint=checkpoint,
            output_model=output_model,
            quality_thresholds=quality_thresholds,
            next_step=next_step,
            catch=catch,
            compensate=compensate,
        )

    @staticmethod
    def workflow(
        name: str,
        workflow: Definition,
        params: Mapping[str, object] | ParamsFunction | None = None,
        *,
        queue: str | None = None,
        on_error: OnError = ErrorPolicy.STOP,
        retry: RetryPolicy | None = None,
        timeout: float | timedelta | None = None,
        checkpoint: bool | None = None,
        output_model: type[BaseModel] | None = None,
        quality_thresholds: QualityThresholds | None = None,
        next_step: str | None = None,
        catch: Mapping[str, str] | None = None,
        compensate: Handler | None = None,
    ) -> WorkflowStep:
        """A step that runs another workflow, inside the same run or as a run of its own.

        The output is that of the last step of the workflow. Its steps see only its params and their own outputs.

        Args:
            name: Name of the step.
            workflow: The workflow to run.
            params: Params of the workflow: a mapping, or a function of the context, sync or async, that returns one.
                They are stored when the workflow begins. None passes the params of the workflow around it.
            queue: Queue in which the workflow is executed as a run of its own, by any working runner that knows it. The
                run around it may be parked meanwhile. None executes it inside the same run.
            on_error: What the run does after the last failed attempt.
            retry: Policy for further attempts, which continue at the step that failed.
            timeout: Limit for each attempt, in seconds or as a `timedelta`; None means no limit.
            checkpoint: True or False overrides `checkpoint_every_step` for this step.
            output_model: Pydantic model that validates the output; later steps read the output as this model.
            quality_thresholds: Refused; set them on a step of that workflow.
            next_step: Step to continue with instead of the next in the list, or `END`.
            catch: Steps to continue with after the last failed attempt, by error category; `"*"` stands for every other
                category. It takes precedence over `on_error`.
            compensate: Handler that undoes what the step did, if the run fails, or is stopped with `compensate=True`.
                It is called with the context, in which it reads the output of the step, and the config of the step.
        """
        from spine_async._model.workflow_step import WorkflowStep  # noqa: PLC0415 - WorkflowStep derives from Step

        return WorkflowStep(
            name=name,
            child=workflow,
            params=params,
            queue=queue,
            on_error=on_error,  # type: ignore[arg-type]
            retry=retry,
            timeout=timeout,  # type: ignore[arg-type]
            checkpoint=checkpoint,
            output_model=output_model,
            quality_thresholds=quality_thresholds,
            next_step=next_step,
            catch=catch,
            compensate=compensate,
        )

    @staticmethod
    def wait(
        name: str,
        seconds: float | timedelta | None = None,
        *,
        until: Moment | None = None,
        next_step: str | None = None,
        catch: Mapping[str, str] | None = None,
    ) -> WaitStep:
        """A step that waits.

        The end of the wait is stored when the wait begins, so a resumed run waits only for the remaining time.

        Args:
            name: Name of the step.
            seconds: Duration of the wait, in seconds or as a `timedelta`.
            until: End of the wait instead of `seconds`: an aware datetime, ISO 8601 text with a time zone, or a
                function of the context that returns one of these.
            next_step: Step to continue with instead of the next in the list, or `END`.
            catch: Steps to continue with if the function given as `until` fails, by error category; `"*"` stands for
                every other category.
        """
        from spine_async._model.wait_step import WaitStep  # noqa: PLC0415 - WaitStep derives from Step

        return WaitStep(name=name, seconds=seconds, until=until, next_step=next_step, catch=catch)

    @staticmethod
    def wait_for_signal(
        name: str,
        *,
        signal: str | None = None,
        model: type[BaseModel] | None = None,
        timeout: float | timedelta | None = None,
        on_timeout: Literal["fail", "continue"] | str = "fail",  # noqa: PYI051 - the literals document the keywords
        on_error: Literal["stop", "continue"] | ErrorPolicy = ErrorPolicy.STOP,
        checkpoint: bool | None = None,
        next_step: str | None = None,
        catch: Mapping[str, str] | None = None,
    ) -> SignalStep:
        """A step that waits for a signal, which anybody sends with `runner.signal`.

        Each visit takes the oldest signal of its name, also one that was sent before the step began. The output is
        `{"value": …, "received_at": ISO 8601 text, "timed_out": False}`.

        Args:
            name: Name of the step.
            signal: Name of the signal; None means the name of the step.
            model: Pydantic model that validates the value; later steps read the value as this model.
            timeout: Limit for the wait, in seconds or as a `timedelta`; None means no limit. The deadline is stored
                when the wait begins, so a resumed run waits only for the remaining time.
            on_timeout: What happens if no signal comes in time. `fail`: the step fails with category TIMEOUT.
                `continue`: the output is `{"value": None, "received_at": None, "timed_out": True}`. The name of a step:
                the output is the same, and the run continues with that step. `END` ends the scope.
            on_error: What the run does if the step fails.
            checkpoint: True or False overrides `checkpoint_every_step` for this step.
            next_step: Step to continue with instead of the next in the list, or `END`.
            catch: Steps to continue with after the last failed attempt, by error category; `"*"` stands for every other
                category. It takes precedence over `on_error`.
        """
        from spine_async._model.signal_step import SignalStep  # noqa: PLC0415 - SignalStep derives from Step

        return SignalStep(
            name=name,
            signal=name if signal is None else signal,
            model=model,
            timeout=timeout,  # type: ignore[arg-type]
            on_timeout=on_timeout,
            on_error=on_error,  # type: ignore[arg-type]
            checkpoint=checkpoint,
            next_step=next_step,
            catch=catch,
        )

    @staticmethod
    def transaction(
        name: str,
        handler: TransactionHandler,
        config: Mapping[str, object] | None = None,
        *,
        on_error: OnError = ErrorPolicy.STOP,
        retry: RetryPolicy | None = None,
        timeout: float | timedelta | None = None,
        output_model: type[BaseModel] | None = None,
        quality_thresholds: QualityThresholds | None = None,
        next_step: str | None = None,
        catch: Mapping[str, str] | None = None,
        compensate: Handler | None = None,
    ) -> TransactionStep:
        """A step that writes to the database of the store, in the transaction that also commits the end of the step.

        So what the handler writes happens exactly once. It needs a store in SQLite or PostgreSQL.

        Args:
            name: Name of the step.
            handler: A `def` that is called as `handler(context, config, connection)`. `connection` is a synchronous
                SQLAlchemy `Connection` in a transaction, which the handler neither commits nor rolls back. If it
                raises, or returns a failure, everything that it wrote is rolled back. The transaction may take a third
                of `lease_ttl`. On PostgreSQL the handler is executed in the event loop, which continues during each
                statement; on SQLite in the thread that writes, so that no other run commits meanwhile.
            config: Second argument of the handler.
            on_error: What the run does after the last failed attempt.
            retry: Policy for further attempts; None means one attempt (or the default of the runner with
                `on_error="retry"`).
            timeout: Limit for each attempt, in seconds or as a `timedelta`; None means the default of the runner.
            output_model: Pydantic model that validates the output; later steps read the output as this model.
            quality_thresholds: Limits on the quality metrics of the step.
            next_step: Step to continue with instead of the next in the list.
            catch: Steps to continue with after the last failed attempt, by error category; `"*"` stands for every other
                category. It takes precedence over `on_error`.
            compensate: Handler that undoes what the step did, if the run fails, or is stopped with `compensate=True`.
                It is called with the context, in which it reads the output of the step, and the config of the step.
        """
        from spine_async._model.transaction_step import TransactionStep  # noqa: PLC0415 - it derives from Step

        return TransactionStep(
            name=name,
            handler=handler,
            config={} if config is None else config,
            on_error=on_error,  # type: ignore[arg-type]
            retry=retry,
            timeout=timeout,  # type: ignore[arg-type]
            output_model=output_model,
            quality_thresholds=quality_thresholds,
            next_step=next_step,
            catch=catch,
            compensate=compensate,
        )

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the steps that this step can jump to, by its options; also `END`."""
        following = (self.next_step,) if self.next_step is not None else ()
        return following if self.catch is None else (*following, *self.catch.values())

    def continues_after(self, category: str | None) -> bool:
        """Whether the scope continues after a failure of this category when the attempts are used up."""
        return self.on_error is ErrorPolicy.CONTINUE or caught_by(self.catch, category) is not None

    @property
    def isolates_params(self) -> bool:
        """Whether the steps inside of it do not see the params of the workflow around it."""
        return False

    @property
    def inner(self) -> Mapping[str, Definition]:
        """The workflows that are executed inside the step: by the name of the branch, or a single one under ""."""
        return _NONE_INSIDE

    @property
    def revived_as(self) -> OutputModel | None:
        """The model that later steps read the output as, or None."""
        return self.output_model

    def _set(self, option: str, value: object) -> None:
        object.__setattr__(self, option, value)

    def _error(self, problem: str) -> DefinitionError:
        return DefinitionError(problem, step=self.name)

    def _checked(self, build: Callable[[], object]) -> object:
        try:
            return build()
        except ValueError as exc:
            raise self._error(str(exc)) from None


_NONE_INSIDE: Mapping[str, Definition] = MappingProxyType({})
