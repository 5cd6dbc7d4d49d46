"""`stop` reaches a run anywhere."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from statistics import median

import anyio
import pytest

from spine_async import RunHandle, RunNotFoundError, RunStatus, Step, Workflow, WorkflowContext, WorkflowRunner
from tests.crash.conftest import Rows
from tests.service.conftest import StartService
from tests.service.flows import Config, Notes
from tests.service.places import Place
from tests.service.services import until
from tests.service.test_parking import is_parked

RARELY = {"poll_interval": 60.0}
SOON = 10.0
"""Seconds; far below the interval, so that no process has found the request by chance. W12 measures how soon it is."""
ROUNDS = 5


@pytest.fixture
async def observer(database: Place) -> AsyncIterator[WorkflowRunner]:
    """A runner of the test's own process that stops runs, and does not work."""
    async with database.runner(work=False, config=RARELY) as runner:
        yield runner


async def stopped(handle: RunHandle, reason: str = "enough") -> float:
    """Stop the run and check what is recorded; returns how long it took until the run had ended."""
    asked_at = time.perf_counter()
    assert await handle.stop(reason) is True
    result = await handle.result(timeout=20)
    took = time.perf_counter() - asked_at
    record = await handle.record()
    assert (result.status, result.stop_reason) == ("stopped", reason)
    assert (record.status, record.stop_reason, record.due_at) == ("stopped", reason, None)
    assert [event.event_type async for event in handle.events()][-1] == "workflow_stopped"
    assert await handle.stop("again") is False
    return took


async def test_stop_reaches_a_step_that_another_process_executes(
    service: StartService, observer: WorkflowRunner, notes: Notes
) -> None:
    await service(config=RARELY)
    took = []
    for number in range(ROUNDS):
        run = f"r{number}"
        handle = await observer.enqueue("gated", run_id=run)
        await until(lambda run=run: "gated" in notes.begun(run))
        took.append(await stopped(handle))
        (cancelled,) = notes.read(what="cancelled", run=run)
        assert cancelled["path"] == "gated"
    assert median(took) < SOON, took


@pytest.mark.parametrize("park_after", [0.0, 100_000.0], ids=["parked", "held"])
async def test_stop_reaches_a_run_that_waits_elsewhere(
    service: StartService, observer: WorkflowRunner, notes: Notes, park_after: float
) -> None:
    await service(config={"park_after": park_after, **RARELY})
    took = []
    for number in range(ROUNDS):
        handle = await observer.enqueue("long_wait", run_id=f"r{number}")
        await until(lambda handle=handle: is_parked(handle) if park_after == 0 else _waits(handle))
        took.append(await stopped(handle))
    assert median(took) < SOON, took


@pytest.mark.parametrize("worker", [True, False], ids=["with a worker", "without a worker"])
async def test_stop_reaches_runs_that_nobody_executes(
    service: StartService, observer: WorkflowRunner, notes: Notes, worker: bool
) -> None:
    if worker:
        await service(config=RARELY)
    took = [await stopped(await observer.enqueue("quick", run_id="delayed", delay=3_600))]
    took.append(await stopped(await observer.enqueue("nobody knows this", run_id="unknown")))
    took.append(await stopped(await observer.enqueue("quick", run_id="unlisted", queue="unlisted")))
    assert median(took) < SOON, took
    assert notes.read() == []


async def test_stop_of_a_parked_run_without_any_worker(
    service: StartService, observer: WorkflowRunner, notes: Notes
) -> None:
    process = await service(config={"park_after": 0, **RARELY})
    handle = await observer.enqueue("long_wait", run_id="r")
    await until(lambda: is_parked(handle))
    await process.kill()
    assert await stopped(handle) < SOON
    resumer = await service(config={"park_after": 0, **RARELY})
    resumer.post("resume", run_id="r")
    await until(lambda: _is_under_way(handle))
    assert await handle.stop() is True
    assert notes.begun("r") == ["first"]


async def _is_under_way(handle: RunHandle) -> bool:
    return await handle.status() in {RunStatus.RUNNING, RunStatus.WAITING}


async def test_stop_of_a_run_whose_owner_was_killed(
    service: StartService, observer: WorkflowRunner, notes: Notes, query: Callable[..., Rows]
) -> None:
    process = await service(config=RARELY)
    handle = await observer.enqueue("async", run_id="r")
    await until(lambda: notes.begun("r") == ["first", "hold"])
    await process.kill()
    await stopped(handle)
    await service(config=RARELY)
    later = await observer.enqueue("quick", run_id="later")
    await later.result(timeout=10)
    assert notes.begun("r") == ["first", "hold"]
    assert await handle.status() == RunStatus.STOPPED


async def test_stop_through_a_third_process(service: StartService, observer: WorkflowRunner, notes: Notes) -> None:
    owner, other = await service(), await service(work=False)
    _, answer = owner.post("execute", workflow="gated", run_id="r")
    await until(lambda: "gated" in notes.begun("r"))
    assert await other.ask("stop", run_id="r", reason="a third one says so") is True
    result = await answer
    assert (result["status"], result["stop_reason"]) == ("stopped", "a third one says so")
    assert await other.ask("stop", run_id="r") is False


async def test_stop_of_ended_and_unknown_runs(place: Place) -> None:
    async with place.runner(work=False) as runner:
        with pytest.raises(RunNotFoundError, match="nothing"):
            await runner.stop("nothing")
        handle = await runner.enqueue("quick", run_id="r")
        assert await runner.stop("r") is True
        assert (await handle.result(timeout=5)).stop_reason == "user"
        assert await runner.stop("r") is False


async def test_a_stopped_due_run_is_resumed_like_any_other(place: Place) -> None:
    begun: list[str] = []

    async def note(context: WorkflowContext, config: Config) -> None:
        begun.append("step")

    flow = Workflow("flow", [Step.lambda_("step", note)])
    async with place.runner(workflows=[flow]) as runner:
        handle = await runner.enqueue(flow, delay=3_600)
        assert await handle.stop() is True
        with anyio.fail_after(10):
            assert (await runner.resume(handle.run_id)).status == "completed"
    assert begun == ["step"]


async def _waits(handle: RunHandle) -> bool:
    return [event.event_type async for event in handle.events()].count("step_started") == 2
