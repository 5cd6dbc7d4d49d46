"""Metrics: outcomes, delays, and how many runs are held, due and parked."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import Any

import anyio
import pytest
from opentelemetry.metrics import Meter, NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from spine_async import Queue, Step, StepResult, Workflow, WorkflowContext, WorkflowRunner
from spine_async.storage import MemoryRunStore
from spine_async.telemetry import gauges, names
from spine_async.telemetry.providers import open_metrics
from spine_async.testing import FaultInjectingStore
from tests.service.places import Place
from tests.service.services import until
from tests.telemetry.conftest import Telemetry

pytestmark = pytest.mark.anyio


def passes(context: WorkflowContext, config: Mapping[str, Any]) -> None:
    """A step that does nothing."""


async def fails(context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
    return StepResult.fail("gone", category="TRANSIENT")


PASSING = Workflow("passing", [Step.lambda_("only", passes)])
FAILING = Workflow("failing", [Step.lambda_("only", fails)])


async def test_runs_by_outcome(place: Place, telemetry: Telemetry) -> None:
    runner = telemetry.runner(place, workflows=[PASSING, FAILING])
    await runner.execute(PASSING)
    await runner.execute(PASSING)
    await runner.execute(FAILING)
    handle = await runner.enqueue(PASSING)
    assert await handle.stop("not needed")
    expected = {("passing", "completed"): 2, ("failing", "failed", "TRANSIENT"): 1, ("passing", "stopped"): 1}
    assert await telemetry.values("spine.runs.ended") == expected
    assert await telemetry.values("spine.run.duration") == expected


async def test_a_released_run_has_no_outcome(memory: Place, telemetry: Telemetry) -> None:
    flow = Workflow("waits", [Step.wait("nap", 3600)])
    async with telemetry.runner(memory, workflows=[flow]) as runner:
        await runner.start(flow)
        await until(lambda: runner._active_runs.held)
    assert [each.name for each in telemetry.spans if each.name.startswith("workflow")] == ["workflow waits"]
    assert await telemetry.values("spine.runs.ended") == {}


async def test_the_delay_of_a_queue_counts_from_the_due_time(place: Place, telemetry: Telemetry) -> None:
    async with telemetry.runner(place, workflows=[PASSING], queues=[Queue("mail")]) as runner:
        for delay in (None, 0.1):
            handle = await runner.enqueue(PASSING, queue="mail", delay=delay)
            await handle.result(10)
        await runner.execute(PASSING)
    assert await telemetry.values("spine.queue.delay") == {("passing", "mail"): 2}
    point = await telemetry.point("spine.queue.delay")
    assert 0 <= point.min <= point.max < 10


async def test_commits_and_claims(place: Place, telemetry: Telemetry) -> None:
    flow = Workflow("two", [Step.lambda_("first", passes), Step.lambda_("second", passes)])
    async with telemetry.runner(place, workflows=[flow]) as runner:
        await (await runner.enqueue(flow)).result(10)
    sizes, seconds, claims = [
        await telemetry.point(f"spine.{name}") for name in ("commit.size", "commit.duration", "claim.duration")
    ]
    assert (sizes.count, sizes.sum) == (2, 2)
    assert seconds.count == 2
    assert 0 < seconds.sum < 10
    assert claims.count >= 1


async def test_lags_are_measured_while_runs_execute(memory: Place, telemetry: Telemetry) -> None:
    gate = anyio.Event()

    async def waits(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        await gate.wait()

    runner = telemetry.runner(memory, config={"lease_ttl": 1.5})
    async with anyio.create_task_group() as group:
        group.start_soon(runner.execute, Workflow("slow", [Step.lambda_("only", waits)]))
        for name in ("spine.lease.lag", "spine.loop.lag"):
            await until(lambda name=name: telemetry.values(name))
        gate.set()
    for name in ("spine.lease.lag", "spine.loop.lag"):
        point = await telemetry.point(name)
        assert 0 <= point.min < 10


async def test_durations_of_steps_are_in_seconds_also_without_spans(memory: Place, telemetry: Telemetry) -> None:
    async def takes_a_moment(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        await anyio.sleep(0.05)

    runner = telemetry.runner(memory, config={"trace_enabled": False})
    await runner.execute(Workflow("slow", [Step.lambda_("only", takes_a_moment)]))
    point = await telemetry.point("spine.step.duration")
    assert dict(point.attributes) == {"spine.step": "only", "spine.step_type": "lambda", "spine.status": "completed"}
    assert 0.045 <= point.sum < 10  # a timer of uvloop may end a millisecond early
    assert telemetry.spans == []


async def test_held_due_and_parked_runs(place: Place, telemetry: Telemetry) -> None:
    gate = anyio.Event()

    async def waits(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        await gate.wait()

    busy = Workflow("busy", [Step.lambda_("only", waits)])
    parked = Workflow("parked", [Step.wait_for_signal("approval")])
    runner = telemetry.runner(place, workflows=[busy, parked], config={"park_after": 0})
    async with runner:
        handles = [await runner.enqueue(busy), await runner.start(busy), await runner.enqueue(parked)]
        await runner.enqueue("elsewhere", queue="mail")
        await runner.enqueue("elsewhere", queue="mail", delay=3600)
        await until(lambda: telemetry.values("spine.runs.parked"))
        await until(lambda: runner._active_runs.held == 2)
        assert await telemetry.values("spine.runs.held") == {(): 2}
        assert await telemetry.values("spine.runs.due") == {("mail",): 1}
        assert await telemetry.values("spine.runs.parked") == {("default",): 1}
        gate.set()
        await handles[2].signal("approval")
        for handle in handles:
            await handle.result(10)
        assert await telemetry.values("spine.runs.held") == {(): 0}
        assert await telemetry.values("spine.runs.parked") == {}
    assert await telemetry.values("spine.runs.due") == {}, "a store that is not in use is not opened to be counted"


class Counted:
    """Runners on a store that counts its calls."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.store = FaultInjectingStore(MemoryRunStore())
        self.meters = telemetry.meters

    def runner(self) -> WorkflowRunner:
        return WorkflowRunner(store=self.store, work=False, meter_provider=self.meters)


async def test_the_store_is_read_once_for_each_collection(telemetry: Telemetry) -> None:
    counted = Counted(telemetry)
    async with counted.runner() as runner, counted.runner():
        await runner.enqueue("elsewhere")
        for reads in (1, 2, 3):
            assert "spine.runs.due" in await telemetry.metrics()
            assert counted.store.calls["backlog"] == reads, "two gauges, two runners, one place"


async def test_nobody_reads_the_store_without_a_collection(telemetry: Telemetry) -> None:
    counted = Counted(telemetry)
    counted.meters = MeterProvider()
    async with counted.runner() as runner:
        await runner.enqueue("elsewhere")
    assert counted.store.calls["backlog"] == 0


async def test_a_collection_in_the_event_loop_does_not_wait(telemetry: Telemetry) -> None:
    counted = Counted(telemetry)
    async with counted.runner() as runner:
        await runner.enqueue("elsewhere")
        assert "spine.runs.due" not in telemetry.collect()
        await until(lambda: counted.store.calls["backlog"])
        await until(lambda: "spine.runs.due" in telemetry.collect())


async def test_a_store_that_fails_has_no_counts(telemetry: Telemetry) -> None:
    counted = Counted(telemetry)
    counted.store.fail("backlog", call=2)
    async with counted.runner() as runner:
        await runner.enqueue("elsewhere")
        found = [sorted((await telemetry.metrics()).keys() & {"spine.runs.due"}) for _ in range(3)]
    assert found == [["spine.runs.due"], [], ["spine.runs.due"]]


async def test_a_store_that_hangs_is_not_waited_for_long(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "_MOST_SECONDS", 0.05)
    counted = Counted(telemetry)
    hang = counted.store.hang("backlog")
    async with counted.runner() as runner:
        await runner.enqueue("elsewhere")
        assert "spine.runs.due" not in await telemetry.metrics()
        hang.release.set()
        monkeypatch.setattr(gauges, "_MOST_SECONDS", 10.0)
        await until(lambda: telemetry.values("spine.runs.due"))


async def test_the_metrics_keep_no_runner_alive(telemetry: Telemetry) -> None:
    counted = Counted(telemetry)
    other = WorkflowRunner(store=MemoryRunStore(), meter_provider=telemetry.meters)
    async with counted.runner() as runner:
        await runner.enqueue("elsewhere")
        assert await telemetry.values("spine.runs.due") == {("default",): 1}
    del runner
    gc.collect()
    assert await telemetry.values("spine.runs.held") == {(): 0}
    await other.execute(PASSING)
    del other
    gc.collect()
    assert "spine.runs.held" in await telemetry.metrics()


async def test_two_providers_do_not_share_their_runners() -> None:
    readers = [InMemoryMetricReader(), InMemoryMetricReader()]
    runners = [WorkflowRunner(store=MemoryRunStore(), meter_provider=MeterProvider([each])) for each in readers]
    for runner in runners:
        runner._run_counts._active_runs._runs["r"] = None  # type: ignore[assignment]
    for reader in readers:
        data = reader.get_metrics_data()
        assert data is not None
        (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
        assert [each.value for each in metric.data.data_points] == [1]  # type: ignore[union-attr]


def test_no_metric_has_an_id_as_an_attribute() -> None:
    ids = {names.RUN_ID, names.PATH}
    assert [each.name for each in names.METRICS if ids & set(each.attributes)] == []
    assert {each.unit for each in names.METRICS} <= {"s", "{run}", "{result}", "{thread}"}


def test_the_number_of_remembered_attributes_is_bounded() -> None:
    metrics = open_metrics(NoOpMeterProvider())
    for number in range(3_000):
        metrics.run_ended(f"workflow-{number}", "completed", None, 0.1)
    assert len(metrics._attributes) <= 1_000


def test_a_meter_gets_the_entries_of_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    created: dict[str, str] = {}
    meter = NoOpMeterProvider().get_meter("x")
    for kind in ("histogram", "counter", "up_down_counter", "observable_gauge", "observable_up_down_counter"):
        _record(monkeypatch, meter, kind, created)

    class Provider(NoOpMeterProvider):
        def get_meter(self, *_: object, **__: object) -> Meter:
            return meter

    WorkflowRunner(store=MemoryRunStore(), meter_provider=Provider())
    assert created == {each.name: each.kind for each in names.METRICS}


def _record(monkeypatch: pytest.MonkeyPatch, meter: Meter, kind: str, created: dict[str, str]) -> None:
    original = getattr(meter, f"create_{kind}")
    word = kind.replace("_", " ").replace("up down", "up-down")

    def create(name: str, *arguments: Any, **named: Any) -> Any:
        created[name] = word
        return original(name, *arguments, **named)

    monkeypatch.setattr(meter, f"create_{kind}", create)
