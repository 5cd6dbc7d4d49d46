"""Ownership of runs: which runner may claim a run, and when."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import anyio
import pytest

from spine_async import RunBusyError, RunStatus, Step, Workflow, WorkflowContext, WorkflowRunner
from spine_async._model.due import DueRequest, DueRun
from spine_async.storage import MemoryRunStore
from spine_async.storage.packing import PackedVisits
from tests.cancellation.conftest import MakeRunner
from tests.cancellation.handlers import Sleeper

pytestmark = pytest.mark.anyio


def abandon(store: MemoryRunStore, run: str = "r") -> None:
    """End all leases, as after the death of the owner's machine."""
    store._runs[run].lease_end = 0.0


async def left_alone(make_runner: MakeRunner, store: MemoryRunStore, sleeper: Sleeper, runs: list[str]) -> None:
    """Leave runs in their second step, without an owner."""
    for run in runs:
        sleeper.started = anyio.Event()
        task = asyncio.create_task(make_runner(lease_ttl=3600).execute(sleeper.workflow(), run_id=run))
        await sleeper.started.wait()
        kept = store._runs[run]
        rows, events, state = list(kept.visits), list(kept.events), kept.change
        task.cancel()
        await asyncio.wait([task])
        # The owner could not record anything.
        kept.visits, kept.events, kept.change = PackedVisits(rows), events, state
        abandon(store, run)
    sleeper.sleeps = False
    sleeper.ran.clear()


async def test_a_run_owned_elsewhere_is_not_resumed(make_runner: MakeRunner) -> None:
    runner, other, sleeper = make_runner(lease_ttl=30), make_runner(), Sleeper()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: runner.execute(sleeper.workflow(), run_id="r"))
        await sleeper.started.wait()
        with pytest.raises(RunBusyError) as caught:
            await other.resume("r", workflow=sleeper.workflow())
        await runner.stop("r")
    error = caught.value
    assert error.owner == runner._runtime.owner
    assert error.lease_until is not None
    assert re.search(rf"executed by {re.escape(str(error.owner))}, whose lease ends at 20", str(error))
    assert sleeper.ran == ["first", "sleep"]


async def test_execute_awaits_a_run_that_is_owned_elsewhere(make_runner: MakeRunner) -> None:
    runner, other, sleeper = make_runner(lease_ttl=30), make_runner(), Sleeper()
    first = asyncio.create_task(runner.execute(sleeper.workflow(), run_id="r"))
    await sleeper.started.wait()
    second = asyncio.create_task(other.execute(sleeper.workflow(), run_id="r"))
    await anyio.sleep(100)
    assert not second.done()
    await runner.stop("r", "enough")
    stopped_at = anyio.current_time()
    for result in (await first, await second):
        assert (result.status, result.stop_reason, result.completed_steps) == ("stopped", "enough", ["first"])
    assert anyio.current_time() - stopped_at <= 1
    assert sleeper.ran == ["first", "sleep"]


async def test_execute_claims_a_run_whose_owner_dies_meanwhile(make_runner: MakeRunner, store: MemoryRunStore) -> None:
    sleeper = Sleeper()
    await left_alone(make_runner, store, sleeper, ["r"])
    store._runs["r"].lease_end = 1e6
    task = asyncio.create_task(make_runner().execute(sleeper.workflow(), run_id="r"))
    await anyio.sleep(100)
    assert (task.done(), sleeper.ran) == (False, [])
    abandon(store)
    assert (await task).status == "completed"
    assert sleeper.ran == ["sleep", "last"]


async def test_a_caller_that_awaits_a_run_owned_elsewhere_may_leave(make_runner: MakeRunner) -> None:
    runner, other, sleeper = make_runner(lease_ttl=30), make_runner(), Sleeper()
    first = asyncio.create_task(runner.execute(sleeper.workflow(), run_id="r"))
    await sleeper.started.wait()
    second = asyncio.create_task(other.execute(sleeper.workflow(), run_id="r"))
    await anyio.sleep(1)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    await anyio.sleep(1)
    assert ((await runner.get_run("r")).status, sleeper.reasons) == ("running", [])
    await runner.stop("r")
    await first


async def test_recover_by_hand(make_runner: MakeRunner, store: MemoryRunStore) -> None:
    sleeper = Sleeper()
    await left_alone(make_runner, store, sleeper, ["r", "s"])
    runner = make_runner([sleeper.workflow()])
    results = await runner.recover()
    assert sorted((each.run_id, each.status.value) for each in results) == [("r", "completed"), ("s", "completed")]
    assert sorted(sleeper.ran) == ["last", "last", "sleep", "sleep"]
    assert await runner.recover() == []


async def test_other_workflows_and_owned_runs_are_left_alone(make_runner: MakeRunner, store: MemoryRunStore) -> None:
    sleeper = Sleeper()
    await left_alone(make_runner, store, sleeper, ["r"])
    store._runs["r"].lease_end = float("inf")
    assert await make_runner([sleeper.workflow()]).recover() == []
    abandon(store)
    assert await make_runner([Workflow("other", [Step.wait("w", seconds=1)])]).recover() == []
    assert sleeper.ran == []


async def test_recover_at_the_start_and_regularly(make_runner: MakeRunner, store: MemoryRunStore) -> None:
    sleeper = Sleeper()
    await left_alone(make_runner, store, sleeper, ["r", "s"])
    store._runs["s"].lease_end = float("inf")
    async with make_runner([sleeper.workflow()], work=True, poll_interval=10) as runner:
        await anyio.sleep(1)
        assert (await runner.get_run("r")).status == "completed"
        assert (await runner.get_run("s")).status == "running"
        abandon(store, "s")
        await anyio.sleep(10)
        assert (await runner.get_run("s")).status == "completed"


async def test_recovery_limits_the_number_of_runs_at_once(make_runner: MakeRunner, store: MemoryRunStore) -> None:
    sleeper, most, now = Sleeper(), 0, 0
    await left_alone(make_runner, store, sleeper, [f"r{number}" for number in range(6)])

    async def count(context: WorkflowContext, config: Mapping[str, object]) -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await anyio.sleep(1)
        now -= 1

    steps = [Step.lambda_("first", count), Step.lambda_("sleep", count), Step.lambda_("last", count)]
    results = await make_runner([Workflow("sleepy", steps)], worker_concurrency=2).recover()
    assert (len(results), most) == (6, 2)


async def test_a_poison_run_ends_failed(make_runner: MakeRunner, store: MemoryRunStore) -> None:
    sleeper = Sleeper()
    await left_alone(make_runner, store, sleeper, ["r"])
    for number in range(3):
        claim = await store.claim("r", f"killed {number}", None, ttl=60)
        assert claim is not None
        abandon(store)
    runner = make_runner([sleeper.workflow()], max_claims=3)
    (result,) = await runner.recover()
    assert (result.status, result.error_step, sleeper.ran) == ("failed", "sleep", [])
    assert "poison run: it was claimed 3 times without finishing another step" in str(result.error)
    assert (await runner.resume("r")).status == "completed"  # an operator has fixed the cause


async def test_progress_resets_the_count_of_claims(make_runner: MakeRunner, store: MemoryRunStore) -> None:
    sleeper = Sleeper()
    await left_alone(make_runner, store, sleeper, ["r"])
    for number in range(2):
        await store.claim("r", f"killed {number}", None, ttl=60)
        abandon(store)
    assert [each.status for each in await make_runner([sleeper.workflow()], max_claims=3).recover()] == ["completed"]
    stored = await store.load("r")
    assert stored is not None
    assert stored.claims_since_progress == 0


class LooksAway:
    """A store in which a run ends after it was read and before it is claimed."""

    def __init__(self, store: MemoryRunStore, status: RunStatus) -> None:
        self._store = store
        self._status = status

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def claim(self, run_id: str, *given: Any, **named: Any) -> object:
        self._end(run_id)
        return await self._store.claim(run_id, *given, **named)

    async def claim_due(self, request: DueRequest) -> list[DueRun]:
        for run_id in self._store._runs:
            self._end(run_id)
        return await self._store.claim_due(request)

    def _end(self, run_id: str) -> None:
        kept = self._store._runs[run_id]
        if kept.run.owner is not None:
            ended = replace(kept.run, status=self._status, owner=None, completed_at=kept.run.updated_at)
            kept.stored, kept.change = ended, None


async def test_a_run_that_completes_while_it_is_claimed_gives_its_result(
    make_runner: MakeRunner, store: MemoryRunStore
) -> None:
    sleeper = Sleeper()
    await left_alone(make_runner, store, sleeper, ["r"])
    runner = WorkflowRunner(store=LooksAway(store, RunStatus.COMPLETED))  # type: ignore[arg-type]
    assert (await runner.execute(sleeper.workflow(), run_id="r")).status == "completed"
    assert sleeper.ran == []


@pytest.mark.parametrize("how", ["execute", "recover"])
async def test_a_run_that_stops_while_it_is_claimed_stays_stopped(
    make_runner: MakeRunner, store: MemoryRunStore, how: str
) -> None:
    sleeper = Sleeper()
    await left_alone(make_runner, store, sleeper, ["r"])
    runner = WorkflowRunner(store=LooksAway(store, RunStatus.STOPPED), workflows=[sleeper.workflow()])  # type: ignore[arg-type]
    if how == "execute":
        await runner.execute(sleeper.workflow(), run_id="r")
    else:
        await runner.recover()
    stored = await store.load("r")
    assert stored is not None
    assert (stored.status, sleeper.ran) == ("stopped", [])
