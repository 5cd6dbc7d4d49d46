"""Schedules fire once whoever works, whatever the runs before do, and can be paused and triggered."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from spine_async import (
    DefinitionError,
    InvalidParamsError,
    RunRecord,
    Schedule,
    ScheduleNotFoundError,
    ScheduleRecord,
    Step,
    StoreError,
    StoreUnavailableError,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
)
from spine_async.storage import MemoryRunStore
from spine_async.testing import FaultInjectingStore
from tests.service.flows import Config
from tests.service.places import Place
from tests.service.services import until

NOON = datetime(2026, 1, 10, 12, tzinfo=UTC)


class HandClock:
    """A wall clock that the test sets. Durations are those of the real clock."""

    def __init__(self) -> None:
        self.at = NOON + timedelta(seconds=1)

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return time.monotonic()

    def set(self, minutes: float) -> None:
        """Set the time to so many minutes after noon."""
        self.at = NOON + timedelta(minutes=minutes)


class Ticks:
    """A workflow whose one step waits while its gate is closed."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.scheduled: list[object] = []
        self.gate = anyio.Event()
        self.gate.set()
        self.flow = Workflow("ticks", [Step.lambda_("tick", self._tick)], defaults={"size": 1})

    async def _tick(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        self.ran.append(context.run_id)
        self.scheduled.append((context.metadata["schedule"], context.metadata["scheduled_for"]))
        await self.gate.wait()
        return {"size": context.params["size"]}


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


def runner_on(place: Place, clock: HandClock, ticks: Ticks, **options: Any) -> WorkflowRunner:
    """A runner with a schedule that fires every ten minutes."""
    schedule = Schedule("s", ticks.flow, **({"every": 600} | options))
    return place.runner(schedules=[schedule], clock=clock, config={"poll_interval": 0.02})


async def registered(runner: WorkflowRunner) -> None:
    await until(runner.list_schedules)


async def decided(runner: WorkflowRunner, minutes: float) -> ScheduleRecord:
    """The schedule, once its firings up to so many minutes after noon are decided."""
    next_at = NOON + timedelta(minutes=minutes + 10)

    async def look() -> ScheduleRecord | None:
        stored = await runner._runtime.store.schedules()  # type: ignore[attr-defined]
        (record,) = await runner.list_schedules()  # not earlier, so that it is not older than the decision
        return record if stored[0].decided_at + timedelta(minutes=10) >= next_at else None

    record: ScheduleRecord = await until(look)
    return record


async def runs(runner: WorkflowRunner) -> list[str]:
    return sorted(record.run_id for record in await runner.list_runs())


def has_run(ticks: Ticks, count: int) -> bool:
    return len(ticks.ran) == count


def firing(minute: int) -> str:
    return f"s@2026-01-10T12:{minute:02}:00Z"


async def test_a_firing_is_a_run_with_its_time_in_the_default_queue(
    place: Place, clock: HandClock, ticks: Ticks
) -> None:
    async with runner_on(place, clock, ticks, params={"size": 5}) as runner:
        await registered(runner)
        clock.set(10.01)
        result = await until(lambda: _result(runner, firing(10)))
        assert result.context.get_output("tick", "size") == 5
        assert ticks.scheduled == [("s", "2026-01-10T12:10:00Z")]
        record: RunRecord = await runner.get_run(firing(10))
        assert (record.queue, record.params) == ("default", {"size": 5})
        (found,) = await runner.list_schedules()
        assert (found.last_run_id, found.last_fired_at) == (firing(10), NOON + timedelta(minutes=10))
        assert (found.next_at, found.every, found.cron) == (NOON + timedelta(minutes=20), 600.0, None)
        assert (found.workflow_name, found.queue, found.overlap) == ("ticks", "default", "skip")
        clock.set(20)
        await until(lambda: ticks.ran == [firing(10), firing(20)])
        assert await runs(runner) == [firing(10), firing(20)]


async def _result(runner: WorkflowRunner, run_id: str) -> Any:
    if run_id not in await runs(runner):
        return None
    return await runner.handle(run_id).result()


async def test_nothing_before_the_first_registration_fires(place: Place, clock: HandClock, ticks: Ticks) -> None:
    clock.set(9.99)
    async with runner_on(place, clock, ticks) as runner:
        await registered(runner)
        assert await runs(runner) == []


async def test_several_runners_fire_once(place: Place, clock: HandClock, ticks: Ticks) -> None:
    runners = [runner_on(place, clock, ticks, overlap="allow") for _ in range(3)]
    async with runners[0], runners[1], runners[2]:
        await registered(runners[0])
        for number in range(1, 6):
            clock.set(10 * number + 0.01)
            await until(partial(has_run, ticks, number))
    assert sorted(ticks.ran) == [firing(10 * number) for number in range(1, 6)]
    assert await runs(place.runner(work=False)) == sorted(ticks.ran)


async def test_after_a_gap_only_the_latest_firing_is_made_up_for(place: Place, clock: HandClock, ticks: Ticks) -> None:
    async with runner_on(place, clock, ticks) as runner:
        await registered(runner)
    clock.set(45)
    async with runner_on(place, clock, ticks) as runner:
        await until(lambda: ticks.ran)
        await decided(runner, 40)
        assert await runs(runner) == [firing(40)]


async def test_a_firing_that_is_too_old_is_not_made_up_for(
    place: Place, clock: HandClock, ticks: Ticks, caplog: pytest.LogCaptureFixture
) -> None:
    async with runner_on(place, clock, ticks, catch_up=60) as runner:
        await registered(runner)
    clock.set(45)
    with caplog.at_level(logging.WARNING, "spine_async"):
        async with runner_on(place, clock, ticks, catch_up=60) as runner:
            await decided(runner, 40)
            assert await runs(runner) == []
            clock.set(50.5)
            await until(lambda: ticks.ran == [firing(50)])
    assert "schedule s starts no run for 2026-01-10T12:40:00+00:00" in caplog.text


async def test_a_deleted_run_does_not_fire_again(place: Place, clock: HandClock, ticks: Ticks) -> None:
    async with runner_on(place, clock, ticks) as runner:
        await registered(runner)
        clock.set(10.01)
        await until(lambda: _result(runner, firing(10)))
        await runner.delete_run(firing(10))
    async with runner_on(place, clock, ticks) as runner:
        clock.set(20)
        await until(lambda: len(ticks.ran) == 2)
        assert await runs(runner) == [firing(20)]


async def test_skip_starts_no_run_before_the_last_one_has_ended(place: Place, clock: HandClock, ticks: Ticks) -> None:
    ticks.gate = anyio.Event()
    async with runner_on(place, clock, ticks) as runner:
        await registered(runner)
        clock.set(10)
        await until(lambda: ticks.ran)
        clock.set(20.01)
        await decided(runner, 20)
        ticks.gate.set()
        await runner.handle(firing(10)).result()
        clock.set(30.01)
        await until(lambda: len(ticks.ran) == 2)
        assert await runs(runner) == [firing(10), firing(30)]


async def test_queue_starts_each_run_after_the_one_before(place: Place, clock: HandClock, ticks: Ticks) -> None:
    ticks.gate = anyio.Event()
    async with runner_on(place, clock, ticks, overlap="queue") as runner:
        await registered(runner)
        for minute in (10, 20, 30):
            clock.set(minute)
            record = await decided(runner, minute)
        assert (record.waiting, record.last_run_id) == (2, firing(10))
        await until(lambda: ticks.ran == [firing(10)])
        assert await runs(runner) == [firing(10)]
        ticks.gate.set()
        await until(lambda: ticks.ran == [firing(10), firing(20), firing(30)])
        (record,) = await runner.list_schedules()
        assert record.waiting == 0


async def test_allow_starts_runs_side_by_side(place: Place, clock: HandClock, ticks: Ticks) -> None:
    ticks.gate = anyio.Event()
    async with runner_on(place, clock, ticks, overlap="allow") as runner:
        await registered(runner)
        for number in (1, 2):
            clock.set(10 * number)
            await until(partial(has_run, ticks, number))
        ticks.gate.set()


async def test_a_paused_schedule_fires_again_after_its_resume(place: Place, clock: HandClock, ticks: Ticks) -> None:
    other = place.runner(work=False, clock=clock)
    async with runner_on(place, clock, ticks) as runner:
        await registered(runner)
        await other.pause_schedule("s")
        (record,) = await runner.list_schedules()
        assert (record.is_paused, record.next_at) == (True, None)
        clock.set(10.01)
        await decided(runner, 10)
        await other.resume_schedule("s")
        clock.set(20.01)
        await until(lambda: ticks.ran == [firing(20)])


async def test_firings_during_a_pause_are_not_made_up_for(place: Place, clock: HandClock, ticks: Ticks) -> None:
    runner = runner_on(place, clock, ticks)  # not entered, so that nobody decides about the firings
    await runner.pause_schedule("s")
    clock.set(15)
    await runner.resume_schedule("s")
    async with runner:
        clock.set(20.01)
        await until(lambda: ticks.ran == [firing(20)])


async def test_a_trigger_starts_a_run_now(place: Place, clock: HandClock, ticks: Ticks) -> None:
    async with runner_on(place, clock, ticks, params={"size": 7}) as runner:
        await registered(runner)
        await runner.pause_schedule("s")
        handle = await place.runner(work=False, clock=clock).trigger_schedule("s")
        assert handle.run_id == "s@2026-01-10T12:00:01.000000Z"
        assert (await runner.handle(handle.run_id).result()).context.get_output("tick", "size") == 7
        (record,) = await runner.list_schedules()
        assert (record.last_run_id, record.is_paused) == (handle.run_id, True)


async def test_a_triggered_run_counts_as_the_run_before(place: Place, clock: HandClock, ticks: Ticks) -> None:
    ticks.gate = anyio.Event()
    async with runner_on(place, clock, ticks) as runner:
        handle = await runner.trigger_schedule("s")
        clock.set(10.01)
        await decided(runner, 10)
        assert await runs(runner) == [handle.run_id]
        ticks.gate.set()


async def test_a_schedule_that_nobody_knows(place: Place) -> None:
    runner = place.runner(work=False)
    for call in (runner.pause_schedule, runner.resume_schedule, runner.trigger_schedule):
        with pytest.raises(ScheduleNotFoundError, match="'other'") as failure:
            await call("other")
        assert failure.value.schedule == "other"
    with pytest.raises(DefinitionError, match="5 is no name of a schedule"):
        await runner.pause_schedule(5)  # type: ignore[arg-type]
    assert await runner.list_schedules() == []


async def test_a_new_definition_replaces_the_old_one(
    place: Place, clock: HandClock, ticks: Ticks, caplog: pytest.LogCaptureFixture
) -> None:
    """A process with the old definition fires it no more, so that a rolling deploy starts no run twice."""
    with caplog.at_level(logging.WARNING, "spine_async"):
        async with runner_on(place, clock, ticks, overlap="allow") as old:
            await registered(old)
            async with runner_on(place, clock, ticks, overlap="allow", every=1200) as new:
                await until(lambda: _every(new, 1200))
                for minute in (10, 20.01):
                    clock.set(minute)
                await until(lambda: ticks.ran == [firing(20)])
                await until(lambda: "was redefined by another process" in caplog.text)
        assert await runs(new) == [firing(20)]


async def _every(runner: WorkflowRunner, seconds: float) -> bool:
    return any(each.every == seconds for each in await runner.list_schedules())


async def test_a_workflow_can_be_given_by_name(place: Place, clock: HandClock, ticks: Ticks) -> None:
    schedule = Schedule("s", "ticks", every=600, queue="elsewhere")
    settings: dict[str, Any] = {"clock": clock, "config": {"poll_interval": 0.02}}
    async with place.runner(schedules=[schedule], **settings) as runner:
        await registered(runner)
        clock.set(10)
        await until(lambda: runs(runner))
        assert (await runner.get_run(firing(10))).queue == "elsewhere"
        async with place.runner(workflows=[ticks.flow], queues=["elsewhere"], **settings):
            await until(lambda: ticks.ran == [firing(10)])


async def test_lost_answers_neither_lose_nor_double_a_firing(clock: HandClock, ticks: Ticks) -> None:
    store = FaultInjectingStore(MemoryRunStore())
    place = Place(None)
    place._memory = store  # type: ignore[assignment]
    for call, moment in ((1, "before"), (2, "after")):
        store.fail("change_schedule", call=call, moment=moment)  # type: ignore[arg-type]
    async with runner_on(place, clock, ticks) as runner:
        await registered(runner)
        clock.set(10)
        await until(lambda: ticks.ran)
        clock.set(20)
        await until(lambda: len(ticks.ran) == 2)
        assert await runs(runner) == [firing(10), firing(20)]
        store.fail("change_schedule", call=store.calls["change_schedule"] + 1, moment="after")
        with pytest.raises(StoreUnavailableError):
            await runner.trigger_schedule("s")


async def test_wrong_schedules_are_refused_when_the_runner_is_made(place: Place, ticks: Ticks) -> None:
    class Params(BaseModel):
        size: int

    strict = Workflow("strict", ticks.flow.steps, params_model=Params)
    with pytest.raises(InvalidParamsError, match="Params") as failure:
        place.runner(schedules=[Schedule("s", strict, every=60, params={"size": "secret"})])
    assert "secret" not in str(failure.value)
    one: Any = Schedule("s", ticks.flow, every=60)
    for wrong, problem in ((one, "a list of"), ([one, one], "'s' is given twice"), (["s"], "is no schedule")):
        with pytest.raises(DefinitionError, match=problem):
            place.runner(schedules=wrong)
    with pytest.raises(DefinitionError, match="stores nothing"):
        WorkflowRunner(checkpoint_enabled=False, schedules=[one])


async def test_a_store_without_schedules_says_so(ticks: Ticks) -> None:
    class Plain(MemoryRunStore):
        register_schedules = property()  # as if it had no such method

    with pytest.raises(StoreError, match="Plain keeps no schedules"):
        WorkflowRunner(store=Plain(), schedules=[Schedule("s", ticks.flow, every=60)])
    with pytest.raises(StoreError, match="Plain keeps no schedules"):
        await WorkflowRunner(store=Plain()).list_schedules()
