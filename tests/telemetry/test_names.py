"""What runners report has the names of the registry, and every name of the registry is reported."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import anyio
import pytest
from opentelemetry.sdk.metrics.export import Metric

from spine_async import END, RetryPolicy, Step, StepResult, Workflow, WorkflowContext
from spine_async.telemetry import names
from tests.service.places import Place
from tests.service.services import until
from tests.telemetry.conftest import Telemetry

pytestmark = pytest.mark.anyio


@pytest.fixture
async def reported(memory: Place, telemetry: Telemetry) -> tuple[Telemetry, dict[str, Metric]]:
    """Telemetry of a service in which everything happens that is reported, and its last metrics."""
    begun, leave, gate = threading.Event(), threading.Event(), anyio.Event()

    def blocks(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        begun.set()
        leave.wait(30)

    async def raises(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        raise ConnectionError

    async def waits(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        await gate.wait()

    retry = RetryPolicy(max_attempts=2, initial_delay=0)
    flows = {
        "fails": Workflow("fails", [Step.lambda_("raises", raises, retry=retry)]),
        "caught": Workflow("caught", [Step.lambda_("raises", raises, catch={"*": END})]),
        "blocks": Workflow("blocks", [Step.lambda_("blocks", blocks)]),
        "parked": Workflow("parked", [Step.wait_for_signal("approval")]),
        "waits": Workflow("waits", [Step.lambda_("waits", waits)]),
    }
    runner = telemetry.runner(memory, workflows=flows.values(), config={"park_after": 0, "lease_ttl": 1.5})
    async with runner:
        runner.metrics.record_step("own", StepResult.fail("gone", category="TRANSIENT"))
        await runner.execute(flows["fails"])
        await runner.execute(flows["caught"])
        blocked = await runner.start(flows["blocks"])
        await until(begun.is_set)
        await blocked.stop()
        await runner.enqueue(flows["parked"])
        await runner.enqueue("elsewhere")
        waiting = await runner.enqueue(flows["waits"])
        with pytest.raises(Exception, match="params"):
            await runner.enqueue(flows["fails"], params={1: 2})  # type: ignore[dict-item]
        seen: dict[str, Metric] = {}
        try:
            await until(lambda: _is_complete(telemetry, seen))
        finally:
            gate.set()
            leave.set()
        await waiting.result(10)
    return telemetry, seen


async def _is_complete(telemetry: Telemetry, seen: dict[str, Metric]) -> bool:
    seen.update(await telemetry.metrics())
    return {each.name for each in names.METRICS} == set(seen)


async def test_spans_and_metrics_are_those_of_the_registry(
    reported: tuple[Telemetry, dict[str, Metric]],
) -> None:
    telemetry, metrics = reported
    for entry in names.METRICS:
        metric = metrics[entry.name]
        assert (metric.unit, metric.description) == (entry.unit, entry.meaning)
        used = {key for point in metric.data.data_points for key in point.attributes or {}}
        assert used <= set(entry.attributes), entry.name
        bounds = [getattr(point, "explicit_bounds", ()) for point in metric.data.data_points]
        assert {tuple(each) for each in bounds} == {entry.boundaries}
    for span_entry in names.SPANS:
        found = [each for each in telemetry.spans if each.name.startswith(f"{span_entry.name} ")]
        assert {each.kind.name for each in found} == set(span_entry.kinds)
        used = {key for each in found for key in each.attributes or {}}
        # An exception leaves a span of a run or step only if the run must not continue.
        rare = set() if span_entry is names.ENQUEUE_SPAN else {names.ERROR_TYPE}
        assert used | rare == set(span_entry.attributes) | rare, span_entry.name
        events = {event.name: tuple(event.attributes or {}) for each in found for event in each.events}
        assert events == {name: names.EVENTS[name] for name in span_entry.events}
    assert {each.name.split()[0] for each in telemetry.spans} == {each.name for each in names.SPANS}
