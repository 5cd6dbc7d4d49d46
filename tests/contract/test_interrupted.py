"""An interrupted and resumed run ends as an undisturbed one, for each point and each kind of interruption."""

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import anyio
import pytest

from spine_async import (
    LocalDispatcher,
    QualityMetrics,
    Step,
    StepResult,
    Workflow,
    WorkflowContext,
    WorkflowResult,
    WorkflowRunner,
)
from spine_async.storage import MemoryRunStore

pytestmark = pytest.mark.anyio

INTERRUPTIONS = ["failure", "cancellation"]
CALLS = 14
"""How many handlers an undisturbed run calls."""


def timeless(context: WorkflowContext) -> dict[str, Any]:
    """The outputs without that of the wait, which may contain its end."""
    return {name: context.get_output(name) for name in context.outputs if name != "pause"}


class Story:
    """A workflow with every kind of step; interrupts the n-th call of a handler once."""

    def __init__(self, interrupted_call: int = 0, how: str = "failure") -> None:
        self.interrupted_call = interrupted_call
        self.how = how
        self.task: asyncio.Task[WorkflowResult] | None = None
        self.calls = 0
        self.finished: list[str] = []

    async def begin(self) -> None:
        self.calls += 1
        if self.calls != self.interrupted_call:
            return
        if self.how == "failure":
            raise ConnectionError("interrupted")
        assert self.task is not None
        self.task.cancel()
        await anyio.sleep_forever()

    async def fetch(self, context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
        await self.begin()
        self.finished.append("fetch")
        quality = QualityMetrics(record_count=4, valid_count=3)
        return StepResult.ok({"rows": (1, 2, 3), "price": Decimal("1.50")}, {"round": 0}, quality)

    async def count(self, context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
        await self.begin()
        number = context.params["round"] + 1
        self.finished.append(f"count {number}")
        return StepResult.ok({"round": number, "before": context.get_output("count")}, {"round": number})

    async def first(self, context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
        await self.begin()
        item = context.params["item"]
        self.finished.append(f"first {item}")
        return StepResult.ok({"item": item, "round": context.params["round"]}, {"mark": item * 10})

    async def second(self, context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
        await self.begin()
        self.finished.append(f"second {context.params['item']}")
        return {"mark": context.params["mark"], "first": context.get_output("first")}

    async def load(self, params: Mapping[str, Any]) -> dict[str, Any]:
        await self.begin()
        self.finished.append("load")
        return {"table": params["table"]}

    async def never(self, context: WorkflowContext, config: Mapping[str, Any]) -> None:
        self.finished.append("never")

    async def report(self, context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
        await self.begin()
        self.finished.append("report")
        quality = context.get_quality("fetch")
        assert quality is not None
        return {"outputs": timeless(context), "rate": quality.valid_rate}

    def workflow(self) -> Workflow:
        item = Workflow(steps=[Step.lambda_("first", self.first), Step.lambda_("second", self.second)])
        return Workflow(
            "everything",
            [
                Step.lambda_("fetch", self.fetch),
                Step.lambda_("count", self.count),
                Step.choice("again", lambda context: context.params["round"] < 3, "count"),
                Step.choice("pick", lambda context: context.params["round"] == 3, "each"),
                Step.lambda_("never", self.never),
                Step.map("each", items_path="fetch.rows", iterator=item, max_concurrency=1),
                Step.map("fan", items=[4, 5], iterator=self.first, max_concurrency=1),
                Step.wait("pause", 0),
                Step.pipeline("load", "load", {"table": "t"}),
                Step.lambda_("report", self.report),
            ],
        )


async def run(story: Story, open_runner: Any) -> WorkflowResult:
    dispatcher = LocalDispatcher()
    dispatcher.pipeline("load")(story.load)
    runner = await open_runner(dispatcher=dispatcher)
    workflow = story.workflow()
    story.task = asyncio.create_task(runner.execute(workflow, params={"day": "d"}, partition={"p": 1}, run_id="r1"))
    result: WorkflowResult
    try:
        result = await story.task
    except asyncio.CancelledError:
        assert story.how == "cancellation"
        assert (await runner.get_run("r1")).status == "stopped"
    else:
        if story.interrupted_call == 0:
            return result
        assert result.status == "failed"
    other = await open_runner(dispatcher=dispatcher)
    result = await other.resume("r1", workflow=workflow)
    return result


def summary(result: WorkflowResult) -> dict[str, Any]:
    context = result.context
    return {
        "status": str(result.status),
        "completed": result.completed_steps,
        "skipped": result.skipped_steps,
        "failed": result.failed_steps,
        "params": dict(context.params),
        "partition": dict(context.partition or {}),
        "outputs": timeless(context),
        "order": list(context.outputs),
        "quality": context.get_quality("fetch"),
        "metrics": [metric.name for metric in result.step_metrics if str(metric.status) == "completed"],
    }


@pytest.fixture
async def open_in_memory(make_runner: Any) -> Any:
    async def open_one(**settings: Any) -> Any:
        return make_runner(**settings)

    return open_one


async def undisturbed() -> tuple[Story, dict[str, Any]]:
    async def open_one(**settings: Any) -> WorkflowRunner:
        return WorkflowRunner(store=MemoryRunStore(), **settings)

    story = Story()
    return story, summary(await run(story, open_one))


async def test_the_undisturbed_run() -> None:
    story, seen = await undisturbed()
    assert seen["status"] == "completed"
    assert story.calls == CALLS
    assert seen["completed"] == ["fetch", "count", "again", "pick", "each", "fan", "pause", "load", "report"]
    assert seen["skipped"] == ["never"]


@pytest.mark.parametrize("how", INTERRUPTIONS)
@pytest.mark.parametrize("call", range(1, CALLS + 1))
async def test_interrupted_in_memory(open_in_memory: Any, call: int, how: str) -> None:
    straight, expected = await undisturbed()
    story = Story(call, how)
    assert summary(await run(story, open_in_memory)) == expected
    assert story.finished == straight.finished


@pytest.mark.parametrize("how", INTERRUPTIONS)
@pytest.mark.parametrize("call", [3, 7, 12])
async def test_interrupted_on_a_database(
    open_runner: Any, stored_events: Any, sql: Any, *, call: int, how: str
) -> None:
    straight, expected = await undisturbed()
    story = Story(call, how)
    assert summary(await run(story, open_runner)) == expected
    assert story.finished == straight.finished
    types = [event["event_type"] for event in stored_events("r1")]
    assert types.count("map_item_completed") == 5
    assert types[-1] == "workflow_completed"
    rows = sql("SELECT step_name FROM core_workflow_checkpoints WHERE run_id = ? AND step_name = ?", "r1", "count")
    assert len(rows) == 3
