"""How much runs at once: one map's limit, the whole runner's, and no deadlock between them."""

from collections.abc import Mapping
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from spine_async import LocalDispatcher, Step, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig

pytestmark = pytest.mark.anyio


class Gauge:
    """A handler that notes how many of it run at once.

    Args:
        wanted: Number of handlers that must run at once before the first of them ends.
    """

    def __init__(self, wanted: int = 1) -> None:
        self._wanted = wanted
        self._has_met = anyio.Event()
        self.now = 0
        self.most = 0
        self.calls = 0

    async def __call__(self, *args: Any) -> dict[str, int]:
        self.calls += 1
        self.now += 1
        self.most = max(self.most, self.now)
        if self.now == self._wanted:
            self._has_met.set()
        with anyio.fail_after(20):
            await self._has_met.wait()
        await anyio.sleep(0.003)
        self.now -= 1
        return {"calls": self.calls}


def limited(make_runner: Any, limit: int, **settings: Any) -> WorkflowRunner:
    return make_runner(config=WorkflowRunnerConfig(max_concurrent_steps=limit), **settings)


@pytest.mark.parametrize("limit", [1, 3, 10])
async def test_a_map_runs_no_more_items_at_once_than_it_may(runner: WorkflowRunner, limit: int) -> None:
    gauge = Gauge(limit)
    step = Step.map("each", items=range(40), iterator=gauge, max_concurrency=limit)
    await runner.execute(Workflow("w", [step]))
    assert gauge.calls == 40
    assert gauge.most == limit


async def test_ten_items_at_once_by_default(runner: WorkflowRunner) -> None:
    gauge = Gauge(10)
    await runner.execute(Workflow("w", [Step.map("each", items=range(40), iterator=gauge)]))
    assert gauge.most == 10


async def test_a_map_over_items_that_come_late_keeps_to_its_limit(runner: WorkflowRunner) -> None:
    gauge = Gauge()

    async def source() -> Any:
        for number in range(40):
            await anyio.lowlevel.checkpoint()
            yield number

    await runner.execute(Workflow("w", [Step.map("each", items=source(), iterator=gauge, max_concurrency=3)]))
    assert gauge.calls == 40
    assert gauge.most <= 3


async def test_the_runner_bounds_the_steps_of_a_map(make_runner: Any) -> None:
    gauge = Gauge(2)
    step = Step.map("each", items=range(20), iterator=gauge, max_concurrency=10)
    await limited(make_runner, 2).execute(Workflow("w", [step]))
    assert gauge.calls == 20
    assert gauge.most == 2


async def test_the_runner_bounds_all_its_runs_together(make_runner: Any) -> None:
    gauge = Gauge(2)
    runner = limited(make_runner, 2)
    workflow = Workflow("w", [Step.map("each", items=range(10), iterator=gauge, max_concurrency=5)])
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(runner.execute, workflow)
    assert gauge.calls == 30
    assert gauge.most == 2


async def test_the_runner_bounds_pipelines_too(make_runner: Any) -> None:
    gauge = Gauge(2)
    dispatcher = LocalDispatcher()

    @dispatcher.pipeline("load")
    async def load(params: Mapping[str, Any]) -> dict[str, int]:
        return await gauge()

    iterator = Workflow(steps=[Step.pipeline("load", "load")])
    step = Step.map("each", items=range(10), iterator=iterator, max_concurrency=5)
    await limited(make_runner, 2, dispatcher=dispatcher).execute(Workflow("w", [step]))
    assert gauge.calls == 10
    assert gauge.most == 2


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("limit", [1, 2])
async def test_nested_maps_cannot_deadlock(make_runner: Any, depth: int, limit: int) -> None:
    gauge = Gauge()
    iterator: Any = gauge
    for level in range(depth):
        step = Step.map(f"level{level}", items=[1, 2, 3], iterator=iterator)
        iterator = Workflow(f"w{level}", [step])
    with anyio.fail_after(20):
        result = await limited(make_runner, limit).execute(iterator)
    assert result.status == "completed"
    assert gauge.calls == 3**depth
    assert gauge.most <= limit


async def test_plain_handlers_in_nested_maps_cannot_deadlock(make_runner: Any) -> None:
    def plain(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, int]:
        return {"n": context.params["item"]}

    inner = Workflow(steps=[Step.map("inner", items=range(5), iterator=plain)])
    with anyio.fail_after(20):
        result = await limited(make_runner, 1).execute(
            Workflow("w", [Step.map("outer", items=range(5), iterator=inner)])
        )
    assert result.status == "completed"
    assert [one["succeeded"] for one in result.context.get_output("outer", "results")] == [5] * 5


async def test_a_wait_takes_no_place(make_runner: Any) -> None:
    """`max_concurrent_steps` counts lambdas and pipelines that run; a wait is neither."""
    runner = limited(make_runner, 1)
    gauge = Gauge()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runner.execute, Workflow("waits", [Step.wait("pause", 3600)]))
        await anyio.sleep(0.01)
        with anyio.fail_after(10):
            await runner.execute(Workflow("runs", [Step.lambda_("work", gauge)]))
        tasks.cancel_scope.cancel()
    assert gauge.calls == 1


async def test_no_limit_unless_one_is_set(runner: WorkflowRunner) -> None:
    started = []
    all_started = anyio.Event()

    async def waits_for_all(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        started.append(context.params["item"])
        if len(started) == 60:
            all_started.set()
        await all_started.wait()

    step = Step.map("each", items=range(60), iterator=waits_for_all, max_concurrency=60)
    with anyio.fail_after(10):
        result = await runner.execute(Workflow("w", [step]))
    assert result.context.get_output("each", "succeeded") == 60
