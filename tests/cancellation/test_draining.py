"""Leaving a runner: no step begins; running steps may finish until the drain timeout; then the runs are given up."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

import anyio
import pytest

from spine_async import Step, StepResult, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig
from spine_async._model.due import Sweep
from spine_async._model.run_claim import Claim
from spine_async._model.run_row import NewRun, StoredRun
from spine_async.storage import MemoryRunStore
from spine_async.testing import VirtualClock
from tests.cancellation.conftest import MakeRunner
from tests.cancellation.handlers import Sleeper

pytestmark = pytest.mark.anyio


async def test_a_running_step_may_finish_and_no_further_one_begins(make_runner: MakeRunner) -> None:
    ran: list[str] = []
    begun = anyio.Event()

    async def nap(context: WorkflowContext, config: Mapping[str, object]) -> None:
        begun.set()
        await anyio.sleep(5)
        ran.append(str(context.step_name))

    flow = Workflow("naps", [Step.lambda_("one", nap), Step.lambda_("two", nap)])
    runner = make_runner(drain_timeout=10)
    async with runner:
        task = asyncio.create_task(runner.execute(flow, run_id="r"))
        await begun.wait()
        left_at = anyio.current_time()
    assert anyio.current_time() - left_at == pytest.approx(5, abs=0.5)
    result = await task
    assert (result.status, result.stop_reason, ran) == ("stopped", "shutdown", ["one"])
    assert (await runner.resume("r")).completed_steps == ["one", "two"]
    assert ran == ["one", "two"]


async def test_items_at_work_may_finish_and_no_further_one_begins(make_runner: MakeRunner) -> None:
    ran: list[object] = []
    begun = anyio.Event()

    async def nap(context: WorkflowContext, config: Mapping[str, object]) -> None:
        begun.set()
        await anyio.sleep(5)
        ran.append(context.params["item"])

    flow = Workflow("naps", [Step.map("each", items=range(6), iterator=nap, max_concurrency=2)])
    runner = make_runner(drain_timeout=10)
    async with runner:
        task = asyncio.create_task(runner.execute(flow, run_id="r"))
        await begun.wait()
    assert (await task).stop_reason == "shutdown"
    assert sorted(ran, key=str) == [0, 1]  # both end at the same moment
    assert (await runner.resume("r")).status == "completed"
    assert sorted(ran, key=str) == [0, 1, 2, 3, 4, 5]


async def test_steps_that_do_not_finish_in_time_are_cancelled_and_their_run_is_due(
    make_runner: MakeRunner, store: MemoryRunStore
) -> None:
    runner, sleeper = make_runner(drain_timeout=3), Sleeper()
    async with runner:
        task = asyncio.create_task(runner.execute(sleeper.workflow(), run_id="r"))
        await sleeper.started.wait()
        left_at = anyio.current_time()
    assert anyio.current_time() - left_at == pytest.approx(3, abs=0.5)
    assert (await task).stop_reason == "shutdown"
    stored = await store.load("r")
    assert stored is not None
    assert (stored.status, stored.owner, stored.is_leased, stored.claims_since_progress) == ("pending", None, False, 0)
    assert stored.due_at is not None
    assert stored.due_at <= VirtualClock().now()


async def test_without_a_timeout_a_run_is_given_up_at_once(make_runner: MakeRunner) -> None:
    runner, sleeper = make_runner(drain_timeout=0), Sleeper()
    async with runner:
        task = asyncio.create_task(runner.execute(sleeper.workflow(), run_id="r"))
        await sleeper.started.wait()
        left_at = anyio.current_time()
    assert anyio.current_time() - left_at < 0.5
    assert (await task).stop_reason == "shutdown"


async def test_a_wait_is_given_up_at_once_and_a_resume_waits_for_the_rest(
    make_runner: MakeRunner, store: MemoryRunStore
) -> None:
    runner = make_runner(drain_timeout=1)
    flow = Workflow("waiting", [Step.wait("pause", seconds=100)])
    began = anyio.current_time()
    async with runner:
        task = asyncio.create_task(runner.execute(flow, run_id="r"))
        await anyio.sleep(10)
        left_at = anyio.current_time()
    assert anyio.current_time() - left_at < 0.5
    assert (await task).stop_reason == "shutdown"
    stored = await store.load("r")
    assert stored is not None
    assert stored.due_at is not None
    assert (stored.status, stored.owner) == ("waiting", None)
    assert (stored.due_at - VirtualClock().now()).total_seconds() == pytest.approx(90, abs=0.5)
    assert (await runner.resume("r")).status == "completed"
    assert anyio.current_time() - began == pytest.approx(100, abs=1)


async def test_a_block_left_by_an_error_drains_too(make_runner: MakeRunner) -> None:
    runner, sleeper = make_runner(drain_timeout=1), Sleeper()
    task = None
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 (the block is what is tested)
        async with runner:
            task = asyncio.create_task(runner.execute(sleeper.workflow(), run_id="r"))
            await sleeper.started.wait()
            raise ZeroDivisionError
    assert task is not None
    assert (await task).stop_reason == "shutdown"


class SlowToOpen(MemoryRunStore):
    """Delays the creation and the claim of a run."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.asked = anyio.Event()

    async def create(self, runs: Sequence[NewRun]) -> list[Claim | None]:
        self.asked.set()
        await anyio.sleep(self.seconds)
        return await super().create(runs)

    async def load(self, run_id: str) -> StoredRun | None:
        self.asked.set()
        await anyio.sleep(self.seconds)
        return await super().load(run_id)


def on(store: MemoryRunStore, **config: float) -> WorkflowRunner:
    return WorkflowRunner(store=store, clock=VirtualClock(), config=WorkflowRunnerConfig.model_validate(config))


@pytest.mark.parametrize(("seconds", "left_after"), [(3, 3), (60, 3.5)])
async def test_a_run_that_is_being_opened_begins_no_step(seconds: float, left_after: float) -> None:
    ran: list[str] = []

    async def note(context: WorkflowContext, config: Mapping[str, object]) -> None:
        ran.append(str(context.step_name))

    flow = Workflow("notes", [Step.lambda_("one", note), Step.lambda_("two", note)])
    store = SlowToOpen(seconds)
    runner = on(store, drain_timeout=1, cancel_grace=0.5)
    async with runner:
        task = asyncio.create_task(runner.execute(flow, run_id="r"))
        await store.asked.wait()
    assert anyio.current_time() == pytest.approx(left_after, abs=0.5)
    result = await task
    assert (result.status, result.stop_reason, ran) == ("stopped", "shutdown", [])
    store.seconds, store.asked = 0, anyio.Event()
    assert (await runner.resume("r")).status == "completed"
    assert ran == ["one", "two"]


async def test_a_run_that_is_being_resumed_begins_no_step() -> None:
    ran: list[str] = []

    async def stop(context: WorkflowContext, config: Mapping[str, object]) -> StepResult:
        ran.append(str(context.step_name))
        return StepResult.stop("for now")

    flow = Workflow("stops", [Step.lambda_("one", stop), Step.lambda_("two", stop)])
    store = SlowToOpen(0)
    runner = on(store)
    await runner.execute(flow, run_id="r")
    store.seconds, store.asked = 3, anyio.Event()
    async with runner:
        task = asyncio.create_task(runner.resume("r"))
        await store.asked.wait()
    assert task.done()
    assert ((await task).stop_reason, ran) == ("shutdown", ["one"])


async def test_a_run_that_is_being_opened_as_the_last_run_ends_begins_no_step() -> None:
    ran: list[str] = []

    async def note(context: WorkflowContext, config: Mapping[str, object]) -> None:
        ran.append(context.run_id)
        await anyio.sleep(2)

    flow = Workflow("notes", [Step.lambda_("one", note), Step.lambda_("two", note)])
    store = SlowToOpen(0)
    runner = on(store)
    async with runner:
        first = asyncio.create_task(runner.execute(flow, run_id="first"))
        await anyio.sleep(1)
        store.seconds, store.asked = 5, anyio.Event()
        second = asyncio.create_task(runner.execute(flow, run_id="second"))
        await store.asked.wait()
    assert [(await each).stop_reason for each in (first, second)] == ["shutdown", "shutdown"]
    assert ran == ["first"]


async def test_only_the_last_block_to_end_drains(make_runner: MakeRunner) -> None:
    begun = anyio.Event()

    async def nap(context: WorkflowContext, config: Mapping[str, object]) -> None:
        begun.set()
        await anyio.sleep(5)

    flow = Workflow("naps", [Step.lambda_("one", nap), Step.lambda_("two", nap)])
    runner = make_runner(work=True)
    async with runner:
        task = asyncio.create_task(runner.execute(flow))
        async with runner:
            await begun.wait()
        assert anyio.current_time() == pytest.approx(0, abs=0.5)
        result = await task
    result.raise_for_status()
    assert anyio.current_time() == pytest.approx(10, abs=0.5)


async def test_draining_does_not_wait_for_further_calls() -> None:
    async def nothing(context: WorkflowContext, config: Mapping[str, object]) -> None:
        return None

    flow = Workflow("nothing", [Step.lambda_("one", nothing)])
    runner = on(SlowToOpen(0.1))
    is_over = False

    async def come() -> None:
        while not is_over:
            await runner.execute(flow)

    async with runner:
        clients = [asyncio.create_task(come()) for _ in range(3)]
        await anyio.sleep(1)
    assert anyio.current_time() < 2
    is_over = True
    await asyncio.wait(clients)


async def test_a_run_that_is_being_opened_can_be_stopped() -> None:
    ran: list[str] = []

    async def note(context: WorkflowContext, config: Mapping[str, object]) -> None:
        ran.append(str(context.step_name))

    flow = Workflow("notes", [Step.lambda_("one", note)])
    store = SlowToOpen(3)
    runner = on(store)
    task = asyncio.create_task(runner.execute(flow, run_id="r"))
    await store.asked.wait()
    await runner.stop("r", "not now")
    result = await task
    assert (result.status, result.stop_reason, ran) == ("stopped", "not now", [])


class SlowToSweep(MemoryRunStore):
    """Delays the sweeps of a worker."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = anyio.Event()

    async def sweep(
        self, gone: Collection[str] = (), lapsed: Collection[str] = (), spared: Collection[str] = ()
    ) -> Sweep:
        self.asked.set()
        await anyio.sleep(5)
        return await super().sweep(gone, lapsed, spared)


async def test_no_step_begins_although_the_worker_still_waits_for_the_store() -> None:
    ran: list[str] = []

    async def nap(context: WorkflowContext, config: Mapping[str, object]) -> None:
        ran.append(str(context.step_name))
        await anyio.sleep(1)

    flow = Workflow("naps", [Step.lambda_(name, nap) for name in ("one", "two", "three")])
    store = SlowToSweep()
    runner = on(store)
    async with runner:
        task = asyncio.create_task(runner.execute(flow, run_id="r"))
        await store.asked.wait()
        await anyio.sleep(0.1)
    assert ((await task).stop_reason, ran) == ("shutdown", ["one"])
