"""OpenTelemetry spans: one for the run, one per step below it, and no values in them."""

from collections.abc import Mapping
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from spine_async import ErrorPolicy, RetryPolicy, Step, StepResult, Workflow, WorkflowContext, WorkflowRunnerConfig

pytestmark = pytest.mark.anyio


class Traced:
    """A tracer provider and the spans it has seen."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    @property
    def root(self) -> ReadableSpan:
        (root,) = [span for span in self.spans if span.parent is None]
        return root

    def below(self, parent: ReadableSpan) -> list[ReadableSpan]:
        spans = [span for span in self.spans if span.parent and span.parent.span_id == parent.context.span_id]
        return sorted(spans, key=lambda span: span.start_time or 0)


@pytest.fixture
def traced() -> Traced:
    return Traced()


async def work(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"token": "swordfish"}


async def breaks(context: WorkflowContext, config: Mapping[str, Any]) -> None:
    raise ConnectionError("gone")


def mentions(span: ReadableSpan, value: object) -> bool:
    return value in list((span.attributes or {}).values()) or str(value) in span.name


async def test_one_span_for_the_run_and_one_per_step(make_runner: Any, traced: Traced) -> None:
    runner = make_runner(tracer_provider=traced.provider)
    steps = [Step.lambda_("fetch", work), Step.choice("pick", lambda context: True, "pause"), Step.wait("pause", 0)]
    await runner.execute(Workflow("orders", steps), run_id="r1")
    assert len(traced.spans) == 4
    assert mentions(traced.root, "orders")
    assert mentions(traced.root, "r1")
    below = traced.below(traced.root)
    assert len(below) == 3
    for span, name in zip(below, ("fetch", "pick", "pause"), strict=True):
        assert mentions(span, name)
    assert len({span.context.trace_id for span in traced.spans}) == 1


async def test_attempts_status_and_category(make_runner: Any, traced: Traced) -> None:
    runner = make_runner(tracer_provider=traced.provider)
    retry = RetryPolicy(max_attempts=7, initial_delay=0, jitter=False)
    await runner.execute(Workflow("orders", [Step.lambda_("fetch", breaks, retry=retry)]))
    (span,) = traced.below(traced.root)
    assert mentions(span, 7)
    assert mentions(span, "failed")
    assert mentions(span, "TRANSIENT")
    assert span.status.status_code is StatusCode.ERROR
    assert traced.root.status.status_code is StatusCode.ERROR
    assert mentions(traced.root, "failed")


async def test_a_completed_step(make_runner: Any, traced: Traced) -> None:
    await make_runner(tracer_provider=traced.provider).execute(Workflow("orders", [Step.lambda_("fetch", work)]))
    (span,) = traced.below(traced.root)
    assert mentions(span, "completed")
    assert mentions(span, 1)
    assert span.status.status_code is not StatusCode.ERROR
    assert traced.root.status.status_code is not StatusCode.ERROR
    assert mentions(traced.root, "completed")


async def test_a_failure_passed_over_marks_only_its_step(make_runner: Any, traced: Traced) -> None:
    steps = [Step.lambda_("fetch", breaks, on_error=ErrorPolicy.CONTINUE), Step.lambda_("after", work)]
    await make_runner(tracer_provider=traced.provider).execute(Workflow("orders", steps))
    first, second = traced.below(traced.root)
    assert first.status.status_code is StatusCode.ERROR
    assert second.status.status_code is not StatusCode.ERROR
    assert traced.root.status.status_code is not StatusCode.ERROR


async def test_the_steps_of_a_map_lie_below_it(make_runner: Any, traced: Traced) -> None:
    step = Step.map("each", items=[1, 2], iterator=Workflow(steps=[Step.lambda_("inner", work)]))
    await make_runner(tracer_provider=traced.provider).execute(Workflow("orders", [step]))
    (each,) = traced.below(traced.root)
    assert mentions(each, "each")
    inner = [span for span in traced.spans if mentions(span, "inner")]
    assert len(inner) == 2
    parents = {span.context.span_id: span.parent.span_id for span in traced.spans if span.parent}
    for span in inner:
        above = span.context.span_id
        while above in parents and above != each.context.span_id:
            above = parents[above]
        assert above == each.context.span_id


async def test_no_values_in_spans(make_runner: Any, traced: Traced) -> None:
    async def secret(context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
        return StepResult.ok({"token": "swordfish"}, context_updates={"more": "swordfish"})

    async def wrong(context: WorkflowContext, config: Mapping[str, Any]) -> Any:
        return "swordfish"

    steps = [
        Step.lambda_("fetch", secret),
        Step.map("each", items=["swordfish"], iterator=secret),
        Step.lambda_("wrong", wrong),
    ]
    runner = make_runner(tracer_provider=traced.provider)
    result = await runner.execute(Workflow("orders", steps), params={"token": "swordfish"})
    assert result.error_step == "wrong"
    assert len(traced.spans) >= 4
    for span in traced.spans:
        assert "swordfish" not in span.to_json()


async def test_a_run_is_part_of_its_callers_trace(make_runner: Any, traced: Traced) -> None:
    with traced.provider.get_tracer("app").start_as_current_span("request") as request:
        await make_runner(tracer_provider=traced.provider).execute(Workflow("orders", [Step.lambda_("fetch", work)]))
    assert traced.root.name == "request"
    (run,) = [s for s in traced.spans if s.parent and s.parent.span_id == request.get_span_context().span_id]
    assert mentions(run, "orders")


async def test_a_handlers_own_spans_lie_below_its_step(make_runner: Any, traced: Traced) -> None:
    tracer = traced.provider.get_tracer("app")

    def plain(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        with tracer.start_as_current_span("query"):
            pass

    await make_runner(tracer_provider=traced.provider).execute(Workflow("orders", [Step.lambda_("fetch", plain)]))
    (step,) = traced.below(traced.root)
    assert [span.name for span in traced.below(step)] == ["query"]


async def test_tracing_may_be_turned_off(make_runner: Any, traced: Traced) -> None:
    runner = make_runner(tracer_provider=traced.provider, config=WorkflowRunnerConfig(trace_enabled=False))
    result = await runner.execute(Workflow("orders", [Step.lambda_("fetch", work)]))
    assert result.status == "completed"
    assert traced.spans == []
