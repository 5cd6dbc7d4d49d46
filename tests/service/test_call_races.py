"""Calls for one run at the same moment: each gets its own answer, whatever becomes of the call that it met."""

from __future__ import annotations

import asyncio

import pytest

from spine_async import (
    RunConflictError,
    RunStatus,
    WorkflowRunner,
)
from spine_async.errors import RunNotResumableError, SerializationError, SpineError, StoreError
from spine_async.testing import FaultInjectingStore
from tests.service.late import Failing, answer, is_cancelled, late_runner, spawn
from tests.service.services import until
from tests.service.test_starting import Gated


class TestACallMeetsOneThatCannotOpenTheRun:
    """The other call is about to fail for a reason of its own."""

    async def test_the_id_belongs_to_the_second_request(self, store: FaultInjectingStore) -> None:
        gated = Gated()
        gated.gate.set()
        async with late_runner(store, gated.flow) as runner:
            await runner.execute(gated.flow, params={"size": 2}, run_id="r")
            hang = store.hang("create", call=store.calls["create"] + 1)
            first = spawn(runner.execute(gated.flow, params={"size": 3}, run_id="r"))
            await hang.reached.wait()
            second = spawn(runner.execute(gated.flow, params={"size": 2}, run_id="r"))
            third = spawn(runner.start(gated.flow, params={"size": 2}, run_id="r"))
            await asyncio.sleep(0)
            hang.release.set()
            assert isinstance(await answer(first), RunConflictError)
            assert (await answer(second)).context.get_output("gated", "size") == 2
            assert (await answer(third)).run_id == "r"
        assert gated.begun == ["r"]

    @pytest.mark.parametrize("verb", ["execute", "start"])
    async def test_the_run_is_not_stored(self, store: FaultInjectingStore, verb: str) -> None:
        gated = Gated()
        gated.gate.set()
        async with late_runner(store, gated.flow) as runner:
            first = spawn(runner.execute(gated.flow, params={"size": object()}, run_id="r"))
            second = spawn(getattr(runner, verb)(gated.flow, run_id="r"))
            assert isinstance(await answer(first), SerializationError)
            assert (await answer(second)).run_id == "r"
            assert (await runner.handle("r").result(timeout=15)).status == "completed"

    @pytest.mark.parametrize("verb", ["execute", "start"])
    async def test_both_get_the_error_of_the_store(self, store: FaultInjectingStore, verb: str) -> None:
        gated = Gated()
        store.fail("create", error=StoreError("injected"))
        async with late_runner(store, gated.flow) as runner:
            first = spawn(runner.execute(gated.flow, run_id="r"))
            second = spawn(getattr(runner, verb)(gated.flow, run_id="r"))
            assert str(await answer(first)) == "injected"
            assert str(await answer(second)) == "injected"

    async def test_params_of_a_resume_do_not_fit(self, store: FaultInjectingStore) -> None:
        """The run has ended, and the second call wants its result."""
        flow = Failing().flow
        async with late_runner(store, flow) as runner:
            await runner.execute(flow, run_id="r")
            hang = store.hang("load", call=store.calls["load"] + 1)
            first = spawn(runner.resume("r", params_override={1: 2}))  # type: ignore[dict-item]
            await hang.reached.wait()
            second = spawn(runner.execute(flow, run_id="r"))
            third = spawn(runner.result("r"))
            await asyncio.sleep(0)
            hang.release.set()
            assert isinstance(await answer(first), SpineError)
            assert (await answer(second)).status == "failed"
            assert (await answer(third)).status == "failed"

    async def test_the_run_has_completed_and_cannot_be_resumed(self, store: FaultInjectingStore) -> None:
        gated = Gated()
        gated.gate.set()
        async with late_runner(store, gated.flow) as runner:
            await runner.execute(gated.flow, run_id="r")
            hang = store.hang("load", call=store.calls["load"] + 1)
            first = spawn(runner.resume("r"))
            await hang.reached.wait()
            second = spawn(runner.execute(gated.flow, run_id="r"))
            third = spawn(runner.result("r"))
            await asyncio.sleep(0)
            hang.release.set()
            assert isinstance(await answer(first), RunNotResumableError)
            assert (await answer(second)).status == "completed"
            assert (await answer(third)).status == "completed"

    async def test_a_fork_whose_id_is_free_again(self, store: FaultInjectingStore) -> None:
        gated = Gated()
        gated.gate.set()
        async with late_runner(store, gated.flow) as runner:
            await runner.execute(gated.flow, run_id="r")
            first = spawn(runner.execute(Failing().flow, params={"size": object()}, run_id="f"))
            second = spawn(runner.fork("r", "gated", new_run_id="f"))
            assert isinstance(await answer(first), SerializationError)
            assert (await answer(second)).run_id == "f"
            assert (await runner.handle("f").result(timeout=15)).status == "completed"

    async def test_a_resume_waits_for_it_and_then_tries_itself(self, store: FaultInjectingStore) -> None:
        """The first call finds that the run cannot be claimed yet: it is not due."""
        gated = Gated()
        gated.gate.set()
        async with late_runner(store, gated.flow) as runner:
            await runner.enqueue(gated.flow, run_id="r", delay=2)
            hang = store.hang("load", call=store.calls["load"] + 1)
            first = spawn(runner.execute(gated.flow, run_id="r"))
            await hang.reached.wait()
            second = spawn(runner.resume_in_background("r"))
            await asyncio.sleep(0)
            hang.release.set()
            error = await answer(second)
            assert isinstance(error, RunConflictError)
            assert "not due" in str(error)
            assert (await answer(first)).status == "completed"


def callers_of(runner: WorkflowRunner) -> int:
    execution = runner._active_runs.find("r")
    return execution._callers if execution is not None else 0


class TestTheRunIsLost:
    """A call has joined an execution of its runner, which then finds that another runner has the run."""

    @pytest.mark.parametrize("how", ["start", "execute"])
    async def test_the_joined_call_waits_for_the_result(self, store: FaultInjectingStore, how: str) -> None:
        gated, other = Gated(), Gated()
        async with late_runner(store, gated.flow) as runner:
            first = spawn(getattr(runner, how)(gated.flow, run_id="r"))
            await until(lambda: gated.begun)
            second = spawn(runner.execute(gated.flow, run_id="r"))
            third = spawn(runner.result("r"))
            await until(lambda: callers_of(runner) == (1 if how == "start" else 2))
            run = await store.load("r")
            assert run is not None
            async with late_runner(store, other.flow) as next_runner:
                await store.claim("r", "other", None, ttl=0.0, over_epoch=run.epoch)
                resumed = spawn(next_runner.resume("r", workflow=other.flow))
                await until(lambda: other.begun)
                gated.gate.set()  # its commit is refused
                if how == "execute":
                    assert type(await answer(first)).__name__ == "LeaseLostError"
                other.gate.set()
                assert (await answer(resumed)).status == "completed"
                assert (await answer(second)).status == "completed"
                assert (await answer(third)).status == "completed"


class TestACallIsCancelledWhileTheRunIsOpened:
    """It stops the run only if `execute` has created it."""

    @pytest.mark.parametrize("verb", ["execute", "resume"])
    async def test_a_run_that_it_did_not_create(self, store: FaultInjectingStore, verb: str) -> None:
        gated = Gated()
        async with late_runner(store, gated.flow) as runner:
            await runner.enqueue(gated.flow, run_id="r")
            hang = store.hang("claim", moment="after")
            call = spawn(runner.execute(gated.flow, run_id="r") if verb == "execute" else runner.resume("r"))
            await hang.reached.wait()
            call.cancel()
            await asyncio.sleep(0)
            hang.release.set()
            assert await is_cancelled(call)
            await until(lambda: gated.begun)
            assert await runner.handle("r").status() == RunStatus.RUNNING
            gated.gate.set()
            assert (await runner.handle("r").result(timeout=15)).status == "completed"

    async def test_a_run_that_it_creates(self, store: FaultInjectingStore) -> None:
        gated = Gated()
        async with late_runner(store, gated.flow) as runner:
            hang = store.hang("create", moment="after")
            call = spawn(runner.execute(gated.flow, run_id="r"))
            await hang.reached.wait()
            call.cancel()
            await asyncio.sleep(0)
            hang.release.set()
            assert await is_cancelled(call)
            assert (await runner.get_run("r")).stop_reason == "cancelled"
        assert gated.begun == []
