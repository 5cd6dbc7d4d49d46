"""Timeouts of many concurrent attempts, for which the event loop has one timer only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from spine_async import ErrorPolicy, Step, Workflow, WorkflowContext
from tests.cancellation.conftest import MakeRunner

pytestmark = pytest.mark.anyio


async def forever(context: WorkflowContext, config: Mapping[str, Any]) -> None:
    await anyio.sleep_forever()


async def test_attempts_that_overlap_time_out_each_at_its_own_moment(make_runner: MakeRunner) -> None:
    ended: list[tuple[float, float]] = []

    async def run(timeout: float) -> None:
        step = Step.lambda_("hang", forever, timeout=timeout)
        result = await make_runner().execute(Workflow("w", [step]))
        assert result.error == f"step 'hang' timed out after {timeout:g} s"
        ended.append((timeout, anyio.current_time()))

    async with anyio.create_task_group() as tasks:
        for timeout in (30, 10, 20, 10):
            tasks.start_soon(run, timeout)
    assert ended == [(10, 10), (10, 10), (20, 20), (30, 30)]


async def test_runs_of_one_runner_share_a_timer_that_fires_for_the_earliest(make_runner: MakeRunner) -> None:
    ended: list[float] = []
    runner = make_runner()

    async def run(timeout: float) -> None:
        await runner.execute(Workflow(f"w{timeout}", [Step.lambda_("hang", forever, timeout=timeout)]))
        ended.append(anyio.current_time())

    async with anyio.create_task_group() as tasks:
        for timeout in (300, 7, 60, 0.5):
            tasks.start_soon(run, timeout)
    assert ended == [0.5, 7, 60, 300]


async def test_a_deadline_that_was_met_cancels_nothing_later(make_runner: MakeRunner) -> None:
    async def nap(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, float]:
        await anyio.sleep(6)
        return {"at": anyio.current_time()}

    steps = [Step.lambda_(f"nap{number}", nap, timeout=10) for number in range(4)]
    result = await make_runner().execute(Workflow("w", steps))
    result.raise_for_status()
    assert [result.context.get_output(f"nap{number}", "at") for number in range(4)] == [6, 12, 18, 24]


async def test_a_step_may_go_on_after_one_that_timed_out(make_runner: MakeRunner) -> None:
    late = Step.lambda_("late", forever, timeout=3, on_error=ErrorPolicy.CONTINUE)
    later = Step.lambda_("later", forever, timeout=5, on_error=ErrorPolicy.CONTINUE)
    result = await make_runner().execute(Workflow("w", [late, later]))
    assert (result.failed_steps, anyio.current_time()) == (["late", "later"], 8)


async def test_steps_that_end_in_time_leave_no_timers_behind(make_runner: MakeRunner) -> None:
    async def nothing(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        return None

    loop: Any = asyncio.get_running_loop()
    runner = make_runner(default_step_timeout=300)
    async with runner:
        await runner.execute(Workflow("w", [Step.lambda_("first", nothing)]))
        before = len(loop._scheduled)
        each = Step.map("each", items=range(500), iterator=nothing, max_concurrency=50)
        await runner.execute(Workflow("map", [each, *(Step.lambda_(f"s{number}", nothing) for number in range(100))]))
        assert len(loop._scheduled) <= before + 3


async def test_a_handler_sees_until_when_it_may_work(make_runner: MakeRunner) -> None:
    async def look(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, float]:
        return {"deadline": anyio.current_effective_deadline()}

    steps = [Step.wait("first", 5), Step.lambda_("own", look, timeout=30), Step.lambda_("default", look)]
    result = await make_runner(default_step_timeout=100).execute(Workflow("w", steps))
    assert [result.context.get_output(name, "deadline") for name in ("own", "default")] == [35, 105]


async def test_a_step_without_a_timeout_has_no_deadline_after_one_that_has(make_runner: MakeRunner) -> None:
    seen: list[float] = []

    async def look(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        seen.append(anyio.current_effective_deadline())

    steps = [
        Step.lambda_("limited", look, timeout=5),
        Step.lambda_("free", look),
        Step.lambda_("last", look, timeout=9),
    ]
    (await make_runner(default_step_timeout=None).execute(Workflow("w", steps))).raise_for_status()
    assert seen == [5, float("inf"), 9]


async def test_a_handler_that_ends_although_it_was_timed_out_does_not_affect_later_steps(
    make_runner: MakeRunner,
) -> None:
    async def stubborn(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, str]:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            return {"ended": "all the same"}
        return {}

    async def nap(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        await anyio.sleep(3)

    steps = [Step.lambda_("stubborn", stubborn, timeout=2), Step.lambda_("nap", nap, timeout=4)]
    result = await make_runner().execute(Workflow("w", steps))
    assert (result.completed_steps, anyio.current_time()) == (["stubborn", "nap"], 5)


async def test_a_handler_that_cancels_its_own_task_leaves_later_deadlines_working(make_runner: MakeRunner) -> None:
    async def cancels_itself(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)

    steps = [
        Step.lambda_("itself", cancels_itself, timeout=5),
        Step.lambda_("late", forever, timeout=3, on_error=ErrorPolicy.CONTINUE),
        Step.lambda_("later", forever, timeout=3),
    ]
    result = await make_runner().execute(Workflow("w", steps))
    assert (result.failed_steps, result.error_category) == (["late", "later"], "TIMEOUT")


@pytest.mark.parametrize("way", ["scope", "task", "shield"])
async def test_middleware_may_put_scopes_and_tasks_around_an_attempt(make_runner: MakeRunner, way: str) -> None:
    """Also if it is added during a run whose first step had no middleware."""
    runner = make_runner()

    async def wraps(step: Step, context: WorkflowContext, next_fn: Any) -> Any:
        if way == "task":
            return await asyncio.create_task(next_fn(step, context))
        with anyio.CancelScope(shield=way == "shield"):
            return await next_fn(step, context)

    async def adds(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        if not runner._runtime.middleware:
            runner.middleware(wraps)

    steps = [
        Step.lambda_("adds", adds, timeout=5),
        Step.lambda_("late", forever, timeout=3, on_error=ErrorPolicy.CONTINUE),
        Step.lambda_("quick", adds, timeout=3),
        Step.lambda_("later", forever, timeout=3),
    ]
    result = await runner.execute(Workflow("w", steps))
    assert (result.failed_steps, result.error_category) == (["late", "later"], "TIMEOUT")
    assert (result.completed_steps, anyio.current_time()) == (["adds", "quick"], 6)


async def test_a_run_that_is_stopped_between_timed_attempts_is_cancelled_once(make_runner: MakeRunner) -> None:
    runner = make_runner()
    begun = anyio.Event()

    async def wait(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        begun.set()
        await anyio.sleep_forever()

    async def nothing(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        return None

    workflow = Workflow("w", [Step.lambda_("a", nothing, timeout=5), Step.lambda_("b", wait, timeout=50)])
    results = []

    async def execute() -> None:
        results.append(await runner.execute(workflow, run_id="r"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(execute)
        await begun.wait()
        await runner.stop("r", "enough")
    assert [(result.status, result.stop_reason) for result in results] == [("stopped", "enough")]


async def cancelled_gather(context: WorkflowContext, config: Mapping[str, Any]) -> None:
    """Its cancellation is replaced by one of `asyncio.gather`, which no scope recognises as its own."""

    async def fails_when_cancelled() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ConnectionError("rollback")

    await asyncio.gather(fails_when_cancelled(), fails_when_cancelled(), return_exceptions=True)


async def cancels_itself_when_cancelled(context: WorkflowContext, config: Mapping[str, Any]) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()


@pytest.mark.parametrize("handler", [cancelled_gather, cancels_itself_when_cancelled])
async def test_a_run_that_times_out_is_failed_whatever_its_step_makes_of_the_cancellation(
    make_runner: MakeRunner, handler: Any
) -> None:
    step = Step.lambda_("hang", handler, on_error="continue")
    result = await make_runner(workflow_timeout=5).execute(Workflow("w", [step, Step.lambda_("after", forever)]))
    assert (result.status, result.error_category, result.stop_reason) == ("failed", "TIMEOUT", None)
    assert result.error == "the workflow timed out after 5 s"


class Whole(BaseModel):
    rows: int


@pytest.mark.parametrize(("returned", "is_used"), [({"rows": "half"}, False), ({"rows": 2}, True)])
async def test_only_a_valid_result_counts_after_the_deadline(
    make_runner: MakeRunner, returned: dict[str, Any], is_used: bool
) -> None:
    async def partial(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
        with contextlib.suppress(asyncio.CancelledError):
            await anyio.sleep_forever()
        return returned

    step = Step.lambda_("load", partial, timeout=2, output_model=Whole)
    result = await make_runner().execute(Workflow("w", [step]))
    if is_used:
        assert result.context.get_output("load") == Whole(rows=2)
    else:
        assert (result.error_category, result.error) == ("TIMEOUT", "step 'load' timed out after 2 s")


async def test_a_step_that_cancels_its_task_twice_stops_the_run(make_runner: MakeRunner) -> None:
    async def cancels_twice(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await anyio.sleep_forever()
        finally:
            task.cancel()

    runner = make_runner()
    result = await runner.execute(Workflow("w", [Step.lambda_("a", cancels_twice)]), run_id="r")
    assert (result.status, result.stop_reason) == ("stopped", "cancelled")
    assert (await runner.get_run("r")).status == "stopped"
