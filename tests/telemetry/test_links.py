"""Links: from an execution to the one that it continues, and from the first one to the call that enqueued the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, get_current_span

from spine_async import Enqueued, RunStatus, Step, StepResult, Workflow, WorkflowContext, WorkflowRunner
from tests.service.places import Place
from tests.service.services import until
from tests.telemetry.conftest import Telemetry, ids_in, ids_of, linked

pytestmark = pytest.mark.anyio


class Steps:
    """Steps that fail or wait as long as they are told to, and that look at what is stored of their run."""

    def __init__(self) -> None:
        self.fails = True
        self.gate = anyio.Event()
        self.reached = anyio.Event()
        self.runner: WorkflowRunner | None = None
        self.stored: list[tuple[tuple[int, int] | None, tuple[int, int]]] = []

    async def look(self, context: WorkflowContext, config: Mapping[str, Any]) -> None:
        """Note the stored trace context and the trace of this step."""
        assert self.runner is not None
        stored = await self.runner._runtime.store.load(context.run_id)
        assert stored is not None
        current = get_current_span().get_span_context()
        parent = ids_in(stored.traceparent) if stored.traceparent is not None else None
        self.stored.append((parent, (current.trace_id, current.span_id)))

    async def fail(self, context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
        return StepResult.fail("not yet") if self.fails else StepResult.ok()

    async def wait(self, context: WorkflowContext, config: Mapping[str, Any]) -> None:
        self.reached.set()
        await self.gate.wait()


@pytest.fixture
def steps() -> Steps:
    return Steps()


async def test_an_enqueued_run_links_to_its_enqueuer(place: Place, telemetry: Telemetry, steps: Steps) -> None:
    flow = Workflow("orders", [Step.lambda_("first", steps.look), Step.lambda_("second", steps.look)])
    with telemetry.tracer.start_as_current_span("startup"):
        runner = telemetry.runner(place, workflows=[flow])
        steps.runner = runner
        async with runner:
            with telemetry.tracer.start_as_current_span("request") as request:
                handle = await runner.enqueue(flow, params={"n": 1})
            assert (await handle.result(10)).status == RunStatus.COMPLETED
    (enqueue,), (run,) = telemetry.named("enqueue orders"), telemetry.named("workflow orders")
    assert enqueue.kind is SpanKind.PRODUCER
    assert enqueue.parent is not None
    assert enqueue.parent.span_id == request.get_span_context().span_id
    assert run.kind is SpanKind.CONSUMER
    assert run.parent is None, "neither the trace of the request nor the one in which the runner was entered"
    assert linked(run) == [ids_of(enqueue)]
    # The first step sees the context of the enqueuer; the commit of the first step stores that of the run.
    (before, first), (after, second) = steps.stored
    assert (before, after) == (ids_of(enqueue), ids_of(run))
    assert first[0] == second[0] == ids_of(run)[0]


async def test_runs_that_are_enqueued_together_link_to_one_span(memory: Place, telemetry: Telemetry) -> None:
    flow = Workflow("orders", [Step.lambda_("only", lambda context, config: None)])
    async with telemetry.runner(memory, workflows=[flow]) as runner:
        for handle in await runner.enqueue_many(flow, [Enqueued(), Enqueued()]):
            await handle.result(10)
    (enqueue,), runs = telemetry.named("enqueue orders"), telemetry.named("workflow orders")
    assert [linked(run) for run in runs] == [[ids_of(enqueue)]] * 2
    assert len({ids_of(run)[0] for run in runs}) == 2
    assert dict(enqueue.attributes or {}) == {"spine.workflow": "orders", "spine.queue": "default", "spine.count": 2}


async def test_a_resumed_run_links_to_the_execution_that_it_continues(
    place: Place, telemetry: Telemetry, steps: Steps
) -> None:
    flow = Workflow("orders", [Step.lambda_("load", lambda context, config: None), Step.lambda_("fail", steps.fail)])
    failed = await telemetry.runner(place).execute(flow)
    assert failed.status == RunStatus.FAILED
    again = await telemetry.runner(place, workflows=[flow]).resume(failed.run_id)
    assert again.status == RunStatus.FAILED
    steps.fails = False
    with telemetry.tracer.start_as_current_span("request") as request:
        await telemetry.runner(place, workflows=[flow]).resume(failed.run_id)
    first, second, third = telemetry.named("workflow orders")
    assert [linked(each) for each in (first, second, third)] == [[], [ids_of(first)], [ids_of(second)]]
    assert third.parent is not None
    assert third.parent.span_id == request.get_span_context().span_id
    assert [dict(each.attributes or {})["spine.resumed"] for each in (first, second, third)] == [False, True, True]


async def test_a_run_of_execute_stores_its_trace_before_its_first_step(
    place: Place, telemetry: Telemetry, steps: Steps
) -> None:
    steps.runner = telemetry.runner(place)
    flow = Workflow("orders", [Step.lambda_("first", steps.look), Step.lambda_("second", steps.look)])
    await steps.runner.execute(flow)
    (run,) = telemetry.named("workflow orders")
    assert [stored for stored, _ in steps.stored] == [ids_of(run)] * 2


async def test_a_released_run_continues_with_a_link(place: Place, telemetry: Telemetry, steps: Steps) -> None:
    flow = Workflow("orders", [Step.lambda_("load", lambda context, config: None), Step.lambda_("wait", steps.wait)])
    async with telemetry.runner(place, workflows=[flow], config={"drain_timeout": 0}) as runner:
        handle = await runner.start(flow)
        await steps.reached.wait()
    (first,) = telemetry.named("workflow orders")
    assert dict(first.attributes or {})["spine.status"] == "released"
    steps.gate.set()
    async with telemetry.runner(place, workflows=[flow]) as runner:
        assert (await runner.handle(handle.run_id).result(10)).status == RunStatus.COMPLETED
    _, second = telemetry.named("workflow orders")
    assert linked(second) == [ids_of(first)]
    assert second.parent is None
    assert ids_of(second)[0] != ids_of(first)[0]


async def test_a_woken_run_links_to_the_parked_one(place: Place, telemetry: Telemetry) -> None:
    flow = Workflow("orders", [Step.wait_for_signal("approval")])
    async with telemetry.runner(place, workflows=[flow], config={"park_after": 0}) as runner:
        handle = await runner.enqueue(flow)
        await until(lambda: bool(telemetry.named("workflow orders")))
        await handle.signal("approval", True)
        await handle.result(10)
    (enqueue,), (parked, woken) = telemetry.named("enqueue orders"), telemetry.named("workflow orders")
    assert [dict(each.attributes or {})["spine.status"] for each in (parked, woken)] == ["parked", "completed"]
    assert (linked(parked), linked(woken)) == ([ids_of(enqueue)], [ids_of(parked)])


async def test_a_damaged_trace_context_makes_no_link(memory: Place, telemetry: Telemetry, steps: Steps) -> None:
    flow = Workflow("orders", [Step.lambda_("fail", steps.fail)])
    runner = telemetry.runner(memory, workflows=[flow])
    failed = await runner.execute(flow)
    store: Any = memory._memory
    found = store._runs[failed.run_id]
    found.stored.traceparent = "00-nonsense"
    steps.fails = False
    assert (await runner.resume(failed.run_id)).status == RunStatus.COMPLETED
    assert linked(telemetry.named("workflow orders")[-1]) == []


@pytest.mark.parametrize("traced", [True, False])
async def test_no_trace_context_is_stored_if_nobody_records_the_trace(
    memory: Place, steps: Steps, telemetry: Telemetry, *, traced: bool
) -> None:
    if traced:
        telemetry.tracers = TracerProvider(sampler=ALWAYS_OFF)
    flow = Workflow("orders", [Step.lambda_("first", steps.look), Step.lambda_("second", steps.look)])
    steps.runner = telemetry.runner(memory, workflows=[flow], config={"trace_enabled": traced})
    async with steps.runner as runner:
        await (await runner.enqueue(flow)).result(10)
    await steps.runner.execute(flow)
    assert [stored for stored, _ in steps.stored] == [None] * 4


async def test_a_failing_enqueue_reports_the_type_of_its_error(memory: Place, telemetry: Telemetry) -> None:
    flow = Workflow("orders", [Step.lambda_("only", lambda context, config: None)])
    runner = telemetry.runner(memory, workflows=[flow], work=False)
    await runner.enqueue(flow, run_id="r")
    with pytest.raises(Exception, match="other params"):
        await runner.enqueue(flow, run_id="r", params={"secret": "swordfish"})
    _, failed = telemetry.named("enqueue orders")
    assert dict(failed.attributes or {})["error.type"] == "RunConflictError"
    assert "swordfish" not in failed.to_json()
