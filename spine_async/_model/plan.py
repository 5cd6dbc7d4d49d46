"""The plan of a workflow: its steps with their kinds, options and targets, as plain values and as text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field

from spine_async._model.choice_step import ChoiceStep
from spine_async._model.item_source import ItemCall, ItemPath, ItemSource
from spine_async._model.lambda_step import LambdaStep
from spine_async._model.map_step import MapStep
from spine_async._model.parallel_step import ParallelStep
from spine_async._model.pipeline_step import PipelineStep
from spine_async._model.policy import RetryPolicy
from spine_async._model.signal_step import SignalStep
from spine_async._model.signature import function_name
from spine_async._model.status import ErrorPolicy
from spine_async._model.step import Definition, Step
from spine_async._model.step_options import Concurrency
from spine_async._model.target import ANY_CATEGORY, END
from spine_async._model.transaction_step import TransactionStep
from spine_async._model.wait_step import WaitStep
from spine_async._model.workflow_step import WorkflowStep


@dataclass(frozen=True, slots=True)
class PlannedTarget:
    """A step that may follow.

    Attributes:
        step: Name of the step, or `END` for the end of the list of steps.
        when: `next`; of a choice `then` or `else`; of a wait for a signal `timeout`; of `catch` the error category, or
            `*` for every other one.
        is_failure: Whether it follows a failure.
    """

    step: str
    when: str
    is_failure: bool = False


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step of a plan.

    Attributes:
        kind: Kind of the step, such as `lambda` or `map`.
        options: The options that are set, as text by name. Values of `config` and of params are not among them.
        targets: The steps that may follow.
        inner: The plans of the workflows that are executed inside the step: by the name of the branch; under the name
            "" that of the items of a map, or of a child workflow.
    """

    name: str
    kind: str
    options: Mapping[str, str]
    targets: tuple[PlannedTarget, ...]
    inner: Mapping[str, Plan] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of a workflow in order. `str(plan)` is a text for people, `to_dict()` is for programs.

    Attributes:
        workflow: Name of the workflow; "" for the steps of a map without a name.
        cleanup: The steps that are executed when the others have ended, in order.
    """

    workflow: str
    version: int
    steps: tuple[PlannedStep, ...]
    cleanup: tuple[PlannedStep, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """The plan as values that have a JSON form."""
        return {
            "workflow": self.workflow,
            "version": self.version,
            "steps": [_step_dict(each) for each in self.steps],
            "cleanup": [_step_dict(each) for each in self.cleanup],
        }

    def __str__(self) -> str:
        head = f"{self.workflow or 'steps'} (version {self.version})"
        cleanup = ["  cleanup:", *_lines(self.cleanup, "    ")] if self.cleanup else ()
        return "\n".join([head, *_lines(self.steps, "  "), *cleanup])


def plan_of(workflow: Definition) -> Plan:
    """The plan of a workflow."""
    return Plan(workflow.name, workflow.version, _planned(workflow.steps), _planned(workflow.cleanup))


def _planned(steps: Sequence[Step]) -> tuple[PlannedStep, ...]:
    """The steps of a list."""
    following = [*(each.name for each in steps[1:]), END]
    return tuple(_planned_step(step, name) for step, name in zip(steps, following, strict=False))


def _planned_step(step: Step, following: str) -> PlannedStep:
    inner = {name: plan_of(each) for name, each in step.inner.items()}
    options = {name: text for name, text in _options(step) if text}
    return PlannedStep(step.name, step.step_type.value, options, tuple(_targets(step, following)), inner)


def _targets(step: Step, following: str) -> Iterator[PlannedTarget]:
    """The targets of a step; `following` is the next one in the list."""
    following = step.next_step or following
    if isinstance(step, ChoiceStep):
        yield PlannedTarget(step.then_step, "then")
        yield PlannedTarget(step.else_step or following, "else")
    else:
        yield PlannedTarget(following, "next")
    if isinstance(step, SignalStep) and step.timeout_target is not None:
        yield PlannedTarget(step.timeout_target, "timeout")
    for category, target in (step.catch or {}).items():
        yield PlannedTarget(target, category, is_failure=True)


def _options(step: Step) -> Iterator[tuple[str, str | None]]:
    """The options of a step as text; None and "" for those that are not set."""
    yield from _OWN_OPTIONS.get(type(step), _no_options)(step)
    yield "config", ", ".join(step.config)
    yield "on_error", step.on_error.value if step.on_error is not ErrorPolicy.STOP else None
    yield "retry", _retry(step.retry) if step.retry is not None else None
    yield "timeout", _seconds(step.timeout)
    yield "idle_timeout", _seconds(step.idle_timeout)
    yield "checkpoint", None if step.checkpoint is None else str(step.checkpoint)
    yield "output_model", _name(step.output_model)
    yield "compensate", None if step.compensate is None else function_name(step.compensate)
    yield "quality_thresholds", "set" if step.quality_thresholds is not None else None


def _no_options(step: Step) -> Iterator[tuple[str, str | None]]:
    return iter(())


def _lambda_options(step: LambdaStep) -> Iterator[tuple[str, str | None]]:
    yield "handler", function_name(step.handler)


def _transaction_options(step: TransactionStep) -> Iterator[tuple[str, str | None]]:
    yield "handler", function_name(step.handler)


def _pipeline_options(step: PipelineStep) -> Iterator[tuple[str, str | None]]:
    yield "pipeline", step.pipeline_name


def _choice_options(step: ChoiceStep) -> Iterator[tuple[str, str | None]]:
    yield "condition", function_name(step.condition)


def _wait_options(step: WaitStep) -> Iterator[tuple[str, str | None]]:
    yield "seconds", None if step.seconds is None else f"{step.seconds:g}"
    until = step.until
    yield "until", function_name(until) if callable(until) else None if until is None else str(until)


def _signal_options(step: SignalStep) -> Iterator[tuple[str, str | None]]:
    yield "signal", step.signal
    yield "model", _name(step.model)
    yield "on_timeout", step.on_timeout if step.timeout is not None else None


def _map_options(step: MapStep) -> Iterator[tuple[str, str | None]]:
    yield "items", _items(step.source)
    yield "item_param", step.item_param
    yield "max_concurrency", _limit(step.max_concurrency)
    yield "tolerated_failures", str(step.tolerated_failures) if step.tolerated_failures else None
    yield "collect", None if step.collect else "False"


def _parallel_options(step: ParallelStep) -> Iterator[tuple[str, str | None]]:
    yield "need", str(step.need)
    yield "max_concurrency", _limit(step.max_concurrency)


def _workflow_options(step: WorkflowStep) -> Iterator[tuple[str, str | None]]:
    yield "workflow", step.child.name
    params = step.params
    yield "params", ", ".join(params) if isinstance(params, Mapping) else function_name(params) if params else None


_OWN_OPTIONS: Mapping[type[Step], Callable[..., Iterator[tuple[str, str | None]]]] = {
    LambdaStep: _lambda_options,
    TransactionStep: _transaction_options,
    PipelineStep: _pipeline_options,
    ChoiceStep: _choice_options,
    WaitStep: _wait_options,
    SignalStep: _signal_options,
    MapStep: _map_options,
    ParallelStep: _parallel_options,
    WorkflowStep: _workflow_options,
}


def _limit(limit: Concurrency | None) -> str | None:
    if limit is None:
        return None
    return function_name(limit) if callable(limit) else str(limit)


def _items(source: ItemSource) -> str:
    if isinstance(source, ItemPath):
        return source.path
    if isinstance(source, ItemCall):
        return function_name(source.function)
    return f"{len(source.values)} given" if isinstance(source.values, Sized) else "given"


def _retry(policy: RetryPolicy) -> str:
    how = "given delays" if policy.delays is not None else policy.backoff
    return f"{policy.max_attempts} attempts, {how}"


def _seconds(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds:g} s"


def _name(model: type[object] | None) -> str | None:
    return None if model is None else model.__name__


def _step_dict(step: PlannedStep) -> dict[str, object]:
    return {
        "name": step.name,
        "kind": step.kind,
        "options": dict(step.options),
        "targets": [{"step": each.step, "when": each.when, "is_failure": each.is_failure} for each in step.targets],
        "inner": {name: plan.to_dict() for name, plan in step.inner.items()},
    }


def _lines(steps: Sequence[PlannedStep], indent: str) -> Iterator[str]:
    width = len(str(len(steps)))
    for number, step in enumerate(steps, 1):
        following = steps[number].name if number < len(steps) else END
        options = "".join(f", {name}={text}" for name, text in step.options.items())
        yield f"{indent}{number:>{width}}. {step.name} ({step.kind}{options}){_jumps(step, following)}"
        for name, inner in step.inner.items():
            deeper = f"{indent}{' ' * (width + 2)}"
            if name:
                yield f"{deeper}[{name}]"
            yield from _lines(inner.steps, f"{deeper}  " if name else deeper)


def _jumps(step: PlannedStep, following: str) -> str:
    """The targets of a step other than the next one in the list."""
    shown = [
        f"{_when(each)} → {'end' if each.step == END else each.step}"
        for each in step.targets
        if each.when != "next" or each.step != following
    ]
    return f": {', '.join(shown)}" if shown else ""


def _when(target: PlannedTarget) -> str:
    if not target.is_failure:
        return target.when
    return "any other failure" if target.when == ANY_CATEGORY else f"failure {target.when}"
