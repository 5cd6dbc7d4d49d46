"""A run that was asked to stop, and cannot end at once, is not claimed again and again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spine_async import RunHandle, RunStatus, Step, Workflow, WorkflowContext, WorkflowRunner
from tests.crash.conftest import Rows
from tests.service.flows import Config
from tests.service.places import Place
from tests.service.services import until

PARKS = {"park_after": 0.0, "poll_interval": 0.02}
SENTINELS = 5


async def note(context: WorkflowContext, config: Config) -> None:
    """A step without a result."""


async def undo(context: WorkflowContext, config: Config) -> None:
    """A compensation without an effect."""


SENTINEL = Workflow("sentinel", [Step.wait("nap", 0.1)])


def flow(*steps: Step, cleanup: Step) -> Workflow:
    return Workflow("flow", [Step.lambda_("a", note, compensate=undo), *steps], cleanup=[cleanup])


async def without_owner(handle: RunHandle, status: RunStatus) -> bool:
    record = await handle.record()
    return (record.status, record.owner) == (status, None)


async def claims_meanwhile(runner: WorkflowRunner, query: Callable[..., Rows]) -> int:
    """How often the run "r" was claimed while the runner executed several other runs one after the other."""
    ((before,),) = query("SELECT epoch FROM core_workflow_runs WHERE run_id = 'r'")
    for _ in range(SENTINELS):
        await (await runner.enqueue(SENTINEL)).result(timeout=10)
    ((after,),) = query("SELECT epoch FROM core_workflow_runs WHERE run_id = 'r'")
    return int(str(after)) - int(str(before))


@pytest.mark.parametrize("compensate", [False, True])
@pytest.mark.parametrize("times", [1, 2])
async def test_a_stopped_run_that_waits_in_its_cleanup_is_parked(
    database: Place, query: Callable[..., Rows], times: int, *, compensate: bool
) -> None:
    waiting = flow(Step.wait_for_signal("main"), cleanup=Step.wait_for_signal("approval"))
    async with database.runner(workflows=[waiting, SENTINEL], config=PARKS) as runner:
        handle = await runner.start(waiting, run_id="r")
        await until(lambda: without_owner(handle, RunStatus.WAITING))
        for number in range(times):
            assert await handle.stop(f"stop {number}", compensate=compensate)
            await until(lambda: _has_ended_its_steps(handle))
            await until(lambda: without_owner(handle, RunStatus.WAITING))
        assert await claims_meanwhile(runner, query) == 0
        await handle.signal("approval", 1)
        result = await handle.result(timeout=10)
    assert (result.status, result.stop_reason) == ("stopped", "stop 0")
    assert result.compensated_steps == (["a"] if compensate else [])


async def _has_ended_its_steps(handle: RunHandle) -> bool:
    started = [event.path async for event in handle.events() if event.event_type == "step_started"]
    return "approval" in started


async def test_a_stopped_run_whose_steps_do_not_fit_is_released_for_a_minute(
    database: Place, query: Callable[..., Rows]
) -> None:
    tidy = Step.lambda_("tidy", note)
    stored, changed = flow(Step.wait_for_signal("main"), cleanup=tidy), Workflow("flow", [tidy])
    async with database.runner(work=False) as producer:
        handle = await producer.enqueue(stored, run_id="r")
        async with database.runner(workflows=[stored], config=PARKS):
            await until(lambda: without_owner(handle, RunStatus.WAITING))
        assert await handle.stop("enough", compensate=True)
        async with database.runner(workflows=[changed, SENTINEL], config=PARKS) as runner:
            assert await claims_meanwhile(runner, query) <= 1  # the first time perhaps before
        assert await handle.stop("again", compensate=True)
        async with database.runner(workflows=[stored], config=PARKS) as runner:
            result = await runner.handle("r").result(timeout=10)
    assert (result.status, result.stop_reason, result.compensated_steps) == ("stopped", "again", ["a"])
