"""The wall clock is set while runs are executed: waits, durations and stored times."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from spine_async import RetryPolicy, Step, StepResult, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig
from spine_async._clock import SystemClock
from spine_async.storage import MemoryRunStore
from spine_async.testing import VirtualClock, VirtualTimeLoop

pytestmark = pytest.mark.anyio

HOUR = 3600.0
Config = Mapping[str, object]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "asyncio", {"loop_factory": VirtualTimeLoop}


class SettableClock(VirtualClock):
    """A virtual clock whose wall clock can be set."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = 0.0

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.shift)


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


def runner_with(clock: SettableClock, store: MemoryRunStore | None = None, **config: Any) -> WorkflowRunner:
    return WorkflowRunner(store=store or MemoryRunStore(), clock=clock, config=WorkflowRunnerConfig(**config))


async def nothing(context: WorkflowContext, config: Config) -> None:
    return None


def waiting(shape: str, *args: Any, **options: Any) -> Workflow:
    step: Step = Step.wait("pause", *args, **options)
    if shape == "item":
        step = Step.map("each", items=[1, 2], iterator=Workflow(steps=[step]))
    return Workflow("w", [step])


@pytest.mark.parametrize("shape", ["plain", "item"])
@pytest.mark.parametrize("seconds", [5.0, 600.0])
@pytest.mark.parametrize("shift", [-HOUR, 2 * HOUR, 30 * 24 * HOUR])
async def test_a_wait_by_seconds_lasts_so_long_whatever_the_wall_clock_does(
    clock: SettableClock, shape: str, seconds: float, shift: float
) -> None:
    task = asyncio.create_task(runner_with(clock).execute(waiting(shape, seconds), run_id="r"))
    await anyio.sleep(2)
    clock.shift = shift
    result = await task
    assert result.status == "completed"
    assert anyio.current_time() == pytest.approx(seconds, abs=0.01)


@pytest.mark.parametrize("shape", ["plain", "item"])
@pytest.mark.parametrize("shift", [2 * HOUR, 890.0, 48 * HOUR])
async def test_a_wait_until_a_moment_notices_within_seconds_that_the_clock_was_set_forward(
    clock: SettableClock, shape: str, shift: float
) -> None:
    until = clock.now() + timedelta(seconds=900)
    task = asyncio.create_task(runner_with(clock).execute(waiting(shape, until=until), run_id="r"))
    await anyio.sleep(100)
    clock.shift = shift
    result = await task
    assert result.status == "completed"
    assert anyio.current_time() == pytest.approx(100, abs=2)
    assert clock.now() >= until


async def test_a_wait_until_a_moment_goes_on_when_the_clock_is_set_back(clock: SettableClock) -> None:
    until = clock.now() + timedelta(seconds=10)
    task = asyncio.create_task(runner_with(clock).execute(waiting("plain", until=until), run_id="r"))
    await anyio.sleep(5)
    clock.shift = -600
    await task
    assert anyio.current_time() == pytest.approx(610, abs=2)


async def test_a_clock_that_is_set_again_and_again(clock: SettableClock) -> None:
    until = clock.now() + timedelta(seconds=1200)
    task = asyncio.create_task(runner_with(clock).execute(waiting("plain", until=until), run_id="r"))
    for shift in (-HOUR, 600.0, -2 * HOUR, 0.1, 0.0, 600.0):
        await anyio.sleep(60)
        clock.shift = shift
    await task
    assert anyio.current_time() == pytest.approx(600, abs=2)


async def test_a_clock_that_is_slewed_is_followed(clock: SettableClock) -> None:
    until = clock.now() + timedelta(seconds=1000)
    task = asyncio.create_task(runner_with(clock).execute(waiting("plain", until=until), run_id="r"))
    for _ in range(500):
        await anyio.sleep(1)
        clock.shift += 1
    await task
    assert anyio.current_time() == pytest.approx(500, abs=2)


@pytest.mark.parametrize(("shift", "lasts"), [(0.0, 60), (-HOUR, 100), (50.0, 10), (HOUR, 0)])
async def test_after_a_restart_the_stored_moment_counts_but_never_more_than_the_seconds(
    clock: SettableClock, shift: float, lasts: float
) -> None:
    store, flow = MemoryRunStore(), waiting("plain", 100)
    first = runner_with(clock, store)
    task = asyncio.create_task(first.execute(flow, run_id="r"))
    await anyio.sleep(40)
    await first.stop("r")
    await task
    clock.shift = shift
    began = anyio.current_time()
    result = await runner_with(clock, store).resume("r", workflow=flow)
    assert result.status == "completed"
    assert anyio.current_time() - began == pytest.approx(lasts, abs=0.1)


async def test_a_retry_of_a_map_continues_the_wait_of_an_item(clock: SettableClock) -> None:
    failed = False

    async def fails_once(context: WorkflowContext, config: Config) -> object:
        nonlocal failed
        if context.params["item"] == 1 or failed:
            return None
        await anyio.sleep(10)
        failed, clock.shift = True, -HOUR
        return StepResult.fail("broken", "TRANSIENT")

    choice = Step.choice("which", lambda context: context.params["item"] == 1, "pause", "fails")
    iterator = Workflow(steps=[choice, Step.wait("pause", 100), Step.lambda_("fails", fails_once)])
    retry = RetryPolicy(max_attempts=2, initial_delay=1, jitter=False)
    step = Step.map("each", items=[0, 1], iterator=iterator, retry=retry)
    result = await runner_with(clock).execute(Workflow("w", [step]))
    assert result.status == "completed"
    assert anyio.current_time() == pytest.approx(100, abs=0.1)


async def sets_the_clock_back(clock: SettableClock, seconds: float) -> None:
    await anyio.sleep(1.5)
    clock.shift -= seconds
    await anyio.sleep(1)


@pytest.mark.parametrize("ends", ["completed", "failed", "stopped", "cancelled"])
async def test_no_duration_is_negative_and_no_end_precedes_its_start(clock: SettableClock, ends: str) -> None:
    async def step(context: WorkflowContext, config: Config) -> object:
        await sets_the_clock_back(clock, HOUR)
        if ends == "failed":
            raise ValueError("broken")
        if ends == "cancelled":
            await runner.stop("r")
            await anyio.sleep(1)
        return StepResult.stop("enough") if ends == "stopped" else {}

    runner = runner_with(clock)
    steps = [Step.lambda_("before", nothing), Step.map("each", items=[1], iterator=step), Step.lambda_("own", step)]
    result = await runner.execute(Workflow("w", steps[:1] + steps[2:] if ends != "completed" else steps), run_id="r")
    assert result.status == ("stopped" if ends == "cancelled" else ends)
    assert result.duration_ms == pytest.approx(5000 if ends == "completed" else 2500, abs=5)
    assert result.completed_at >= result.started_at
    assert all(each.duration_ms >= 0 for each in result.step_metrics)
    record = await runner.get_run("r")
    assert record.completed_at is not None
    assert record.created_at <= record.started_at <= record.completed_at <= record.updated_at
    times = [event.timestamp async for event in runner.events("r")]
    assert min(times) >= record.started_at
    assert max(times) <= record.completed_at
    again = await runner.execute(Workflow("w", steps if ends == "completed" else steps[:1] + steps[2:]), run_id="r")
    assert again.duration_ms >= 0


async def test_a_resume_after_the_clock_was_set_back(clock: SettableClock) -> None:
    store = MemoryRunStore()
    fails = [True]

    async def step(context: WorkflowContext, config: Config) -> None:
        await anyio.sleep(2)
        if fails.pop() if fails else False:
            raise ValueError("broken")

    flow = Workflow("w", [Step.lambda_("step", step)])
    await runner_with(clock, store).execute(flow, run_id="r")
    clock.shift = -HOUR
    result = await runner_with(clock, store).resume("r", workflow=flow)
    assert result.completed_at >= result.started_at
    assert 2000 <= result.duration_ms < 5000
    record = await runner_with(clock, store).get_run("r")
    assert record.completed_at is not None
    assert record.started_at <= record.completed_at <= record.updated_at


class TestOnADatabase:
    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    async def test_stored_rows_do_not_end_before_they_start(self, tmp_path: Path) -> None:
        clock = ShiftedClock()

        async def step(context: WorkflowContext, config: Config) -> None:
            clock.shift -= HOUR

        config = WorkflowRunnerConfig(database_url=f"sqlite:///{tmp_path}/runs.db")
        runner = WorkflowRunner(config=config, clock=clock)
        steps = [Step.lambda_("a", step), Step.map("each", items=[1, 2], iterator=step), Step.wait("pause", 0.01)]
        result = await runner.execute(Workflow("w", steps), run_id="r")
        assert result.status == "completed"
        assert result.duration_ms >= 0
        connection = sqlite3.connect(tmp_path / "runs.db")
        assert connection.execute(
            "SELECT count(*) FROM core_workflow_runs WHERE completed_at < started_at"
        ).fetchone() == (0,)
        assert connection.execute(
            "SELECT count(*) FROM core_workflow_runs WHERE updated_at < started_at"
        ).fetchone() == (0,)
        stamps = connection.execute("SELECT timestamp FROM core_workflow_events ORDER BY seq").fetchall()
        assert stamps == sorted(stamps)
        connection.close()

    @pytest.mark.parametrize("shift", [-HOUR, HOUR])
    async def test_a_lease_neither_ends_nor_lasts_longer(self, tmp_path: Path, shift: float) -> None:
        clock = ShiftedClock()
        begun, release = anyio.Event(), anyio.Event()

        async def step(context: WorkflowContext, config: Config) -> None:
            begun.set()
            await release.wait()

        config = WorkflowRunnerConfig(database_url=f"sqlite:///{tmp_path}/runs.db", lease_ttl=60)
        flow = Workflow("w", [Step.lambda_("a", step)])
        runner, other = (
            WorkflowRunner(config=config, clock=clock),
            WorkflowRunner(config=config, clock=clock, workflows=[flow]),
        )
        task = asyncio.create_task(runner.execute(flow, run_id="r"))
        await begun.wait()
        clock.shift = shift
        assert await other.recover() == []
        release.set()
        assert (await task).status == "completed"


class ShiftedClock:
    """The clocks of the host, with a wall clock that can be set."""

    def __init__(self) -> None:
        self.shift = 0.0
        self._clock = SystemClock()

    def now(self) -> datetime:
        return self._clock.now() + timedelta(seconds=self.shift)

    def monotonic(self) -> float:
        return self._clock.monotonic()
