"""The context of a step reaches handlers, threads, pipelines, map items and tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
import pytest
from opentelemetry.trace import get_current_span

from spine_async import LocalDispatcher, Step, StepResult, Workflow, WorkflowContext
from tests.service.places import Place
from tests.telemetry.conftest import Telemetry, ids_of

pytestmark = pytest.mark.anyio


class Seen:
    """The spans that were current in user code."""

    def __init__(self) -> None:
        self.by_place: dict[str, tuple[int, int]] = {}

    def here(self, place: str) -> None:
        context = get_current_span().get_span_context()
        self.by_place[place] = (context.trace_id, context.span_id)


@pytest.fixture
def seen() -> Seen:
    return Seen()


async def test_user_code_sees_the_span_of_its_step(memory: Place, telemetry: Telemetry, seen: Seen) -> None:
    dispatcher = LocalDispatcher()

    async def handler(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        async def child() -> None:
            seen.here("task")

        seen.here("async")
        async with anyio.create_task_group() as group:
            group.start_soon(child)

    def thread(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        seen.here("thread")

    @dispatcher.pipeline("async")
    async def pipeline(params: Mapping[str, Any]) -> dict[str, Any]:
        seen.here("pipeline")
        return {}

    @dispatcher.pipeline("thread")
    def threaded(params: Mapping[str, Any]) -> dict[str, Any]:
        seen.here("threaded_pipeline")
        return {}

    async def item(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        seen.here(f"item_{context.params['item']}")

    flow = Workflow(
        "orders",
        [
            Step.lambda_("handler", handler),
            Step.lambda_("thread", thread),
            Step.pipeline("pipeline", "async"),
            Step.pipeline("threaded_pipeline", "thread"),
            Step.map("each", items=[1, 2], iterator=Workflow(steps=[Step.lambda_("inner", item)])),
        ],
    )
    result = await telemetry.runner(memory, dispatcher=dispatcher).execute(flow)
    assert result.status == "completed"
    steps = {str((each.attributes or {}).get("spine.path")): ids_of(each) for each in telemetry.spans}
    expected = {
        "async": "handler",
        "task": "handler",
        "thread": "thread",
        "pipeline": "pipeline",
        "threaded_pipeline": "threaded_pipeline",
        "item_1": "each[0]/inner",
        "item_2": "each[1]/inner",
    }
    assert seen.by_place == {place: steps[path] for place, path in expected.items()}


async def test_middleware_sees_the_span_of_its_step(memory: Place, telemetry: Telemetry, seen: Seen) -> None:
    runner = telemetry.runner(memory)

    @runner.middleware
    async def look(step: Step, context: WorkflowContext, next_fn: Any) -> StepResult:
        seen.here(step.name)
        result: StepResult = await next_fn(step, context)
        return result

    await runner.execute(Workflow("orders", [Step.lambda_("fetch", lambda context, config: None)]))
    (step,) = telemetry.named("step fetch")
    assert seen.by_place == {"fetch": ids_of(step)}


async def test_a_run_that_a_step_enqueues_belongs_to_the_trace_of_the_step(memory: Place, telemetry: Telemetry) -> None:
    runner = telemetry.runner(memory, work=False)

    async def enqueue(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        await runner.enqueue("other")

    await runner.execute(Workflow("orders", [Step.lambda_("fetch", enqueue)]))
    (step,), (sent,) = telemetry.named("step fetch"), telemetry.named("enqueue other")
    assert sent.parent is not None
    assert sent.parent.span_id == ids_of(step)[1]
