"""Runs that are started in the background or enqueued, and their handles."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from pydantic import BaseModel

from spine_async import (
    Enqueued,
    InvalidParamsError,
    Queue,
    RunConflictError,
    RunHandle,
    RunNotFoundError,
    RunStatus,
    SpineError,
    Step,
    StepError,
    StoreUnavailableError,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
    WorkflowRunnerConfig,
    wait_first,
)
from spine_async._model.due import DueRequest, DueRun
from spine_async.storage import MemoryRunStore
from tests.service.flows import Config
from tests.service.places import Place
from tests.service.services import until


class Gated:
    """A workflow whose one step ends when its gate opens."""

    def __init__(self, name: str = "gated") -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.gate = anyio.Event()
        self.flow = Workflow(name, [Step.lambda_("gated", self._step)], defaults={"size": 1})

    async def _step(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        self.begun.append(context.run_id)
        await self.gate.wait()
        self.ended.append(context.run_id)
        return {"size": context.get_param("size")}


@pytest.fixture
def gated() -> Gated:
    return Gated()


@pytest.fixture
def opened(gated: Gated) -> Gated:
    gated.gate.set()
    return gated


async def stored(place: Place) -> list[str]:
    return [record.run_id for record in await place.runner(work=False).list_runs()]


# --- start ---------------------------------------------------------------------------------------------------------


async def test_start_returns_once_the_run_is_stored_and_executes_it_here(place: Place, gated: Gated) -> None:
    async with place.runner() as runner:
        handle = await runner.start(gated.flow, params={"size": 2}, partition={"symbol": "IBM"}, run_id="r")
        record = await place.runner(work=False).get_run("r")
        assert (handle.run_id, record.params, record.partition) == ("r", {"size": 2}, {"symbol": "IBM"})
        assert record.queue is None
        assert record.outputs is None
        await until(lambda: gated.begun == ["r"])
        assert await handle.status() == RunStatus.RUNNING
        gated.gate.set()
        result = await handle.result(timeout=10)
        assert (result.status, result.context.get_output("gated", "size")) == ("completed", 2)
        assert (await handle.record()).outputs == {"gated": {"size": 2}}
        assert await handle.status() == RunStatus.COMPLETED


async def test_start_outside_of_async_with_is_an_error_that_stores_nothing(place: Place, gated: Gated) -> None:
    runner = place.runner()
    with pytest.raises(SpineError, match=r"async with"):
        await runner.start(gated.flow, run_id="r")
    async with runner:
        pass
    with pytest.raises(SpineError, match=r"async with"):
        await runner.start(gated.flow, run_id="r")
    assert await stored(place) == []


async def test_start_executes_the_run_here_also_where_the_runner_does_not_work(place: Place, opened: Gated) -> None:
    async with place.runner(work=False) as runner:
        handle = await runner.start(opened.flow)
        assert (await handle.result(timeout=10)).status == "completed"


async def test_start_takes_a_first_step(place: Place) -> None:
    flow = Workflow("two", [Step.lambda_("one", nothing), Step.lambda_("two", nothing)])
    async with place.runner() as runner:
        handle = await runner.start(flow, start_from="two")
        assert (await handle.result(timeout=10)).completed_steps == ["two"]


# --- enqueue -------------------------------------------------------------------------------------------------------


async def test_enqueue_leaves_the_run_to_a_working_runner(place: Place, opened: Gated) -> None:
    producer = place.runner()
    handle = await producer.enqueue(opened.flow, params={"size": 3}, partition={"day": 1}, run_id="r", key="tenant")
    record = await handle.record()
    assert (record.status, record.queue, record.key, record.partition) == ("pending", "default", "tenant", {"day": 1})
    assert record.due_at is not None
    assert opened.begun == []
    async with place.runner(workflows=[opened.flow]):
        result = await handle.result(timeout=10)
    assert result.context.get_output("gated", "size") == 3
    assert (await handle.record()).due_at is None


async def test_a_runner_that_does_not_work_claims_nothing(place: Place, opened: Gated) -> None:
    async with place.runner(workflows=[opened.flow], work=False) as idle:
        handle = await idle.enqueue(opened.flow)
        with pytest.raises(TimeoutError):
            await handle.result(timeout=0.7)
        assert await handle.status() == RunStatus.PENDING


async def test_enqueue_takes_the_name_of_a_workflow(place: Place, opened: Gated) -> None:
    async with place.runner(work=False) as producer:
        handle = await producer.enqueue("gated", params={"size": 4}, run_id="named")
        unknown = await producer.enqueue("nobody knows this one")
        async with place.runner(workflows=[opened.flow]):
            result = await handle.result(timeout=10)
        assert result.context.get_output("gated", "size") == 4
        assert await unknown.status() == RunStatus.PENDING


async def test_defaults_reach_a_run_that_was_enqueued_by_name(place: Place, opened: Gated) -> None:
    async with place.runner(work=False) as producer, place.runner(workflows=[opened.flow]):
        handle = await producer.enqueue("gated")
        assert (await handle.result(timeout=10)).context.get_output("gated", "size") == 1


async def test_params_are_validated_where_the_workflow_is_known(place: Place) -> None:
    class Params(BaseModel):
        size: int

    begun: list[object] = []

    async def step(context: WorkflowContext, config: Config) -> None:
        begun.append(context.get_param("size"))

    flow = Workflow("strict", [Step.lambda_("step", step)], params_model=Params)
    async with place.runner(work=False) as producer:
        with pytest.raises(InvalidParamsError, match="size"):
            await producer.enqueue(flow, params={"size": "many"})
        with pytest.raises(InvalidParamsError, match="size"):
            await producer.enqueue_many(flow, [Enqueued(params={"size": 1}), Enqueued(params={"size": "many"})])
        assert await stored(place) == []
        bad = await producer.enqueue("strict", params={"size": "many"})
        good = await producer.enqueue("strict", params={"size": "5"})
        async with place.runner(workflows=[flow]):
            assert (await good.result(timeout=10)).status == "completed"
            result = await bad.result(timeout=10)
        assert result.status == "failed"
        assert "size" in str(result.error)
    assert begun == [5]


async def test_many_waiters_for_many_runs(place: Place, gated: Gated) -> None:
    ended: list[str] = []

    async def wait(handle: RunHandle) -> None:
        ended.append((await handle.result(timeout=15)).run_id)

    async with place.runner(work=False) as producer, place.runner(workflows=[gated.flow]):
        handles = await producer.enqueue_many(gated.flow, [Enqueued() for _ in range(50)])
        async with anyio.create_task_group() as tasks:
            for handle in handles * 3:
                tasks.start_soon(wait, handle)
            gated.gate.set()
    assert sorted(ended) == sorted([handle.run_id for handle in handles] * 3)


async def test_enqueue_many_gives_handles_in_order(place: Place, opened: Gated) -> None:
    runs = [Enqueued(params={"size": size}, run_id=f"r{size}", key=f"k{size}", priority=size) for size in range(30)]
    async with place.runner(work=False) as producer, place.runner(workflows=[opened.flow]):
        handles = await producer.enqueue_many(opened.flow, runs)
        assert [handle.run_id for handle in handles] == [run.run_id for run in runs]
        results = [await handle.result(timeout=10) for handle in handles]
        assert [result.context.get_output("gated", "size") for result in results] == list(range(30))
        record = await handles[7].record()
        assert (record.key, record.priority, record.queue) == ("k7", 7, "default")
        assert await producer.enqueue_many(opened.flow, []) == []
    assert sorted(opened.begun) == sorted(f"r{size}" for size in range(30))


async def test_enqueue_many_takes_the_options_of_each_run(place: Place, opened: Gated) -> None:
    at = datetime.now(UTC) + timedelta(hours=1)
    runs = [Enqueued(run_id="delayed", delay=60), Enqueued(run_id="at", at=at), Enqueued(run_id="now")]
    handles = await place.runner(work=False).enqueue_many("gated", runs, queue="mail")
    records = [await handle.record() for handle in handles]
    dues = [record.due_at for record in records]
    assert dues[1] == at
    assert dues[0] is not None
    assert timedelta(seconds=50) < dues[0] - records[0].created_at < timedelta(seconds=70)
    assert {record.queue for record in records} == {"mail"}


async def test_the_same_id_twice_in_enqueue_many(place: Place, opened: Gated) -> None:
    producer = place.runner(work=False)
    twice = [Enqueued(run_id="r", params={"size": 1})] * 2
    handles = await producer.enqueue_many(opened.flow, twice)
    assert [handle.run_id for handle in handles] == ["r", "r"]
    with pytest.raises(RunConflictError, match="r"):
        await producer.enqueue_many(opened.flow, [Enqueued(run_id="r", params={"size": 2})])
    assert await stored(place) == ["r"]


async def test_a_stored_id_is_joined(place: Place, gated: Gated) -> None:
    async with place.runner() as runner:
        first = await runner.start(gated.flow, params={"size": 5}, run_id="r")
        again = await runner.start(gated.flow, params={"size": 5}, run_id="r")
        queued = await runner.enqueue(gated.flow, params={"size": 5}, run_id="r")
        gated.gate.set()
        results = [await handle.result(timeout=10) for handle in (first, again, queued)]
        assert [result.context.get_output("gated", "size") for result in results] == [5, 5, 5]
        ended = await runner.start(gated.flow, params={"size": 5}, run_id="r")
        assert (await ended.result(timeout=10)).status == "completed"
    assert gated.begun == ["r"]


async def test_start_of_an_enqueued_id_executes_it_here(place: Place, opened: Gated) -> None:
    async with place.runner(work=False) as runner:
        await runner.enqueue(opened.flow, run_id="r")
        handle = await runner.start(opened.flow, run_id="r")
        assert (await handle.result(timeout=10)).status == "completed"


@pytest.mark.parametrize("how", ["start", "enqueue", "execute"])
async def test_a_stored_id_of_another_request_is_a_conflict(place: Place, opened: Gated, how: str) -> None:
    other = Workflow("other", [Step.lambda_("gated", nothing)])
    async with place.runner(work=False) as runner:
        await runner.enqueue(opened.flow, run_id="r")
        call: Any = getattr(runner, how)
        with pytest.raises(RunConflictError, match="r"):
            await call(opened.flow, run_id="r", params={"size": 2})
        with pytest.raises(RunConflictError, match="r"):
            await call(opened.flow, run_id="r", params={"size": 1})  # the default, given explicitly
        with pytest.raises(RunConflictError, match="r"):
            await call(other, run_id="r")
        assert (await runner.get_run("r")).workflow_name == "gated"


# --- when ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["delay", "timedelta", "at", "at in another zone"])
async def test_a_delayed_run_is_claimed_when_it_is_due(place: Place, opened: Gated, how: str) -> None:
    async with place.runner(workflows=[opened.flow]) as runner:
        await runner.enqueue("nobody")  # the first write of a runner takes longer
        asked_at = datetime.now(UTC)
        wanted = asked_at + timedelta(seconds=0.5)
        options: dict[str, dict[str, Any]] = {
            "delay": {"delay": 0.5},
            "timedelta": {"delay": timedelta(seconds=0.5)},
            "at": {"at": wanted},
            "at in another zone": {"at": wanted.astimezone(timezone(timedelta(hours=-7)))},
        }
        handle = await runner.enqueue(opened.flow, **options[how])
        late = datetime.now(UTC) - asked_at
        due_at = (await handle.record()).due_at
        assert due_at is not None
        assert wanted <= due_at + timedelta(milliseconds=5)
        assert due_at <= wanted + late
        await handle.result(timeout=10)
    events = {event.event_type: event.timestamp async for event in runner.events(handle.run_id)}
    started = events.get("step_started", events["step_completed"])
    assert due_at <= started + timedelta(milliseconds=5)
    assert started < due_at + timedelta(seconds=2)


@pytest.mark.parametrize("how", ["execute", "resume"])
async def test_execute_and_resume_of_a_queued_run_respect_its_time(place: Place, opened: Gated, how: str) -> None:
    async with place.runner(work=False) as runner:
        handle = await runner.enqueue(opened.flow, run_id="r", delay=0.4)
        due_at = (await handle.record()).due_at
        assert due_at is not None
        call = runner.execute(opened.flow, run_id="r") if how == "execute" else runner.resume("r", workflow=opened.flow)
        assert (await call).status == "completed"
        assert datetime.now(UTC) >= due_at - timedelta(milliseconds=5)


async def test_lower_priority_numbers_come_first_and_then_the_order_of_arrival(place: Place, opened: Gated) -> None:
    producer = place.runner(work=False)
    for number, priority in enumerate([5, 0, -1, 5, 0, -1]):
        await producer.enqueue(opened.flow, run_id=f"{priority}/{number}", priority=priority)
    async with place.runner(workflows=[opened.flow], config={"worker_concurrency": 1}):
        await until(lambda: len(opened.ended) == 6)
    assert opened.ended == ["-1/2", "-1/5", "0/1", "0/4", "5/0", "5/3"]


async def test_a_worker_executes_no_more_than_it_has_capacity_for(place: Place, gated: Gated) -> None:
    async with place.runner(workflows=[gated.flow], config={"worker_concurrency": 2}) as runner:
        handles = await runner.enqueue_many(gated.flow, [Enqueued() for _ in range(5)])
        await until(lambda: len(gated.begun) == 2)
        statuses = [await handle.status() for handle in handles]
        assert (statuses.count(RunStatus.RUNNING), statuses.count(RunStatus.PENDING)) == (2, 3)
        gated.gate.set()
        await until(lambda: len(gated.ended) == 5)


async def test_one_claim_takes_a_limited_number_of_runs(opened: Gated) -> None:
    """10,000 runs that were claimed at once lost their leases before they had begun, and were claimed again."""
    limits: list[int] = []

    class Store(MemoryRunStore):
        async def claim_due(self, request: DueRequest) -> list[DueRun]:
            limits.append(request.limit)
            return await super().claim_due(request)

    config = WorkflowRunnerConfig(worker_concurrency=10_000)
    async with WorkflowRunner(store=Store(), config=config, workflows=[opened.flow]) as runner:
        handles = await runner.enqueue_many(opened.flow, [Enqueued() for _ in range(500)])
        for handle in handles:
            await handle.result(timeout=20)
    assert max(limits) <= 200


async def test_a_run_that_nobody_claimed_in_time_expires(place: Place, opened: Gated) -> None:
    producer = place.runner(work=False)
    late = await producer.enqueue(opened.flow, run_id="late", expires=0.02)
    timely = await producer.enqueue(opened.flow, run_id="timely", expires=timedelta(hours=1))
    enqueued_at = (await late.record()).created_at
    await until(lambda: datetime.now(UTC) - enqueued_at > timedelta(seconds=0.1))
    async with place.runner(workflows=[opened.flow]):
        result = await late.result(timeout=10)
        assert (await timely.result(timeout=10)).status == "completed"
    assert (result.status, result.stop_reason) == ("stopped", "expired")
    assert opened.begun == ["timely"]


@pytest.mark.parametrize("how", ["execute", "start", "resume"])
async def test_a_call_for_an_expired_run_does_what_it_does_after_a_worker_has_recorded_it(
    place: Place, opened: Gated, how: str
) -> None:
    """`execute` and `start` want the run to end, and it has expired; `resume` decides to execute it after all."""
    async with place.runner(work=False) as runner:
        handle = await runner.enqueue(opened.flow, run_id="late", params={"size": 2}, expires=0.02)
        enqueued_at = (await handle.record()).created_at
        await until(lambda: datetime.now(UTC) - enqueued_at > timedelta(seconds=0.1))
        if how == "resume":
            result = await runner.resume("late", workflow=opened.flow)
        elif how == "start":
            await runner.start(opened.flow, run_id="late", params={"size": 2})
            result = await handle.result(timeout=10)
        else:
            result = await runner.execute(opened.flow, run_id="late", params={"size": 2})
        record = await handle.record()
    wanted = ("completed", None) if how == "resume" else ("stopped", "expired")
    assert (result.status, result.stop_reason) == (record.status, record.stop_reason) == wanted
    assert opened.begun == (["late"] if how == "resume" else [])


@pytest.mark.parametrize("how", ["execute", "resume"])
async def test_a_call_for_an_enqueued_run_starts_it_as_a_worker_does(place: Place, how: str) -> None:
    """Its time limit begins with the start, and the params of a run that was enqueued by name are completed."""
    sizes: list[object] = []

    async def step(context: WorkflowContext, config: Config) -> None:
        sizes.append(context.get_param("size"))
        await anyio.sleep(0.01)

    flow = Workflow("flow", [Step.lambda_("step", step)], defaults={"size": 1})
    async with place.runner(work=False, config={"workflow_timeout": 5}) as runner:
        handle = await runner.enqueue("flow", run_id="r")
        created_at = (await handle.record()).created_at
        await until(lambda: datetime.now(UTC) - created_at > timedelta(seconds=0.1))
        call = runner.execute(flow, run_id="r") if how == "execute" else runner.resume("r", workflow=flow)
        result = await call
        record = await handle.record()
        types = [event.event_type async for event in handle.events()]
    assert (result.status, sizes) == ("completed", [1])
    assert min(record.started_at, result.started_at) - created_at > timedelta(seconds=0.1)
    assert types == ["workflow_started", "step_started", "step_completed", "workflow_completed"]


async def test_expires_counts_from_when_the_run_is_due(place: Place, opened: Gated) -> None:
    async with place.runner(workflows=[opened.flow]) as runner:
        handle = await runner.enqueue(opened.flow, delay=0.5, expires=5)
        assert (await handle.result(timeout=10)).status == "completed"


async def test_a_run_that_was_claimed_in_time_does_not_expire(place: Place) -> None:
    """It is parked and released beyond that time; only the first claim counts."""
    flow = Workflow("naps", [Step.wait("first", 0.4), Step.wait("second", 0.4)])
    configs: list[dict[str, Any]] = [{"park_after": 0}, {"park_after": 100}]
    for config in configs:
        async with place.runner(workflows=[flow], config=config) as runner:
            handle = await runner.enqueue(flow, expires=60)
            await until(lambda handle=handle: _has_begun(handle))
        async with place.runner(workflows=[flow], config=config, clock=_Ahead()) as runner:
            result = await runner.handle(handle.run_id).result(timeout=10)
        assert (result.status, result.stop_reason) == ("completed", None)


class _Ahead:
    """A clock that is an hour ahead."""

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(hours=1)

    def monotonic(self) -> float:
        return time.monotonic()


async def _has_begun(handle: RunHandle) -> bool:
    return "step_started" in [event.event_type async for event in handle.events()]


# --- queues --------------------------------------------------------------------------------------------------------


async def test_a_runner_works_on_default_and_the_queues_that_it_lists(place: Place, opened: Gated) -> None:
    async with place.runner(work=False) as producer:
        for run_id, queue in (("m", "mail"), ("d", "default"), ("x", "unlisted")):
            await producer.enqueue(opened.flow, run_id=run_id, queue=queue)
        async with place.runner(workflows=[opened.flow]):
            await producer.handle("d").result(timeout=10)
        assert opened.begun == ["d"]
        async with place.runner(workflows=[opened.flow], queues=[Queue("mail")]):
            await producer.handle("m").result(timeout=10)
            later = await producer.enqueue(opened.flow)
            await later.result(timeout=10)
        assert (await producer.get_run("x")).status == RunStatus.PENDING


async def test_a_worker_learns_of_a_workflow_that_is_registered_later(place: Place, opened: Gated) -> None:
    async with place.runner() as runner:
        handle = await runner.enqueue("gated")
        runner.register(opened.flow)
        assert (await handle.result(timeout=10)).status == "completed"


async def test_recover_executes_what_is_due_once(place: Place, opened: Gated) -> None:
    runner = place.runner(workflows=[opened.flow], work=False)
    await runner.enqueue_many(opened.flow, [Enqueued(run_id=f"r{number}") for number in range(3)])
    await runner.enqueue(opened.flow, run_id="delayed", delay=60)
    results = await runner.recover()
    assert sorted(result.run_id for result in results) == ["r0", "r1", "r2"]
    assert {result.status for result in results} == {RunStatus.COMPLETED}
    assert await runner.recover() == []


# --- handles -------------------------------------------------------------------------------------------------------


async def test_a_handle_of_an_unknown_run(place: Place) -> None:
    async with place.runner(work=False) as runner:
        handle = runner.handle("nothing")
        assert handle.run_id == "nothing"
        for call in (handle.result, handle.status, handle.record, handle.stop):
            with pytest.raises(RunNotFoundError, match="nothing"):
                await call()
        with pytest.raises(RunNotFoundError, match="nothing"):
            _ = [event async for event in handle.events()]


async def test_the_result_of_a_run_that_is_deleted(place: Place) -> None:
    async with place.runner(work=False) as runner:
        handle = await runner.enqueue("gated", run_id="r")
        raised: list[BaseException] = []
        waiting = anyio.Event()

        async def wait() -> None:
            waiting.set()
            with pytest.raises(RunNotFoundError, match="r") as caught:
                await handle.result(timeout=10)
            raised.append(caught.value)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await waiting.wait()
            await anyio.lowlevel.checkpoint()
            await place.runner(work=False).delete_run("r", force=True)
        assert len(raised) == 1
        with pytest.raises(RunNotFoundError, match="r"):
            await handle.result()


async def test_a_timeout_of_result_ends_only_the_waiting(place: Place, gated: Gated) -> None:
    async with place.runner() as runner:
        handle = await runner.start(gated.flow)
        await until(lambda: gated.begun)
        for seconds in (0, 0.01):
            with pytest.raises(TimeoutError):
                await handle.result(timeout=seconds)
        gated.gate.set()
        assert (await handle.result(timeout=10)).status == "completed"
        assert (await handle.result(timeout=0)).status == "completed"


@pytest.mark.parametrize("how", ["start", "enqueue"])
async def test_a_cancelled_waiter_stops_nothing(place: Place, gated: Gated, how: str) -> None:
    async with place.runner(workflows=[gated.flow]) as runner:
        handle: RunHandle = await getattr(runner, how)(gated.flow)
        await until(lambda: gated.begun)
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(handle.result)
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        gated.gate.set()
        assert (await handle.result(timeout=10)).status == "completed"
    assert len(gated.begun) == 1


async def test_the_result_of_a_failed_run_is_a_value(place: Place) -> None:
    async def fails(context: WorkflowContext, config: Config) -> None:
        raise StepError("no such file", category="DEPENDENCY")

    flow = Workflow("fails", [Step.lambda_("fails", fails)])
    async with place.runner(workflows=[flow]) as runner:
        for handle in (await runner.start(flow), await runner.enqueue(flow)):
            result = await handle.result(timeout=10)
            assert (result.status, result.error_step, result.error_category) == ("failed", "fails", "DEPENDENCY")
            assert "no such file" in str(result.error)
            assert (await handle.record()).outputs is None


async def test_a_result_elsewhere_equals_the_result_here(place: Place, opened: Gated) -> None:
    async with place.runner() as here:
        handle = await here.start(opened.flow, params={"size": 7})
        result = await handle.result(timeout=10)
    other = await place.runner(work=False).handle(handle.run_id).result(timeout=10)
    assert other.context.to_dict() == result.context.to_dict()
    for name in ("run_id", "workflow_name", "status", "completed_steps", "total_steps", "started_at", "completed_at"):
        assert getattr(other, name) == getattr(result, name), name


async def test_events_of_a_handle(place: Place, opened: Gated) -> None:
    async with place.runner() as runner:
        handle = await runner.start(opened.flow)
        await handle.result(timeout=10)
        events = [event async for event in handle.events()]
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert [event.event_type for event in events] == [
            "workflow_started",
            "step_started",
            "step_completed",
            "workflow_completed",
        ]
        assert [event.seq async for event in handle.events(after=2)] == [3, 4]


async def test_stop_of_a_handle(place: Place, gated: Gated) -> None:
    async with place.runner() as runner:
        handle = await runner.start(gated.flow)
        await until(lambda: gated.begun)
        assert await handle.stop("the user left") is True
        result = await handle.result(timeout=10)
        assert (result.status, result.stop_reason) == ("stopped", "the user left")
        assert (await handle.record()).stop_reason == "the user left"
        assert await handle.stop("again") is False
        assert (await handle.record()).stop_reason == "the user left"
        gated.gate.set()
        assert (await runner.resume(handle.run_id)).status == "completed"


async def test_waiting_for_the_first_of_several(place: Place) -> None:
    slow, quick = Gated("slow"), Gated("quick")
    quick.gate.set()
    async with place.runner(workflows=[slow.flow, quick.flow]) as runner:
        handles = [await runner.start(slow.flow), await runner.enqueue(quick.flow), await runner.enqueue(slow.flow)]
        assert (await wait_first(*handles, timeout=10)).run_id == handles[1].run_id
        with pytest.raises(TimeoutError):
            await wait_first(handles[0], handles[2], timeout=0.02)
        slow.gate.set()
        assert (await wait_first(handles[0], handles[2], timeout=10)).run_id in {handles[0].run_id, handles[2].run_id}


async def test_result_wakes_at_once_for_runs_executed_here(place: Place, gated: Gated) -> None:
    """The fallback polls every 30 s here, so a result that were polled would be late."""
    async with place.runner(workflows=[gated.flow], config={"poll_interval": 30}) as runner:
        handles = [await runner.start(gated.flow), await runner.enqueue(gated.flow)]
        await until(lambda: len(gated.begun) == 2)
        gated.gate.set()
        for handle in handles:
            assert (await handle.result(timeout=5)).status == "completed"


@pytest.mark.parametrize("error", [StoreUnavailableError("away"), RuntimeError("a fault"), OSError("a network")])
async def test_a_worker_survives_an_error_of_the_store(opened: Gated, error: Exception) -> None:
    class Store(MemoryRunStore):
        """A store whose first claims fail."""

        failures = 2

        async def claim_due(self, request: Any) -> Any:
            if self.failures:
                self.failures -= 1
                raise error
            return await super().claim_due(request)

    config = WorkflowRunnerConfig(poll_interval=0.05)
    async with WorkflowRunner(store=Store(), config=config, workflows=[opened.flow]) as runner:
        handle = await runner.enqueue(opened.flow)
        assert (await handle.result(timeout=10)).status == "completed"


async def nothing(context: WorkflowContext, config: Config) -> None:
    return None
