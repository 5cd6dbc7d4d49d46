"""Waits: for seconds, until a moment, and for the remaining time after a resume."""

import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import anyio
import pytest

from spine_async import RunNotFoundError, Step, Workflow, WorkflowContext, WorkflowRunner

pytestmark = pytest.mark.anyio


async def test_waiting_for_seconds(runner: WorkflowRunner) -> None:
    begun = time.monotonic()
    result = await runner.execute(Workflow("w", [Step.wait("pause", 0.02)]))
    assert time.monotonic() - begun >= 0.018
    assert result.status == "completed"
    assert result.completed_steps == ["pause"]


async def test_waiting_until_a_moment(runner: WorkflowRunner) -> None:
    moment = datetime.now(UTC) + timedelta(milliseconds=20)
    result = await runner.execute(Workflow("w", [Step.wait("pause", until=moment)]))
    assert result.status == "completed"
    assert datetime.now(UTC) >= moment - timedelta(milliseconds=2)


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2020, 1, 1, tzinfo=UTC),
        datetime.now(timezone(timedelta(hours=14))) - timedelta(seconds=1),
        datetime.now(timezone(timedelta(hours=-12))) - timedelta(seconds=1),
    ],
)
async def test_a_moment_that_has_passed_is_not_waited_for(runner: WorkflowRunner, moment: datetime) -> None:
    with anyio.fail_after(10):
        result = await runner.execute(Workflow("w", [Step.wait("pause", until=moment)]))
    assert result.completed_steps == ["pause"]


async def test_zero_seconds(runner: WorkflowRunner) -> None:
    with anyio.fail_after(10):
        result = await runner.execute(Workflow("w", [Step.wait("pause", 0)]))
    assert result.status == "completed"


async def test_the_loop_runs_on_meanwhile(runner: WorkflowRunner) -> None:
    ticks = []

    async def tick() -> None:
        for _ in range(5):
            await anyio.sleep(0.001)
            ticks.append(1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        await runner.execute(Workflow("w", [Step.wait("pause", 0.05)]))
        assert len(ticks) == 5


async def cancelled_during(runner: WorkflowRunner, workflow: Workflow, run_id: str) -> None:
    """Cancel the run soon after its wait has begun."""
    scope = anyio.CancelScope()

    async def cancel_when_it_waits() -> None:
        with anyio.fail_after(10):
            while not await _waits(runner, run_id):  # noqa: ASYNC110 (another task waits)
                await anyio.sleep(0.002)
        scope.cancel()

    async with runner, anyio.create_task_group() as tasks:
        tasks.start_soon(cancel_when_it_waits)
        with scope:
            await runner.execute(workflow, run_id=run_id)
    assert scope.cancelled_caught


async def _waits(runner: WorkflowRunner, run_id: str) -> bool:
    try:
        return (await runner.get_run(run_id)).status == "waiting"
    except RunNotFoundError:
        return False


class Ahead:
    """A clock that is almost an hour ahead."""

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=3599.2)

    def monotonic(self) -> float:
        return time.monotonic()


async def test_a_resumed_run_waits_only_for_what_is_left(make_runner: Any) -> None:
    workflow = Workflow("w", [Step.wait("pause", 3600)])
    begun = time.monotonic()
    await cancelled_during(make_runner(), workflow, "r1")
    with anyio.fail_after(20):  # a wait begun anew would take an hour
        result = await make_runner(clock=Ahead()).resume("r1", workflow=workflow)
    assert result.status == "completed"
    assert time.monotonic() - begun >= 0.79


async def test_a_wait_that_is_over_when_its_run_is_resumed(make_runner: Any) -> None:
    workflow = Workflow("w", [Step.wait("pause", 0.06)])
    await cancelled_during(make_runner(), workflow, "r1")
    await anyio.sleep(0.05)
    with anyio.fail_after(10):
        result = await make_runner().resume("r1", workflow=workflow)
    assert result.status == "completed"


async def test_steps_after_a_wait(runner: WorkflowRunner) -> None:
    async def after(context: WorkflowContext, config: Any) -> dict[str, bool]:
        return {"ran": True}

    result = await runner.execute(Workflow("w", [Step.wait("pause", 0.001), Step.lambda_("after", after)]))
    assert result.context.get_output("after") == {"ran": True}
    assert result.completed_steps == ["pause", "after"]
