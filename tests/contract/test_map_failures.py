"""Failed items of a map: tolerance, errors in the output, and the items that a resume runs."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import anyio
import pytest

from spine_async import ErrorPolicy, RetryPolicy, Step, StepError, StepResult, Workflow, WorkflowContext, WorkflowRunner

pytestmark = pytest.mark.anyio


class Items:
    """An iterator that fails for the items in `bad` and counts how often each ran."""

    def __init__(self, *bad: int) -> None:
        self.bad = set(bad)
        self.calls: Counter[int] = Counter()

    async def __call__(self, context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, int]:
        item = context.params["item"]
        self.calls[item] += 1
        if item in self.bad:
            raise StepError(f"item {item} is bad", category="DEPENDENCY")
        return {"item": item}

    def workflow(self, count: int, **options: Any) -> Workflow:
        return Workflow("w", [Step.map("each", items=list(range(count)), iterator=self, **options)])


@pytest.mark.parametrize("tolerated", [2, 3, 0.4, 0.5, 1.0])
async def test_tolerated_failures(runner: WorkflowRunner, tolerated: float) -> None:
    items = Items(1, 3)
    result = await runner.execute(items.workflow(5, tolerated_failures=tolerated))
    assert result.status == "completed"
    assert result.failed_steps == []
    output = result.context.get_output("each")
    assert output["results"] == [{"item": 0}, None, {"item": 2}, None, {"item": 4}]
    assert (output["succeeded"], output["failed"]) == (3, 2)
    errors = sorted(output["errors"], key=lambda error: error["index"])
    assert [(error["index"], error["category"]) for error in errors] == [(1, "DEPENDENCY"), (3, "DEPENDENCY")]
    assert "item 1 is bad" in errors[0]["error"]
    assert set(errors[0]) == {"index", "error", "category"}


@pytest.mark.parametrize("tolerated", [0, 1, 0.0, 0.1, 0.39])
async def test_failures_beyond_what_is_tolerated(runner: WorkflowRunner, tolerated: float) -> None:
    items = Items(1, 3)
    result = await runner.execute(items.workflow(5, tolerated_failures=tolerated))
    assert (result.status, result.error_step) == ("failed", "each")
    assert result.failed_steps == ["each"]
    assert "bad" in str(result.error)


async def test_a_count_of_one_is_no_share(runner: WorkflowRunner) -> None:
    items = Items(0, 1, 2)
    result = await runner.execute(items.workflow(3, tolerated_failures=1))
    assert result.status == "failed"


async def test_all_items_may_fail_when_the_share_is_one(runner: WorkflowRunner) -> None:
    result = await runner.execute(Items(0, 1, 2).workflow(3, tolerated_failures=1.0))
    assert result.status == "completed"
    assert result.context.get_output("each", "results") == [None, None, None]


async def test_a_map_that_failed_may_be_passed_over(runner: WorkflowRunner) -> None:
    result = await runner.execute(Items(1).workflow(3, on_error=ErrorPolicy.CONTINUE))
    assert result.status == "completed"
    assert result.failed_steps == ["each"]


async def test_nothing_tolerated_starts_no_further_items(runner: WorkflowRunner) -> None:
    items = Items(1)
    await runner.execute(items.workflow(50, max_concurrency=1))
    assert items.calls == {0: 1, 1: 1}


async def test_unfinished_items_are_cancelled(runner: WorkflowRunner) -> None:
    cancelled = []
    waiting = anyio.Event()

    async def handler(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        if context.params["item"] == 0:
            await waiting.wait()
            raise ValueError("first")
        waiting.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append(context.params["item"])

    with anyio.fail_after(10):
        result = await runner.execute(Workflow("w", [Step.map("each", items=[0, 1], iterator=handler)]))
    assert (result.status, result.error_step) == ("failed", "each")
    assert "first" in str(result.error)
    assert cancelled == [1]


async def test_a_resume_runs_only_the_rest(runner: WorkflowRunner) -> None:
    items = Items(3)
    result = await runner.execute(items.workflow(6, max_concurrency=1))
    assert items.calls == {0: 1, 1: 1, 2: 1, 3: 1}
    items.bad.clear()
    resumed = await runner.resume(result.run_id)
    assert resumed.status == "completed"
    assert items.calls == {0: 1, 1: 1, 2: 1, 3: 2, 4: 1, 5: 1}
    assert resumed.context.get_output("each") == {
        "results": [{"item": n} for n in range(6)],
        "succeeded": 6,
        "failed": 0,
        "errors": [],
    }


async def test_a_resume_does_not_repeat_the_finished_steps_of_an_item(runner: WorkflowRunner) -> None:
    items = Items(1)
    first: Counter[int] = Counter()

    async def prepare(context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
        first[context.params["item"]] += 1
        return StepResult.ok({"ready": True}, context_updates={"mark": context.params["item"]})

    async def checks(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, int]:
        assert context.get_output("prepare", "ready") is True
        assert context.params["mark"] == context.params["item"]
        return await items(context, config)

    iterator = Workflow(steps=[Step.lambda_("prepare", prepare), Step.lambda_("work", checks)])
    workflow = Workflow("w", [Step.map("each", items=[0, 1, 2], iterator=iterator, max_concurrency=1)])
    result = await runner.execute(workflow)
    assert result.status == "failed"
    items.bad.clear()
    resumed = await runner.resume(result.run_id)
    assert resumed.status == "completed"
    assert first == {0: 1, 1: 1, 2: 1}
    assert resumed.context.get_output("each", "results") == [{"item": 0}, {"item": 1}, {"item": 2}]


async def test_items_are_retried_by_the_policy_of_their_step(runner: WorkflowRunner) -> None:
    items = Items(1)
    retry = RetryPolicy(max_attempts=3, initial_delay=0, jitter=False, retryable_errors=("DEPENDENCY",))
    iterator = Workflow(steps=[Step.lambda_("work", items, retry=retry)])
    step = Step.map("each", items=[0, 1, 2], iterator=iterator, tolerated_failures=1)
    result = await runner.execute(Workflow("w", [step]))
    assert result.status == "completed"
    assert items.calls == {0: 1, 1: 3, 2: 1}


async def test_a_failure_passed_over_inside_an_item_is_no_failed_item(runner: WorkflowRunner) -> None:
    async def last(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, bool]:
        return {"last": True}

    iterator = Workflow(
        steps=[Step.lambda_("work", Items(0), on_error=ErrorPolicy.CONTINUE), Step.lambda_("last", last)]
    )
    result = await runner.execute(Workflow("w", [Step.map("each", items=[0, 1], iterator=iterator)]))
    assert result.status == "completed"
    output = result.context.get_output("each")
    assert (output["results"], output["succeeded"], output["failed"]) == ([{"last": True}] * 2, 2, 0)


async def test_without_collecting_the_counts_remain(runner: WorkflowRunner) -> None:
    result = await runner.execute(Items().workflow(5, collect=False))
    assert result.context.get_output("each") == {"results": None, "succeeded": 5, "failed": 0, "errors": []}


async def test_without_collecting_a_hundred_errors_are_kept(runner: WorkflowRunner) -> None:
    items = Items(*range(120))
    result = await runner.execute(items.workflow(130, collect=False, tolerated_failures=120, max_concurrency=1))
    output = result.context.get_output("each")
    assert (output["results"], output["succeeded"], output["failed"]) == (None, 10, 120)
    assert [error["index"] for error in output["errors"]] == list(range(100))


async def test_with_collecting_every_error_is_kept(runner: WorkflowRunner) -> None:
    result = await runner.execute(Items(*range(120)).workflow(130, tolerated_failures=120))
    assert len(result.context.get_output("each", "errors")) == 120
