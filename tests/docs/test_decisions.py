"""The behaviour that `docs/decisions/0005` describes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from spine_async import (
    QualityThresholds,
    Step,
    StepResult,
    Workflow,
    WorkflowChangedError,
    WorkflowContext,
    WorkflowRunner,
)
from spine_async.storage import MemoryRunStore

pytestmark = pytest.mark.anyio

Config = dict[str, object]


@pytest.fixture
def runner() -> WorkflowRunner:
    return WorkflowRunner(store=MemoryRunStore())


def item_of(context: WorkflowContext, config: Config) -> dict[str, object]:
    return {"item": context.params["item"]}


async def test_an_override_is_kept_and_the_first_params_still_identify_the_run(runner: WorkflowRunner) -> None:
    steps = [
        Step.lambda_("stop", lambda context, config: StepResult.stop("for now")),
        Step.lambda_("see", lambda context, config: {"size": context.params["size"]}),
    ]
    workflow = Workflow("overridden", steps)
    await runner.execute(workflow, params={"size": 1}, run_id="r1")
    await runner.resume("r1", params_override={"size": 2})
    again = await runner.execute(workflow, params={"size": 1}, run_id="r1")
    assert again.context.get_output("see", "size") == again.context.params["size"] == 2


async def test_a_context_starts_a_new_run(runner: WorkflowRunner) -> None:
    context = WorkflowContext(run_id="old", params={"a": 1, "b": 1}, metadata={"by": "hand"})
    workflow = Workflow("carried", [Step.lambda_("see", lambda context, config: None)], defaults={"a": 0, "c": 0})
    result = await runner.execute(workflow, context=context, params={"b": 2})
    assert result.run_id != "old"
    assert dict(result.context.params) == {"a": 1, "b": 2, "c": 0}
    assert result.context.metadata["by"] == "hand"


@pytest.mark.parametrize("changed", [0, 1])
async def test_another_item_is_refused_on_a_resume(runner: WorkflowRunner, changed: int) -> None:
    items = [10, 11]
    broken = [True]

    def second(context: WorkflowContext, config: Config) -> dict[str, object]:
        if broken[0] and context.params["item"] == 11:
            raise ValueError("not yet")
        return {}

    iterator = Workflow(steps=[Step.lambda_("first", item_of), Step.lambda_("second", second)])
    each = Step.map("each", items=lambda context: items, iterator=iterator, max_concurrency=1)
    await runner.execute(Workflow("changing", [each]), run_id="r1")
    right, items[changed] = items[changed], 99
    broken[0] = False
    with pytest.raises(WorkflowChangedError, match=rf"item {changed} of map 'each': the item differs from the one"):
        await runner.resume("r1")
    items[changed] = right
    assert (await runner.resume("r1")).status == "completed"


async def test_an_iterator_is_used_once(runner: WorkflowRunner) -> None:
    workflow = Workflow("once", [Step.map("each", items=iter([1, 2]), iterator=item_of)])
    first, second = await runner.execute(workflow), await runner.execute(workflow)
    assert (first.status, second.status, second.error_category) == ("completed", "failed", "CONFIGURATION")


async def test_a_stop_in_an_item_stops_the_run_and_a_resume_goes_on_in_that_item(runner: WorkflowRunner) -> None:
    ran: list[object] = []

    def first(context: WorkflowContext, config: Config) -> StepResult:
        ran.append(("first", context.params["item"]))
        return StepResult.stop("enough") if context.params["item"] == 2 else StepResult.ok()

    def second(context: WorkflowContext, config: Config) -> None:
        ran.append(("second", context.params["item"]))

    iterator = Workflow(steps=[Step.lambda_("first", first), Step.lambda_("second", second)])
    workflow = Workflow("stopping", [Step.map("each", items=[1, 2, 3], iterator=iterator, max_concurrency=1)])
    stopped = await runner.execute(workflow)
    assert (stopped.status, stopped.stop_reason) == ("stopped", "enough")
    del ran[:]
    assert (await runner.resume(stopped.run_id)).status == "completed"
    assert ran == [("second", 2), ("first", 3), ("second", 3)]


async def test_a_checkpoint_that_is_not_there_is_none(runner: WorkflowRunner) -> None:
    result = await runner.execute(Workflow("one", [Step.lambda_("only", lambda context, config: None)]))
    assert await runner.get_checkpoint(result.run_id, "other") is None


async def test_a_choice_without_else_names_the_next_step(runner: WorkflowRunner) -> None:
    steps = [Step.choice("choose", lambda context: False, "end"), _nothing("middle"), _nothing("end")]
    result = await runner.execute(Workflow("choosing", steps))
    assert result.context.get_output("choose", "next_step") == "middle"


async def test_thresholds_without_metrics_fail(runner: WorkflowRunner) -> None:
    step = Step.lambda_("load", lambda context, config: {}, quality_thresholds=QualityThresholds(min_record_count=1))
    result = await runner.execute(Workflow("gated", [step]))
    assert (result.status, result.error_category) == ("failed", "DATA_QUALITY")
    assert "the step reported no quality metrics" in str(result.error)


async def test_a_strict_params_model_does_not_see_the_mark_of_a_dry_run() -> None:
    class Strict(BaseModel):
        model_config = ConfigDict(extra="forbid")
        size: int

    seen: list[Any] = []
    note: Callable[..., None] = lambda context, config: seen.append(dict(context.params))  # noqa: E731
    workflow = Workflow("strict", [Step.lambda_("note", note)], params_model=Strict)
    result = await WorkflowRunner(dry_run=True).execute(workflow, params={"size": 1})
    assert result.status == "completed"
    assert seen == [{"size": 1, "__dry_run__": True}]


def _nothing(name: str) -> Step:
    return Step.lambda_(name, lambda context, config: None)
