"""A `def` handler polls `context.cancel_reason` in its thread, and ends early."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import anyio
import pytest

from spine_async import LeaseLostError, RetryPolicy, Step, StepResult, Workflow, WorkflowContext, WorkflowRunner
from spine_async import WorkflowRunnerConfig as Config
from spine_async.storage import MemoryRunStore
from spine_async.testing import VirtualClock, run_virtual

pytestmark = pytest.mark.anyio

WITHIN = 0.05
"""Seconds in which a reason reaches a thread."""
TRIES = 5
"""So often is it measured: the process may stand still for a moment."""


class Poller:
    """A `def` handler that waits for its reason.

    Attributes:
        begun: Set in the loop once a thread executes it.
        over: Set in the loop once a thread has ended.
        reasons: The reasons that were read, with the time of reading.
    """

    def __init__(self) -> None:
        self.begun, self.over = anyio.Event(), anyio.Event()
        self.reasons: list[tuple[int, str | None]] = []
        self.read_mono = 0.0
        self.is_over = threading.Event()
        self._loop = asyncio.get_running_loop()

    def __call__(self, context: WorkflowContext, config: Mapping[str, object]) -> None:
        self._loop.call_soon_threadsafe(self.begun.set)
        while context.cancel_reason is None and not self.is_over.wait(0.001):
            pass
        self.read_mono = time.monotonic()
        self.reasons.append((context.attempt, context.cancel_reason))
        self._loop.call_soon_threadsafe(self.over.set)


@pytest.fixture
async def poller() -> Any:
    poller = Poller()
    yield poller
    poller.is_over.set()


def flow(poller: Poller, shape: str, **options: Any) -> Workflow:
    step: Step = Step.lambda_("poll", poller, **options)
    for name in {"plain": (), "item": ("each",), "nested": ("inner", "each")}[shape]:
        step = Step.map(name, items=[1], iterator=Workflow(steps=[step]))
    return Workflow("w", [step])


SHAPES = ("plain", "item", "nested")


async def is_soon(measure: Callable[[Poller], Awaitable[float]]) -> bool:
    """Whether a thread has read its reason in time, by the seconds that `measure` returns."""
    for _ in range(TRIES):
        poller = Poller()
        try:
            if await measure(poller) < WITHIN + 0.25:  # the beginning is known only so well
                return True
        finally:
            poller.is_over.set()
    return False


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("how", ["user", "shutdown", "cancelled", "step_timeout", "run_timeout"])
async def test_it_reads_the_reason_at_once(shape: str, how: str) -> None:
    assert await is_soon(partial(seconds_until_read, shape, how))


async def seconds_until_read(shape: str, how: str, poller: Poller) -> float:
    limit = 0.2  # seconds
    config = Config(drain_timeout=0.02, workflow_timeout=limit if how == "run_timeout" else None)
    runner = WorkflowRunner(store=MemoryRunStore(), config=config)
    workflow = flow(poller, shape, timeout=limit if how == "step_timeout" else 60)
    began_mono = time.monotonic()
    async with runner:
        task = asyncio.create_task(runner.execute(workflow, run_id="r"))
        begun = asyncio.create_task(poller.begun.wait())
        await asyncio.wait([begun, task], return_when=asyncio.FIRST_COMPLETED)
        if not begun.done():  # the limit of time has ended before a thread was there
            begun.cancel()
            return math.inf
        if how == "user":
            began_mono = time.monotonic()
            await runner.stop("r")
        elif how == "cancelled":
            began_mono = time.monotonic()
            task.cancel()
        elif how != "shutdown":
            began_mono += limit
            await task
        else:
            began_mono = time.monotonic() + 0.02
    await asyncio.wait([task])
    await poller.over.wait()
    assert poller.reasons == [(1, how)]
    return poller.read_mono - began_mono


@pytest.mark.parametrize("depth", [1, 2])
async def test_it_reads_that_another_item_failed(depth: int) -> None:
    assert await is_soon(partial(seconds_until_read_beside_a_failure, depth))


async def seconds_until_read_beside_a_failure(depth: int, poller: Poller) -> float:
    runner = WorkflowRunner(store=MemoryRunStore())
    failed_mono = 0.0

    async def fails(context: WorkflowContext, config: Mapping[str, object]) -> StepResult:
        nonlocal failed_mono
        await poller.begun.wait()
        failed_mono = time.monotonic()
        return StepResult.fail("broken")

    polls: Step = Step.lambda_("poll", poller)
    if depth == 2:
        polls = Step.map("inner", items=[1], iterator=Workflow(steps=[Step.lambda_("deep", poller)]))
    which = Step.choice("which", lambda context: context.params["item"] == 0, polls.name, "fails")
    iterator = Workflow(steps=[which, polls, Step.lambda_("fails", fails)])
    result = await runner.execute(Workflow("w", [Step.map("each", items=[0, 1], iterator=iterator)]), run_id="r")
    await poller.over.wait()
    assert (result.status, poller.reasons) == ("failed", [(1, "sibling_failed")])
    return poller.read_mono - failed_mono


async def test_it_reads_that_the_lease_is_lost(poller: Poller) -> None:
    store = MemoryRunStore()
    runner = WorkflowRunner(store=store, config=Config(lease_ttl=0.3))
    task = asyncio.create_task(runner.execute(flow(poller, "plain"), run_id="r"))
    await poller.begun.wait()
    await store.claim("r", "somebody else", None, ttl=60, over_epoch=1)
    with pytest.raises(LeaseLostError):
        await task
    await poller.over.wait()
    assert poller.reasons == [(1, "lease_lost")]


@pytest.mark.parametrize("shape", SHAPES)
async def test_an_attempt_that_is_left_behind_reads_its_own_reason_although_another_has_begun(shape: str) -> None:
    """Also where that one is cancelled for another reason, or ends the run."""
    read, both = dict[int, list[str | None]](), threading.Barrier(2)
    may_read, second_begun, all_read = threading.Event(), anyio.Event(), anyio.Event()
    loop = asyncio.get_running_loop()

    def handler(context: WorkflowContext, config: Mapping[str, object]) -> None:
        if context.attempt == 2:
            loop.call_soon_threadsafe(second_begun.set)
            while context.cancel_reason is None:
                pass
        may_read.wait(10)
        read[context.attempt] = [context.cancel_reason, context.cancel_reason]
        both.wait(10)
        loop.call_soon_threadsafe(all_read.set)

    retry = RetryPolicy(max_attempts=2, initial_delay=0)
    runner = WorkflowRunner(store=MemoryRunStore())
    step: Step = Step.lambda_("poll", handler, timeout=0.5, retry=retry)
    for name in {"plain": (), "item": ("each",), "nested": ("inner", "each")}[shape]:
        step = Step.map(name, items=[1], iterator=Workflow(steps=[step]))
    task = asyncio.create_task(runner.execute(Workflow("w", [step]), run_id="r"))
    await second_begun.wait()
    await runner.stop("r")
    await task
    may_read.set()
    await all_read.wait()
    assert read[1] == ["step_timeout"] * 2
    assert read[2] in (["user"] * 2, ["step_timeout"] * 2)


async def test_a_finished_attempt_reads_its_reason_while_the_next_one_has_none() -> None:
    first: list[WorkflowContext] = []
    seen: list[tuple[str | None, str | None]] = []

    async def handler(context: WorkflowContext, config: Mapping[str, object]) -> None:
        first.append(context)
        if context.attempt == 1:
            await anyio.sleep_forever()
        seen.append((first[0].cancel_reason, context.cancel_reason))

    retry = RetryPolicy(max_attempts=2, initial_delay=0)
    runner = WorkflowRunner(store=MemoryRunStore())
    await runner.execute(Workflow("w", [Step.lambda_("poll", handler, timeout=0.2, retry=retry)]))
    assert seen == [("step_timeout", None)]


async def test_a_timeout_of_middleware_reaches_the_thread(poller: Poller) -> None:
    runner = WorkflowRunner(store=MemoryRunStore())

    @runner.middleware
    async def limits(step: Step, context: WorkflowContext, next_fn: Any) -> StepResult:
        with anyio.move_on_after(0.5):
            result: StepResult = await next_fn(step, context)
            return result
        return StepResult.fail("too slow", "TIMEOUT")

    result = await runner.execute(flow(poller, "plain"))
    await poller.over.wait()
    assert (result.error, poller.reasons) == ("too slow", [(1, "cancelled")])


async def test_an_attempt_that_ends_by_itself_never_has_a_reason() -> None:
    contexts: list[WorkflowContext] = []

    def handler(context: WorkflowContext, config: Mapping[str, object]) -> None:
        contexts.append(context)

    runner = WorkflowRunner(store=MemoryRunStore())
    await runner.execute(Workflow("w", [Step.lambda_("poll", handler, timeout=5)]))
    assert contexts[0].cancel_reason is None


def test_a_thread_reads_its_reason_on_the_virtual_clock() -> None:
    reasons: list[str | None] = []

    async def main() -> None:
        def handler(context: WorkflowContext, config: Mapping[str, object]) -> None:
            reasons.append(context.cancel_reason)

        await WorkflowRunner(store=MemoryRunStore(), clock=VirtualClock()).execute(
            Workflow("w", [Step.lambda_("poll", handler, timeout=5)])
        )

    run_virtual(main)
    assert reasons == [None]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
