"""After an outage of the store nobody takes over a run whose owner has not yet had the time to renew its lease."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import anyio
import pytest

from spine_async import Step, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig
from spine_async._engine.start import owner as owners
from spine_async._engine.state.reachability import Reachability
from spine_async._model.due import DueRequest, DueRun, Sweep
from spine_async._model.run_change import Release
from spine_async._model.run_claim import Claim, Renewal
from spine_async.errors import RunBusyError, StoreUnavailableError
from spine_async.storage import MemoryRunStore
from spine_async.testing.conformance.rows import created, new_run

TTL = 1.2
FLOW = Workflow("flow", [Step.lambda_("step", lambda context, config: None)], version=3)


class Store(MemoryRunStore):
    """A store that can be away."""

    is_away = False

    async def sweep(
        self, gone: Collection[str] = (), lapsed: Collection[str] = (), spared: Collection[str] = ()
    ) -> Sweep:
        self._check()
        return await super().sweep(gone, lapsed, spared)

    async def claim_due(self, request: DueRequest) -> list[DueRun]:
        self._check()
        return await super().claim_due(request)

    async def release_run(self, claim: Claim, release: Release) -> bool:
        self._check()
        return await super().release_run(claim, release)

    async def renew(self, claims: Sequence[Claim], ttl: float) -> list[Renewal]:
        self._check()
        return await super().renew(claims, ttl)

    def _check(self) -> None:
        if self.is_away:
            raise StoreUnavailableError("the test's store is away")


def _runner(store: Store, **options: Any) -> WorkflowRunner:
    return WorkflowRunner(
        store=store, workflows=[FLOW], config=WorkflowRunnerConfig(lease_ttl=TTL, poll_interval=0.05), **options
    )


async def _abandoned(store: Store, owner: str) -> None:
    """A run whose lease has ended."""
    await created(store, replace(new_run("run-1", workflow="flow", ttl=0.0), owner=owner, start_from=None))


@pytest.fixture
def living_process() -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield process.pid
    process.communicate()


def _owner_in(pid: int) -> str:
    return f"{owners._host()}/{pid}/{owners._started(pid)}/0a0b0c0d"


@pytest.mark.allow_blocking
class TestTakeOver:
    async def test_recovery_waits_for_one_lease_after_an_outage(self) -> None:
        store = Store()
        await _abandoned(store, "elsewhere/1/1/x")
        runner = _runner(store)
        store.is_away = True
        with pytest.raises(StoreUnavailableError):
            await runner.recover()
        store.is_away = False
        assert await runner.recover() == []
        with pytest.raises(RunBusyError):
            await runner.resume("run-1")
        await anyio.sleep(TTL + 0.05)
        (result,) = await runner.recover()
        assert result.status == "completed"

    async def test_a_living_owner_on_this_host_keeps_its_run(self, living_process: int) -> None:
        store = Store()
        await _abandoned(store, _owner_in(living_process))
        assert await _runner(store).recover() == []

    async def test_an_owner_whose_process_is_gone_is_not_waited_for(self) -> None:
        store = Store()
        await _abandoned(store, f"{owners._host()}/{2**22 + 1}/1/x")  # beyond the largest process id
        runner = _runner(store)
        store.is_away = True
        with pytest.raises(StoreUnavailableError):
            await runner.recover()
        store.is_away = False
        (result,) = await runner.recover()
        assert result.status == "completed"

    async def test_regular_rounds_wait_likewise(self) -> None:
        store = Store()
        await _abandoned(store, "elsewhere/1/1/x")
        store.is_away = True
        async with _runner(store):
            await anyio.sleep(0.2)
            store.is_away = False
            began = anyio.current_time()
            with anyio.fail_after(10):
                while (stored := await store.load("run-1")) is None or stored.status != "completed":  # noqa: ASYNC110
                    await anyio.sleep(0.01)
        assert anyio.current_time() - began >= TTL


async def test_a_run_that_its_owner_gave_up_is_released_once_the_store_is_back() -> None:
    store, begun = Store(), anyio.Event()

    async def sleep(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        begun.set()
        await anyio.sleep(60)

    flow = Workflow("flow", [Step.lambda_("step", sleep)])
    async with _runner(store, work=False) as runner:
        store.is_away = True
        with pytest.raises(Exception, match="could not be renewed"):
            await runner.execute(flow, run_id="r")
        stored = await store.load("r")
        assert stored is not None
        assert stored.owner is not None
        store.is_away = False
        with anyio.fail_after(10):
            while (stored := await store.load("r")) is None or stored.owner is not None:  # noqa: ASYNC110
                await anyio.sleep(0.01)
    assert (await _runner(store).recover())[0].status == "completed"


@pytest.mark.allow_blocking
class TestLiveness:
    def test_another_process_of_this_host(self, living_process: int) -> None:
        assert owners.is_alive(_owner_in(living_process))

    def test_another_start_time(self, living_process: int) -> None:
        assert not owners.is_alive(f"{owners._host()}/{living_process}/1/x")

    def test_a_suspended_process(self, living_process: int) -> None:
        os.kill(living_process, 19)
        try:
            os.waitid(os.P_PID, living_process, os.WSTOPPED | os.WNOWAIT)
            assert not owners.is_alive(_owner_in(living_process))
        finally:
            os.kill(living_process, 18)

    @pytest.mark.parametrize("owner", ["", "x", "elsewhere/1/1/x", f"{owners._host()}/-1/1/x"])
    def test_anything_else_proves_nothing(self, owner: str) -> None:
        assert not owners.is_alive(owner)


def test_a_slow_answer_counts_as_a_return() -> None:
    reachability = Reachability()
    reachability.answered(0.0, 0.1)
    assert reachability.has_returned_for(5.0, 0.2)
    reachability.answered(6.0, 9.0)
    assert not reachability.has_returned_for(5.0, 13.9)
    assert reachability.has_returned_for(5.0, 14.0)
