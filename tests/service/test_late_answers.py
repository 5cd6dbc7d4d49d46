"""Answers of the store that arrive late: after a stop, a resume, a cancellation, or the end of the run."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from spine_async import Event, RunBusyError, RunStatus, Step, Workflow, WorkflowContext, WorkflowRunner
from spine_async._engine.runtime.changes import Change, Changes
from spine_async._engine.runtime.plain_due_runs import PlainDueRuns
from spine_async._engine.service import watcher
from spine_async.storage import MemoryRunStore
from spine_async.testing import FaultInjectingStore
from tests.service.flows import Config
from tests.service.late import Failing, answer, cancel_before, is_cancelled, late_runner, spawn
from tests.service.services import until
from tests.service.test_starting import Gated


async def stored_status(store: FaultInjectingStore, run_id: str) -> str | None:
    found = await store.load(run_id)
    return found.status if found is not None else None


class TestNotices:
    async def test_a_stop_of_the_execution_before_does_not_stop_the_resumed_run(
        self,
        store: FaultInjectingStore,
    ) -> None:
        gated = Gated()
        async with late_runner(store, gated.flow) as runner:
            await runner.start(gated.flow, run_id="other")  # so that the watcher goes on
            await runner.start(gated.flow, run_id="r")
            await until(lambda: len(gated.begun) == 2)
            call = store.calls["notices"] + 1
            before, after = store.hang("notices", call=call), store.hang("notices", call=call, moment="after")
            await before.reached.wait()
            await store.request_stop("r", "earlier")  # as another process does
            before.release.set()
            await after.reached.wait()
            assert await runner.stop("r", "now") is True
            await until(lambda: stored_is(store, "r", RunStatus.STOPPED))
            handle = await runner.resume_in_background("r")
            await until(lambda: len(gated.begun) == 3)
            after.release.set()
            await until(lambda: store.calls["notices"] > call)
            assert await handle.status() == RunStatus.RUNNING
            gated.gate.set()
            assert (await handle.result(timeout=15)).status == "completed"

    async def test_a_change_during_a_read_is_read_at_once(
        self,
        store: FaultInjectingStore,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Otherwise a stop is noticed at the next check, a quarter of a second later; here it is a minute."""
        monkeypatch.setattr(watcher, "CHECK_INTERVAL", 60.0)
        gated = Gated()
        async with late_runner(store, gated.flow, lease_ttl=3600.0, poll_interval=60.0) as runner:
            handle = await runner.start(gated.flow, run_id="r")
            await until(lambda: gated.begun)
            hang = store.hang("notices", call=store.calls["notices"] + 1, moment="after")
            runner._runtime.changes.notify(Change.NOTICE)
            await hang.reached.wait()
            await store.request_stop("r", "enough")
            runner._runtime.changes.notify(Change.NOTICE)
            await asyncio.sleep(0)
            hang.release.set()
            assert (await handle.result(timeout=15)).stop_reason == "enough"


@pytest.mark.allow_blocking  # the test blocks the loop, so that both timers are due at once
async def test_a_change_in_the_moment_in_which_the_wait_ends_is_reported() -> None:
    changes, loop = Changes(PlainDueRuns(MemoryRunStore())), asyncio.get_running_loop()
    waiting = spawn(changes.wait(Change.NOTICE, 0.01, changes.count(Change.NOTICE)))
    await asyncio.sleep(0)
    loop.call_later(0.02, changes.notify, Change.NOTICE)
    loop.call_soon(time.sleep, 0.05)
    assert await answer(waiting) is True


async def stored_is(store: FaultInjectingStore, run_id: str, status: str) -> bool:
    return await stored_status(store, run_id) == status


class TestClaimsOfTheWorker:
    """The answer to the worker's claim arrives after this runner has claimed the run in another call."""

    async def test_a_stop_meanwhile_is_final(self, store: FaultInjectingStore) -> None:
        gated = Gated()
        hang = store.hang("claim_due", moment="after")
        handle = await late_runner(store, gated.flow).enqueue(gated.flow)
        async with late_runner(store, gated.flow, work=True) as runner:
            await hang.reached.wait()
            assert await runner.stop(handle.run_id, "enough") is True
            hang.release.set()
            await until(lambda: store.calls["claim_due"] >= 3)
            assert gated.begun == []
            assert (await handle.record()).stop_reason == "enough"
            resumed = await runner.resume_in_background(handle.run_id)
            gated.gate.set()
            assert (await resumed.result(timeout=15)).status == "completed"
        assert len(gated.begun) == 1

    @pytest.mark.parametrize("verb", ["execute", "resume"])
    async def test_a_run_that_was_executed_meanwhile_is_not_executed_again(
        self,
        store: FaultInjectingStore,
        verb: str,
    ) -> None:
        failing = Failing()
        hang = store.hang("claim_due", moment="after")
        await late_runner(store, failing.flow).enqueue(failing.flow, run_id="r")
        async with late_runner(store, failing.flow, work=True) as runner:
            await hang.reached.wait()
            call = runner.execute(failing.flow, run_id="r") if verb == "execute" else runner.resume("r")
            assert (await answer(spawn(call))).status == "failed"
            hang.release.set()
            await until(lambda: store.calls["claim_due"] >= 3)
            await until(lambda: runner._active_runs.find("r") is None)
        assert failing.begun == ["r"]

    async def test_an_execution_that_has_begun_ends_when_a_stop_has_claimed_its_run(
        self,
        store: FaultInjectingStore,
    ) -> None:
        """The store has answered the claim of the stop last, and this answer arrives last."""
        gated = Gated()
        claimed = store.hang("claim_due", moment="after")
        handle = await late_runner(store, gated.flow).enqueue(gated.flow)
        async with late_runner(store, gated.flow, work=True) as runner:
            await claimed.reached.wait()
            stopped = store.hang("claim", moment="after")
            stop = spawn(runner.stop(handle.run_id, "enough"))
            await stopped.reached.wait()
            claimed.release.set()
            await until(lambda: gated.begun)
            stopped.release.set()
            assert await answer(stop) is True
            await until(lambda: runner._active_runs.find(handle.run_id) is None)
            assert (await handle.record()).stop_reason == "enough"
        assert gated.ended == []


class TestStops:
    async def test_a_run_that_a_call_could_not_open_is_stopped(self, store: FaultInjectingStore) -> None:
        """The call has just found that the run is not due yet, so nobody executes it."""
        gated = Gated()
        async with late_runner(store, gated.flow) as runner:
            await runner.enqueue(gated.flow, run_id="r", delay=3600)
            hang = store.hang("load", call=store.calls["load"] + 1)
            executed = spawn(runner.execute(gated.flow, run_id="r"))
            await hang.reached.wait()
            requests = store.calls["request_stop"]
            stopped = spawn(runner.stop("r", "enough"))
            await until(lambda: store.calls["request_stop"] > requests)
            hang.release.set()
            assert await answer(stopped) is True
            assert (await runner.get_run("r")).stop_reason == "enough"
            assert (await answer(executed)).stop_reason == "enough"

    async def test_a_claim_between_the_request_and_its_check_does_not_lose_it(
        self,
        store: FaultInjectingStore,
    ) -> None:
        """A claim clears an earlier request. The claimer has loaded the run before this one was stored."""
        gated = Gated()
        async with late_runner(store, gated.flow) as runner, late_runner(store, gated.flow) as other:
            await runner.enqueue(gated.flow, run_id="r")
            call = store.calls["claim"] + 1
            claimed, stops = store.hang("claim", call=call), store.hang("claim", call=call + 1)
            executed = spawn(runner.execute(gated.flow, run_id="r"))
            await claimed.reached.wait()
            stopped = spawn(other.stop("r", "enough"))
            await stops.reached.wait()
            claimed.release.set()
            await until(lambda: gated.begun)
            stops.release.set()
            assert await answer(stopped) is True
            assert (await answer(executed)).stop_reason == "enough"


class TestCancelledCalls:
    async def test_a_stop_that_is_cancelled_leaves_no_run_without_an_executor(
        self,
        store: FaultInjectingStore,
    ) -> None:
        gated = Gated()
        async with late_runner(store, gated.flow) as runner:
            await runner.enqueue(gated.flow, run_id="r")
            hang = store.hang("claim", moment="after")
            stop = spawn(runner.stop("r", "enough"))
            await hang.reached.wait()
            stop.cancel()
            await asyncio.sleep(0)
            hang.release.set()
            assert await is_cancelled(stop)
            assert (await runner.get_run("r")).stop_reason == "enough"

    async def test_a_round_of_recovery_that_is_cancelled_executes_what_it_has_claimed(
        self, store: FaultInjectingStore
    ) -> None:
        gated = Gated()
        async with late_runner(store, gated.flow) as runner:
            await runner.enqueue(gated.flow, run_id="r")
            hang = store.hang("claim_due", moment="after")
            recovery = spawn(runner.recover())
            await hang.reached.wait()
            recovery.cancel()
            await asyncio.sleep(0)
            hang.release.set()
            assert await is_cancelled(recovery)
            gated.gate.set()
            assert (await runner.handle("r").result(timeout=15)).status == "completed"

    async def test_a_cancelled_wait_for_a_result_leaves_no_call_of_the_store(self, store: FaultInjectingStore) -> None:
        """The store is closed after the call, and a read that ended later would leave its connection open."""
        gated = Gated()
        async with late_runner(store, gated.flow) as producer:
            await producer.enqueue(gated.flow, run_id="r")
        waiting = spawn(late_runner(store, gated.flow).handle("r").result())  # a runner that is not entered
        await until(lambda: store.calls["states"] > 2)
        hang = store.hang("states", call=store.calls["states"] + 1)
        await hang.reached.wait()
        waiting.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
        calls = store.calls["close"]
        hang.release.set()
        assert await is_cancelled(waiting)
        assert (calls, store.calls["close"]) == (1, 2)  # the first one is the producer's

    async def test_leaving_the_runner_passes_a_cancellation_on(self, store: FaultInjectingStore) -> None:
        gated = Gated()
        hang = store.hang("claim_due")
        has_passed: list[int] = []

        async def use() -> None:
            async with late_runner(store, gated.flow, work=True):
                await hang.reached.wait()
            has_passed.append(1)

        task = spawn(use())
        await hang.reached.wait()
        await cancel_before(task, hang)
        assert await is_cancelled(task)
        assert not has_passed

    async def test_leaving_a_follower_passes_a_cancellation_on(self, store: FaultInjectingStore) -> None:
        gated = Gated()
        has_passed: list[Event] = []

        async def read(runner: WorkflowRunner) -> None:
            async for event in runner.events("r", follow=True):
                has_passed.append(event)  # noqa: PERF401
            has_passed.clear()

        async with late_runner(store, gated.flow) as runner:
            handle = await runner.start(gated.flow, run_id="r")
            hang = store.hang("states", call=store.calls["states"] + 1)
            task = spawn(read(runner))
            await hang.reached.wait()
            await until(lambda: has_passed)
            gated.gate.set()
            await until(lambda: stored_is(store, "r", RunStatus.COMPLETED))
            await until(lambda: has_passed[-1].event_type == "workflow_completed")
            await cancel_before(task, hang)
            assert await is_cancelled(task)
            assert has_passed
            assert (await handle.result(timeout=15)).status == "completed"


async def test_two_exits_at_once_end_with_the_last_step(store: FaultInjectingStore) -> None:
    """The second begins while the first one waits for the step; neither waits for `drain_timeout`."""
    gated, leaves = Gated(), asyncio.Event()
    runner = late_runner(store, gated.flow, drain_timeout=60.0)

    async def use() -> None:
        async with runner:
            await runner.start(gated.flow, run_id="r")
            await leaves.wait()

    async def use_shortly() -> None:
        async with runner:
            pass

    first = spawn(use())
    await until(lambda: gated.begun)
    leaves.set()
    await until(lambda: runner._runtime.is_draining)
    second = spawn(use_shortly())
    for _ in range(10):
        await asyncio.sleep(0)
    gated.gate.set()
    assert [await answer(first), await answer(second)] == [None, None]
    assert not runner._runtime.is_draining


class TestRunsThatAreLeftBehind:
    """A step did not end when the runner was left, and is still at work."""

    async def test_no_call_of_this_runner_executes_it_again(self, store: FaultInjectingStore) -> None:
        begun, ends = list[int](), threading.Event()

        def step(context: WorkflowContext, config: Config) -> None:
            begun.append(1)
            ends.wait(20)

        flow = Workflow("flow", [Step.lambda_("step", step)])
        runner = late_runner(store, flow, work=True, drain_timeout=0, cancel_grace=0.1)
        async with runner:
            await runner.start(flow, run_id="r")
            await until(lambda: begun)
        async with runner:
            assert isinstance(await answer(spawn(runner.resume("r"))), RunBusyError)
            assert isinstance(await answer(spawn(runner.resume_in_background("r"))), RunBusyError)
            executed = spawn(runner.execute(flow, run_id="r"))
            await until(lambda: store.calls["states"] > 2)
            assert begun == [1]
            ends.set()
            assert (await answer(executed)).status == "completed"
        assert begun == [1, 1]
