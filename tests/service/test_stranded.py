"""Runs that a living runner holds and does not execute: it continues them by itself once their leases have ended."""

from __future__ import annotations

import asyncio
import threading

import anyio
import pytest

from spine_async import RunStatus, Step, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig
from spine_async.errors import StoreError
from spine_async.ports import RunStore
from spine_async.storage import MemoryRunStore, SqlRunStore
from spine_async.testing import FaultInjectingStore
from tests.service.flows import Config
from tests.service.services import until

LEASE = 1.0


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest) -> FaultInjectingStore:
    if request.param == "memory":
        return FaultInjectingStore(MemoryRunStore())
    name = "sqlite_url" if request.param == "sqlite" else "cleared_postgres_url"
    return FaultInjectingStore(SqlRunStore.from_url(request.getfixturevalue(name)))


def entered(store: RunStore, flow: Workflow, **config: float) -> WorkflowRunner:
    chosen = WorkflowRunnerConfig(**{"lease_ttl": LEASE, "poll_interval": 0.05, "trace_enabled": False, **config})
    return WorkflowRunner(store=store, config=chosen, workflows=[flow])


class Blocking:
    """A workflow whose step blocks its thread until `ends` is set; `begun` has an entry for each attempt."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ends = threading.Event()
        self.flow = Workflow("flow", [Step.lambda_("step", self._step)])

    def _step(self, context: WorkflowContext, config: Config) -> None:
        self.begun.append(1)
        self.ends.wait(20)


async def test_a_claim_whose_answer_is_lost(store: FaultInjectingStore) -> None:
    begun: list[int] = []

    async def step(context: WorkflowContext, config: Config) -> None:
        begun.append(1)

    flow = Workflow("flow", [Step.lambda_("step", step)])
    handle = await entered(store, flow).enqueue(flow)
    store.fail("claim_due", moment="after")
    async with entered(store, flow) as runner:
        assert (await runner.handle(handle.run_id).result(timeout=15)).status == "completed"
    assert begun == [1]


async def test_a_run_that_a_producer_has_created_without_an_answer(store: FaultInjectingStore) -> None:
    """The producer does not work and lives on. It gives the run up, and a worker executes it."""
    begun: list[int] = []

    async def step(context: WorkflowContext, config: Config) -> None:
        begun.append(1)

    flow = Workflow("flow", [Step.lambda_("step", step)])
    chosen = WorkflowRunnerConfig(lease_ttl=LEASE, trace_enabled=False)
    store.fail("create", moment="after")
    async with WorkflowRunner(store=store, config=chosen, work=False) as producer:
        with pytest.raises(StoreError):
            await producer.execute(flow, run_id="r")
        async with entered(store, flow):
            assert (await producer.result("r", timeout=20)).status == "completed"
    assert begun == [1]


async def test_a_step_that_a_shutdown_left_behind_is_not_repeated_while_it_is_at_work(
    store: FaultInjectingStore,
) -> None:
    blocking = Blocking()
    runner = entered(store, blocking.flow, drain_timeout=0, cancel_grace=0.1)
    async with runner:
        handle = await runner.start(blocking.flow)
        await until(lambda: blocking.begun)
    async with runner:
        renewals, sweeps = store.calls["renew"], store.calls["sweep"]
        await until(lambda: store.calls["renew"] > renewals + 3 and store.calls["sweep"] > sweeps + 3)
        assert (await handle.status(), blocking.begun) == (RunStatus.RUNNING, [1])
        blocking.ends.set()
        assert (await handle.result(timeout=15)).status == "completed"
    assert blocking.begun == [1, 1]


async def test_a_run_that_was_left_behind_is_released_although_the_commit_of_its_release_fails(
    store: FaultInjectingStore,
) -> None:
    blocking = Blocking()
    runner = entered(store, blocking.flow, drain_timeout=0, cancel_grace=0.1)
    async with runner:
        handle = await runner.start(blocking.flow)
        await until(lambda: blocking.begun)
    for call in range(1, 11):
        store.fail("commit", call=store.calls["commit"] + call, error=StoreError("injected"))
    blocking.ends.set()
    await until(lambda: runner._active_runs.place is None)  # the store is closed after the release
    assert store.calls["release_run"] == 1
    async with WorkflowRunner(store=store, work=False):  # it closes the store
        run = await store.load(handle.run_id)
    assert run is not None
    assert (run.status, run.owner) == (RunStatus.PENDING, None)


def test_a_thread_of_an_event_loop_that_has_ended_is_waited_for_in_another_loop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In memory, because a loop that ends cancels calls of a database, and leaves connections open."""
    store, begun, ends = FaultInjectingStore(MemoryRunStore()), list[int](), threading.Event()

    def step(context: WorkflowContext, config: Config) -> None:
        begun.append(1)
        ends.wait(20)

    flow = Workflow("flow", [Step.lambda_("step", step)])
    runner = entered(store, flow, drain_timeout=0, cancel_grace=0.1)

    async def begin() -> None:
        async with runner:
            await runner.start(flow, run_id="r")
            await until(lambda: begun)

    async def go_on() -> None:
        async with runner:
            await until(has_lapsed)
            sweeps = store.calls["sweep"]
            await until(lambda: store.calls["sweep"] > sweeps + 3)
            assert begun == [1]
            ends.set()
            assert (await runner.handle("r").result(timeout=15)).status == "completed"

    async def has_lapsed() -> bool:
        (state,) = await store.states(["r"])
        return not state.is_leased

    asyncio.run(begin())
    assert "keeps its owner" in caplog.text
    asyncio.run(go_on())
    assert begun == [1, 1]


async def test_a_run_that_others_have_stopped_is_resumed_while_it_is_still_executed_here(
    store: FaultInjectingStore,
) -> None:
    """Its owner has not noticed yet that it has lost the run."""
    begun: list[int] = []
    goes_on = anyio.Event()

    async def step(context: WorkflowContext, config: Config) -> None:
        begun.append(1)
        await goes_on.wait()

    flow = Workflow("flow", [Step.lambda_("step", step)])
    with anyio.fail_after(20):
        async with entered(store, flow, lease_ttl=60.0) as runner:
            handle = await runner.start(flow)
            await until(lambda: begun)
            found = await store.load(handle.run_id)
            assert found is not None
            await store.claim(handle.run_id, "another", None, ttl=0.0, over_epoch=found.epoch)
            assert await entered(store, flow).stop(handle.run_id, "enough") is True
            assert await handle.status() == RunStatus.STOPPED
            resumed = await runner.resume_in_background(handle.run_id)
            goes_on.set()
            assert (await resumed.result()).status == "completed"
    assert begun == [1, 1]
