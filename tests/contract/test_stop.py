"""Stopping a run from outside, and cancelling the task it runs in."""

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

import anyio
import anyio.to_thread
import pytest

from spine_async import Step, Workflow, WorkflowContext, WorkflowRunnerConfig

pytestmark = pytest.mark.anyio


class Slow:
    """Two steps; the first waits, the first time it runs, until it is released or cancelled."""

    def __init__(self) -> None:
        self.started = anyio.Event()
        self.release = anyio.Event()
        self.ran: list[str] = []

    async def quick(self, context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, bool]:
        self.ran.append(str(context.step_name))
        return {"ran": True}

    async def slow(self, context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, bool]:
        self.ran.append("slow")
        self.started.set()
        await self.release.wait()
        return {"ran": True}

    def workflow(self) -> Workflow:
        steps = [Step.lambda_("first", self.quick), Step.lambda_("slow", self.slow), Step.lambda_("last", self.quick)]
        return Workflow("w", steps)


async def test_a_run_is_stopped_from_outside(make_runner: Any) -> None:
    slow = Slow()
    runner = make_runner()
    results = []

    async def run() -> None:
        results.append(await runner.execute(slow.workflow(), run_id="r1"))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await slow.started.wait()
            await runner.stop("r1", reason="maintenance at nine")
            slow.release.set()
    (result,) = results
    assert result.status == "stopped"
    assert result.stop_reason == "maintenance at nine"
    assert "last" not in slow.ran
    resumed = await runner.resume("r1")
    assert resumed.status == "completed"
    assert slow.ran.count("first") == 1
    assert slow.ran[-1] == "last"


@pytest.mark.parametrize("by", ["task", "scope"])
async def test_a_cancelled_run_is_recorded_as_stopped(open_runner: Any, stored_events: Any, sql: Any, by: str) -> None:
    slow = Slow()
    runner = await open_runner()
    with anyio.fail_after(20):
        if by == "task":
            task = asyncio.create_task(runner.execute(slow.workflow(), run_id="r1"))
            await slow.started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: runner.execute(slow.workflow(), run_id="r1"))
                await slow.started.wait()
                tasks.cancel_scope.cancel()
    assert [row["status"] for row in sql("SELECT status FROM core_workflow_runs WHERE run_id = ?", "r1")] == ["stopped"]
    assert stored_events("r1")[-1]["event_type"] == "workflow_stopped"

    slow.release.set()
    resumed = await runner.resume("r1")
    assert resumed.status == "completed"
    assert slow.ran == ["first", "slow", "slow", "last"]
    types = [event["event_type"] for event in stored_events("r1")]
    assert types.index("workflow_stopped") < types.index("workflow_resumed") < types.index("workflow_completed")


async def test_a_cancellation_is_distinguished_from_a_stop(make_runner: Any) -> None:
    """Outcomes are distinct: the reason distinguishes a user's stop from a cancellation."""
    runner = make_runner()
    reasons = []
    for run_id, reason in (("stopped", "enough"), ("cancelled", None)):
        slow = Slow()
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: runner.execute(slow.workflow(), run_id=run_id))  # noqa: B023
                await slow.started.wait()
                if reason is None:
                    tasks.cancel_scope.cancel()
                else:
                    await runner.stop(run_id, reason=reason)
                    slow.release.set()
        again = await runner.execute(slow.workflow(), run_id=run_id)
        assert again.status == "stopped"
        reasons.append(again.stop_reason)
    assert reasons[0] == "enough"
    assert reasons[1]
    assert reasons[1] != "enough"


async def test_a_run_is_cancelled_while_a_plain_handler_blocks(make_runner: Any) -> None:
    loop = asyncio.get_running_loop()
    started = anyio.Event()
    release = threading.Event()
    ended = threading.Event()

    def blocks(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, bool]:
        loop.call_soon_threadsafe(started.set)
        release.wait(10)
        ended.set()
        return {"ran": True}

    runner = make_runner()
    workflow = Workflow("w", [Step.lambda_("blocks", blocks)])
    try:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: runner.execute(workflow, run_id="r1"))
                await started.wait()
                tasks.cancel_scope.cancel()
        assert not ended.is_set()
    finally:
        release.set()
        assert await anyio.to_thread.run_sync(ended.wait, 10)
    assert (await runner.get_run("r1")).status == "stopped"


@pytest.mark.parametrize("kind", ["loop", "map"])
async def test_a_run_whose_steps_never_wait_can_be_cancelled(make_runner: Any, kind: str) -> None:
    calls = []

    async def never_waits(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        if not calls:
            asyncio.get_running_loop().call_later(0.03, scope.cancel)
        calls.append(1)
        assert len(calls) < 50_000, "nobody could cancel this run"

    steps = {
        "loop": [Step.lambda_("a", never_waits), Step.choice("b", lambda context: True, "a")],
        "map": [Step.map("a", items=lambda context: iter(range(100_000)), iterator=never_waits)],
    }
    runner = make_runner(config=WorkflowRunnerConfig(max_step_visits=1_000_000))
    with anyio.CancelScope() as scope:
        await runner.execute(Workflow("w", steps[kind]), run_id="r1")
    assert scope.cancelled_caught
    assert (await runner.get_run("r1")).status == "stopped"


async def test_a_cancelled_run_has_a_reason(make_runner: Any) -> None:
    runner = make_runner()

    async def begin(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        asyncio.get_running_loop().call_later(0.02, scope.cancel)

    with anyio.CancelScope() as scope:
        await runner.execute(Workflow("w", [Step.lambda_("begin", begin), Step.wait("pause", 3600)]), run_id="r1")
    stored = await runner.get_run("r1")
    assert stored.status == "stopped"
    assert stored.stop_reason
