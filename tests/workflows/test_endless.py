"""A loop of steps that never wait and are not committed one by one: other tasks get turns, and the run can be ended."""

from __future__ import annotations

import anyio
import pytest

from spine_async import Step, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig
from spine_async.storage import MemoryRunStore

pytestmark = pytest.mark.anyio

FAR_TOO_MANY = 1_000_000


class Endless:
    """An endless workflow; it fails the test after a number of steps that must not be reached."""

    def __init__(self) -> None:
        self.began = anyio.Event()
        self.visits = 0
        steps = [Step.lambda_("again", self.count), Step.choice("back", lambda context: True, "again")]
        self.workflow = Workflow("endless", steps)

    async def count(self, context: WorkflowContext, config: dict[str, object]) -> None:
        self.began.set()
        self.visits += 1
        assert self.visits < FAR_TOO_MANY


def make_runner(*, stores: bool, workflow_timeout: float | None = None) -> WorkflowRunner:
    config = WorkflowRunnerConfig(
        checkpoint_enabled=stores,
        checkpoint_every_step=False,
        workflow_timeout=workflow_timeout,
        max_step_visits=2 * FAR_TOO_MANY,
    )
    return WorkflowRunner(config=config, store=MemoryRunStore() if stores else None)


@pytest.mark.parametrize("stores", [True, False])
async def test_an_endless_loop_can_time_out(stores: bool) -> None:
    result = await make_runner(stores=stores, workflow_timeout=0.02).execute(Endless().workflow)
    assert (result.status, result.error_category) == ("failed", "TIMEOUT")


@pytest.mark.parametrize("stores", [True, False])
async def test_an_endless_loop_can_be_stopped(stores: bool) -> None:
    endless, runner = Endless(), make_runner(stores=stores)
    statuses: list[str] = []

    async def execute() -> None:
        statuses.append((await runner.execute(endless.workflow, run_id="r")).status)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(execute)
        await endless.began.wait()
        await runner.stop("r")
    assert statuses == ["stopped"]
