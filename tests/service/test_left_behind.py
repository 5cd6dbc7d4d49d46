"""A run whose thread or step does not end when its runner is left keeps its lease until that has ended."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from spine_async import RetryPolicy, RunStatus, Step, Workflow, WorkflowContext, WorkflowRunner
from spine_async._model.run_row import StoredRun
from tests.service.flows import Config
from tests.service.places import Place
from tests.service.services import until

pytestmark = pytest.mark.anyio

LEAVES = {"drain_timeout": 0.05, "cancel_grace": 0.05, "lease_ttl": 4.0, "poll_interval": 0.05}


class Stubborn:
    """A step that does not end when it is cancelled: in a thread or on the event loop."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.at_work = 0
        self.begun = 0
        self.overlaps = False

    def thread(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        self._enter()
        self.gate.wait(30)
        self.at_work -= 1
        return {"begun": self.begun}

    async def shielded(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        self._enter()
        with anyio.CancelScope(shield=True):
            while not self.gate.is_set():  # noqa: ASYNC110 - the gate is that of the threads
                await anyio.sleep(0.01)
        self.at_work -= 1
        return {"begun": self.begun}

    def _enter(self) -> None:
        self.overlaps = self.overlaps or self.at_work > 0
        self.begun += 1
        self.at_work += 1

    def flow(self, kind: str) -> Workflow:
        first = Step.lambda_("first", lambda context, config: None, checkpoint=False)
        return Workflow("stubborn", [first, Step.lambda_("hold", getattr(self, kind)), _nothing("last")])


def _nothing(name: str) -> Step:
    return Step.lambda_(name, lambda context, config: None)


@pytest.fixture
def stubborn() -> Iterator[Stubborn]:
    found = Stubborn()
    yield found
    found.gate.set()


async def stored(place: Place) -> StoredRun:
    """The run, read by a runner that closes its store."""
    async with place.runner(work=False) as other:
        run = await other._runtime.store.load("r")
    assert run is not None
    return run


async def left(place: Place, stubborn: Stubborn, kind: str) -> WorkflowRunner:
    """A runner that was left while the step `hold` of its run was at work."""
    flow = stubborn.flow(kind)
    runner = place.runner(config=LEAVES, workflows=[flow])
    async with runner:
        await runner.start(flow, run_id="r")
        await until(lambda: stubborn.at_work)
    return runner


@pytest.mark.parametrize("kind", ["thread", "shielded"])
async def test_the_lease_is_renewed_until_the_step_has_ended(place: Place, stubborn: Stubborn, kind: str) -> None:
    runner = await left(place, stubborn, kind)
    run = await stored(place)
    assert (run.status, run.owner, run.is_leased) == ("running", runner._runtime.owner, True)
    async with place.runner(config={"poll_interval": 0.05}, workflows=[stubborn.flow(kind)]) as other:
        claim = runner._active_runs._runs["r"].pending.claim
        began_with = claim.lease_until_mono
        await until(lambda: claim.lease_until_mono > began_with + 0.5)
        run = await stored(place)
        assert (run.owner, run.epoch, run.is_leased) == (runner._runtime.owner, 1, True)
        stubborn.gate.set()
        assert (await other.handle("r").result(20)).status == RunStatus.COMPLETED
    assert stubborn.overlaps is False
    # What a coroutine returns late is committed with the release; what a thread returns is not known.
    assert stubborn.begun == (2 if kind == "thread" else 1)
    await until(lambda: runner._active_runs.place is None)
    assert runner._active_runs.held == 0


async def test_finished_steps_are_committed_at_once(place: Place, stubborn: Stubborn) -> None:
    runner = await left(place, stubborn, "thread")
    async with place.runner(work=False) as other:
        assert [each.step_name for each in await other.list_checkpoints("r")] == ["first"]
    stubborn.gate.set()
    await until(lambda: runner._active_runs.place is None)


async def test_a_thread_that_a_timeout_left_behind_counts_too(place: Place, stubborn: Stubborn) -> None:
    def once(context: WorkflowContext, config: Config) -> None:
        if not stubborn.begun:
            stubborn.thread(context, config)

    # Another attempt follows, so that it does not matter if the thread of the first one begins late.
    retry = RetryPolicy(max_attempts=50, initial_delay=0)
    steps = [Step.lambda_("hold", once, timeout=0.2, retry=retry), Step.wait("nap", 3600)]
    flow = Workflow("stubborn", steps)
    runner = place.runner(config=LEAVES, workflows=[flow])
    async with runner:
        handle = await runner.start(flow, run_id="r")
        await until(lambda: _is_waiting(handle))
        assert stubborn.at_work == 1
    assert (await stored(place)).owner is not None
    stubborn.gate.set()
    await until(lambda: runner._active_runs.place is None)
    assert (await stored(place)).owner is None


async def _is_waiting(handle: Any) -> bool:
    return bool((await handle.record()).status == "waiting")


async def test_a_run_that_no_further_step_continues_keeps_its_owner_while_a_thread_is_at_work(
    place: Place, stubborn: Stubborn
) -> None:
    """The running step ends within `drain_timeout`, so nothing is cancelled; a thread of an earlier step is at work."""
    is_next, may_end, last = anyio.Event(), anyio.Event(), list[int]()

    def once(context: WorkflowContext, config: Config) -> None:
        if not stubborn.begun:
            stubborn.thread(context, config)

    async def ends_while_draining(context: WorkflowContext, config: Config) -> None:
        is_next.set()
        await may_end.wait()

    retry = RetryPolicy(max_attempts=50, initial_delay=0)
    hold = Step.lambda_("hold", once, timeout=0.2, retry=retry)
    steps = [Step.lambda_("next", ends_while_draining), Step.lambda_("last", lambda context, config: last.append(1))]
    flow = Workflow("stubborn", [hold, *steps])
    runner = place.runner(config={**LEAVES, "drain_timeout": 20}, workflows=[flow])
    async with anyio.create_task_group() as group:

        async def open_when_draining() -> None:
            await until(lambda: runner._runtime.is_draining)
            may_end.set()

        async with runner:
            await runner.start(flow, run_id="r")
            await is_next.wait()
            assert stubborn.at_work == 1
            group.start_soon(open_when_draining)
    run = await stored(place)
    assert (run.status, run.owner) == ("running", runner._runtime.owner)
    async with place.runner(work=False) as other:
        assert [each.step_name for each in await other.list_checkpoints("r")] == ["hold", "next"]
    stubborn.gate.set()
    await until(lambda: runner._active_runs.place is None)
    run = await stored(place)
    assert (run.status, run.owner, last) == ("pending", None, [])


async def test_a_run_that_was_taken_over_is_reported_and_not_renewed_again(
    place: Place, stubborn: Stubborn, caplog: pytest.LogCaptureFixture
) -> None:
    runner = await left(place, stubborn, "thread")
    taken = await runner._runtime.store.claim("r", "another", None, ttl=60, over_epoch=1)
    assert taken is not None
    claim = runner._active_runs._runs["r"].pending.claim
    await until(lambda: claim.lease_until_mono == math.inf)
    assert "run r has another owner" in caplog.text
    stubborn.gate.set()
    await until(lambda: runner._active_runs.place is None)
    assert (await stored(place)).owner == "another"
