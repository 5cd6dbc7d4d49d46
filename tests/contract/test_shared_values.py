"""No step can change what another step, attempt, item or run sees; an interrupted run sees the same as any other."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel, field_validator

from spine_async import (
    LocalDispatcher,
    QualityMetrics,
    RetryPolicy,
    Step,
    StepResult,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
)

VARIABLE: ContextVar[str] = ContextVar("VARIABLE", default="unset")


def _values(context: WorkflowContext, config: dict[str, Any]) -> list[Any]:
    """Each mutable value that a step can reach."""
    quality = context.get_quality("first")
    custom: Any = quality.custom_metrics if quality is not None else {"list": []}
    other: Any = context.quality["first"].custom_metrics if quality is not None else {"list": []}
    partition: Any = context.partition
    metadata: Any = context.metadata
    output: Any = context.get_output("first") or {"list": []}
    params: Any = context.params
    return [each["list"] for each in (partition, metadata, custom, other, config, output, params)]


async def _spoil(context: WorkflowContext, config: dict[str, Any]) -> StepResult:
    for each in _values(context, config):
        each.append("spoilt")
    VARIABLE.set("spoilt")
    await asyncio.sleep(0)
    VARIABLE.set("spoilt again")
    return StepResult.ok({"list": []}, quality=QualityMetrics(custom_metrics={"list": []}))


async def _check(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
    assert _values(context, config) == [[]] * 7
    assert VARIABLE.get() == "unset"
    return {"is_clean": True}


def _first() -> StepResult:
    return StepResult.ok({"list": []}, quality=QualityMetrics(custom_metrics={"list": []}))


CONFIG: dict[str, Any] = {"list": []}


def _start() -> dict[str, Any]:
    context = WorkflowContext(metadata={"list": []}, partition={"list": []}, params={"list": []})
    return {"context": context}


@pytest.mark.parametrize("spoils_in_middleware", [False, True])
async def test_changes_of_a_step_are_not_seen_by_later_steps(
    runner: WorkflowRunner, spoils_in_middleware: bool
) -> None:
    if spoils_in_middleware:

        @runner.middleware
        async def middleware(step: Step, context: WorkflowContext, next_fn: Any) -> StepResult:
            result: StepResult = await next_fn(step, context)
            if step.name == "spoil":
                VARIABLE.set("spoilt")
                for each in _values(context, {"list": []}):
                    each.append("spoilt")
            return result

    steps = [
        Step.lambda_("first", lambda _c, _d: _first()),
        Step.lambda_("spoil", _spoil, CONFIG),
        Step.lambda_("check", _check, CONFIG),
    ]
    flow = Workflow("w", steps)
    for _ in range(2):
        result = await runner.execute(flow, **_start())
        assert result.status == "completed", result.error
    assert VARIABLE.get() == "unset"
    assert CONFIG == {"list": []}


async def test_changes_of_an_attempt_are_not_seen_by_the_next(runner: WorkflowRunner) -> None:
    async def twice(context: WorkflowContext, config: dict[str, Any]) -> Any:
        await _check(context, config)
        await _spoil(context, config)
        return StepResult.ok() if context.attempt == 2 else StepResult.fail("again", "TRANSIENT")

    steps = [
        Step.lambda_("first", lambda _c, _d: _first()),
        Step.lambda_("twice", twice, CONFIG, retry=RetryPolicy(2, initial_delay=0.0)),
    ]
    result = await runner.execute(Workflow("w", steps), **_start())
    assert result.status == "completed", result.error


async def test_changes_of_an_item_are_not_seen_by_other_items_or_after_the_map(runner: WorkflowRunner) -> None:
    async def each(context: WorkflowContext, config: dict[str, Any]) -> Any:
        await _check(context, {"list": []})
        await _spoil(context, {"list": []})

    steps = [
        Step.lambda_("first", lambda _c, _d: _first()),
        Step.map("items", items=[1, 2, 3], iterator=each, max_concurrency=1),
        Step.lambda_("check", _check, CONFIG),
    ]
    result = await runner.execute(Workflow("w", steps), **_start())
    assert result.status == "completed", result.error


async def test_conditions_item_functions_and_pipelines_leave_no_variables(make_runner: Any) -> None:
    async def is_set(context: WorkflowContext) -> bool:
        VARIABLE.set("spoilt")
        return True

    def items(context: WorkflowContext) -> list[int]:
        VARIABLE.set("spoilt")
        return [1]

    dispatcher = LocalDispatcher()

    @dispatcher.pipeline("p")
    async def pipeline(params: dict[str, Any]) -> None:
        VARIABLE.set("spoilt")
        params["list"].append("spoilt")

    async def check(context: WorkflowContext, config: dict[str, Any]) -> None:
        assert VARIABLE.get() == "unset"

    checks = [Step.lambda_(f"check{number}", check) for number in range(4)]
    steps = [
        Step.choice("go", is_set, "check0"),
        checks[0],
        Step.map("m", items=items, iterator=lambda _c, _d: None),
        checks[1],
        Step.pipeline("p1", "p", CONFIG),
        checks[2],
        Step.pipeline("p2", "p", CONFIG),
        checks[3],
    ]
    result = await make_runner(dispatcher=dispatcher).execute(Workflow("w", steps))
    assert result.status == "completed", result.error
    assert CONFIG == {"list": []}


class Spoiling(BaseModel):
    """A model whose validator sets the variable."""

    n: int

    @field_validator("n")
    @classmethod
    def _set(cls, value: int) -> int:
        VARIABLE.set("spoilt")
        return value


def _spoilt(value: Any) -> Any:
    VARIABLE.set("spoilt")
    return value


def _plain_numbers(context: WorkflowContext) -> Iterator[int]:
    for number in range(3):
        assert VARIABLE.get() == ("unset" if number == 0 else f"number {number - 1}")
        VARIABLE.set(f"number {number}")
        yield number


async def _numbers(context: WorkflowContext) -> AsyncIterator[int]:
    for number in _plain_numbers(context):
        await asyncio.sleep(0)
        yield number


async def _check_variable(context: WorkflowContext, config: dict[str, Any]) -> dict[str, int]:
    assert VARIABLE.get() == "unset"
    return {"n": 1}


async def _fails(context: WorkflowContext, config: dict[str, Any]) -> None:
    raise ValueError


_INSIDE = Workflow("inside", [Step.lambda_("check", _check_variable)])
_VALIDATED = Workflow("inside", [Step.lambda_("check", _check_variable)], params_model=Spoiling)


async def _params(context: WorkflowContext) -> dict[str, int]:
    await asyncio.sleep(0)
    return _spoilt({"n": 1})  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "step",
    [
        Step.lambda_("a", _check_variable, output_model=Spoiling),
        Step.lambda_("a", _fails, retry=RetryPolicy(2, retryable_errors=lambda _: _spoilt(False)), on_error="continue"),
        Step.map("a", items=lambda _: _spoilt([1]), iterator=_INSIDE),
        Step.map("a", items=_plain_numbers, iterator=_INSIDE, max_concurrency=2),
        Step.map("a", items=_numbers, iterator=_INSIDE, max_concurrency=2),
        Step.map("a", items=[1, 2], item_param="n", iterator=_VALIDATED, max_concurrency=1),
        Step.map("a", items=[1], iterator=_INSIDE, max_concurrency=lambda _: _spoilt(1)),
        Step.parallel("a", {"b": _INSIDE}, max_concurrency=lambda _: _spoilt(1)),
        Step.workflow("a", _INSIDE, lambda _: _spoilt({"n": 1})),
        Step.workflow("a", _INSIDE, _params),
        Step.workflow("a", _VALIDATED, {"n": 1}),
    ],
    ids=lambda step: step.step_type,
)
async def test_no_user_code_of_a_step_leaves_a_variable(runner: WorkflowRunner, step: Step) -> None:
    result = await runner.execute(Workflow("w", [step, Step.lambda_("z", _check_variable)]))
    assert result.status == "completed", result.error


async def test_variables_of_the_caller_and_of_middleware_reach_the_step(runner: WorkflowRunner) -> None:
    inner: ContextVar[str] = ContextVar("inner", default="unset")
    seen = []

    @runner.middleware
    async def middleware(step: Step, context: WorkflowContext, next_fn: Any) -> StepResult:
        inner.set("of middleware")
        result: StepResult = await next_fn(step, context)
        return result

    async def read(context: WorkflowContext, config: dict[str, Any]) -> None:
        await asyncio.create_task(asyncio.sleep(0))
        seen.append((VARIABLE.get(), inner.get()))

    token = VARIABLE.set("of the caller")
    await runner.execute(Workflow("w", [Step.lambda_("a", read)]))
    VARIABLE.reset(token)
    assert seen == [("of the caller", "of middleware")]


async def test_spans_of_a_handler_lie_below_the_span_of_its_step(make_runner: Any) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")

    async def handler(context: WorkflowContext, config: dict[str, Any]) -> None:
        leaked = tracer.start_as_current_span("leaked")
        leaked.__enter__()  # never left
        with tracer.start_as_current_span("inner"):
            await asyncio.sleep(0)
        trace.get_current_span().end()

    flow = Workflow("w", [Step.lambda_("a", handler), Step.lambda_("b", handler)])
    await make_runner(tracer_provider=provider).execute(flow)
    spans = {each.context.span_id: each for each in exporter.get_finished_spans() if each.context is not None}
    parents = sorted(
        spans[each.parent.span_id].name for each in spans.values() if each.name == "leaked" and each.parent is not None
    )
    assert len(parents) == 2
    assert all("leaked" not in each for each in parents)
    assert parents[0] != parents[1]


async def test_a_cancelled_or_timed_out_handler_is_cleaned_up_as_before(runner: WorkflowRunner) -> None:
    ended = []

    async def slow(context: WorkflowContext, config: dict[str, Any]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(60))
                await asyncio.sleep(60)
        finally:
            ended.append(VARIABLE.get())

    step = Step.lambda_("a", slow, timeout=0.01)
    result = await runner.execute(Workflow("w", [step]))
    assert (result.error_category, ended) == ("TIMEOUT", ["unset"])


async def test_the_caller_may_change_its_own_values_later(runner: WorkflowRunner) -> None:
    config, partition = {"list": []}, {"list": []}  # type: ignore[var-annotated]
    context = WorkflowContext(metadata={"list": []}, partition=partition, params={"list": []})
    steps = [Step.lambda_("first", lambda _c, _d: _first()), Step.lambda_("check", _check, config)]
    flow = Workflow("w", steps)
    config["list"].append("changed")
    partition["list"].append("changed")
    result = await runner.execute(flow, context=context)
    assert result.status == "completed", result.error
