"""Events as plain SQL reads them: which, in what order, numbered without gaps, and without values."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from spine_async import ErrorPolicy, RetryPolicy, Step, StepResult, Workflow, WorkflowContext

pytestmark = pytest.mark.anyio


async def work(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"text": "x" * 1000}


async def breaks(context: WorkflowContext, config: Mapping[str, Any]) -> None:
    raise ValueError("odd")


def kinds(events: list[dict[str, Any]]) -> list[tuple[str, str | None]]:
    return [(event["event_type"], event["step_name"]) for event in events]


async def test_a_run_from_start_to_end(open_runner: Any, stored_events: Any) -> None:
    runner = await open_runner()
    result = await runner.execute(Workflow("w", [Step.lambda_("a", work), Step.lambda_("b", work)]))
    assert kinds(stored_events(result.run_id)) == [
        ("workflow_started", None),
        ("step_started", "a"),
        ("step_completed", "a"),
        ("step_started", "b"),
        ("step_completed", "b"),
        ("workflow_completed", None),
    ]


async def test_what_a_completed_step_says(open_runner: Any, stored_events: Any) -> None:
    runner = await open_runner()
    result = await runner.execute(Workflow("w", [Step.lambda_("a", work), Step.wait("b", 0.01)]))
    events = stored_events(result.run_id)
    completed = {event["step_name"]: event["metadata"] for event in events if event["event_type"] == "step_completed"}
    assert 1000 <= completed["a"]["output_size"] < 1100
    assert completed["a"]["duration_ms"] >= 0
    assert 9 <= completed["b"]["duration_ms"] < 10_000
    years = tuple(str((datetime.now(UTC) + timedelta(days=days)).year) for days in (-1, 1))
    assert all(str(event["timestamp"]).startswith(years) for event in events)
    assert all(isinstance(event["metadata"], dict) for event in events)


async def test_a_failed_run(open_runner: Any, stored_events: Any) -> None:
    runner = await open_runner()
    steps = [Step.lambda_("a", breaks, on_error=ErrorPolicy.CONTINUE), Step.lambda_("b", breaks)]
    result = await runner.execute(Workflow("w", steps))
    seen = kinds(stored_events(result.run_id))
    assert [kind for kind in seen if kind[0] != "step_started"] == [
        ("workflow_started", None),
        ("step_failed", "a"),
        ("step_failed", "b"),
        ("workflow_failed", seen[-1][1]),
    ]


async def test_each_retry_has_an_event(open_runner: Any, stored_events: Any) -> None:
    calls = []

    async def flaky(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionError("gone")

    retry = RetryPolicy(max_attempts=3, initial_delay=0, jitter=False)
    result = await (await open_runner()).execute(Workflow("w", [Step.lambda_("a", flaky, retry=retry)]))
    seen = kinds(stored_events(result.run_id))
    assert seen.count(("step_retrying", "a")) == 2
    assert seen.count(("step_completed", "a")) == 1
    assert seen.count(("step_failed", "a")) == 0
    assert seen.index(("step_started", "a")) < seen.index(("step_retrying", "a")) < seen.index(("step_completed", "a"))


async def test_skipped_steps(open_runner: Any, stored_events: Any) -> None:
    async def skips(context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
        return StepResult.skip("holiday")

    steps = [
        Step.choice("a", lambda context: True, "c"),
        Step.lambda_("b", work),
        Step.lambda_("c", skips),
    ]
    result = await (await open_runner()).execute(Workflow("w", steps))
    seen = kinds(stored_events(result.run_id))
    assert seen.count(("step_skipped", "b")) == 1
    assert seen.count(("step_skipped", "c")) == 1
    assert ("step_started", "b") not in seen
    assert ("step_completed", "b") not in seen


async def test_a_stopped_run_that_is_resumed(open_runner: Any, stored_events: Any) -> None:
    async def stops(context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
        return StepResult.stop("closed")

    runner = await open_runner()
    result = await runner.execute(Workflow("w", [Step.lambda_("a", stops), Step.lambda_("b", work)]))
    before = stored_events(result.run_id)
    assert before[-1]["event_type"] == "workflow_stopped"
    await runner.resume(result.run_id)
    after = stored_events(result.run_id)
    assert kinds(after[: len(before)]) == kinds(before)
    assert kinds(after[len(before) :]) == [
        ("workflow_resumed", None),
        ("step_started", "b"),
        ("step_completed", "b"),
        ("workflow_completed", None),
    ]


async def test_the_items_of_a_map(open_runner: Any, stored_events: Any) -> None:
    async def odd_fails(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, int]:
        if context.params["item"] % 2:
            raise ValueError("odd")
        return {"n": context.params["item"]}

    step = Step.map("each", items=range(20), iterator=odd_fails, tolerated_failures=0.5, max_concurrency=5)
    result = await (await open_runner()).execute(Workflow("w", [step]))
    assert result.status == "completed"
    events = stored_events(result.run_id)
    types = [event["event_type"] for event in events]
    assert types.count("map_item_completed") == 10
    assert types.count("map_item_failed") == 10
    assert ("step_completed", "each") in kinds(events)
    assert types[-1] == "workflow_completed"


async def test_a_steps_own_events(open_runner: Any, stored_events: Any) -> None:
    async def tells(context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
        return StepResult.ok({"n": 1}, events=[{"event_type": "rows_loaded", "metadata": {"rows": 17}}])

    result = await (await open_runner()).execute(Workflow("w", [Step.lambda_("a", tells)]))
    assert result.error is None
    (own,) = [event for event in stored_events(result.run_id) if event["event_type"] == "rows_loaded"]
    assert own["step_name"] == "a"
    assert own["metadata"] == {"rows": 17}


async def test_the_events_of_runs_are_numbered_apart(open_runner: Any, stored_events: Any) -> None:
    runner = await open_runner()
    workflow = Workflow("w", [Step.map("each", items=range(5), iterator=work, max_concurrency=3)])
    for run_id in ("r1", "r2"):
        await runner.execute(workflow, run_id=run_id)
    first, second = stored_events("r1"), stored_events("r2")
    assert [event["number"] for event in first] == list(range(1, len(first) + 1))
    assert [event["number"] for event in second] == list(range(1, len(second) + 1))


async def test_no_event_holds_a_value_of_params_or_outputs(open_runner: Any, sql: Any) -> None:
    async def secret(context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
        return StepResult.ok({"token": "swordfish"}, context_updates={"more": "swordfish"})

    steps = [
        Step.lambda_("a", secret),
        Step.choice("b", lambda context: True, "c"),
        Step.map("c", items=["swordfish"], iterator=secret),
    ]
    result = await (await open_runner()).execute(Workflow("w", steps), params={"token": "swordfish"})
    assert result.status == "completed"
    rows = sql("SELECT * FROM core_workflow_events WHERE run_id = ?", result.run_id)
    assert len(rows) >= 8
    assert "swordfish" not in json.dumps(rows, default=str)
