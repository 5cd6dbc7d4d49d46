"""Values that are large: refused by name beyond `max_value_bytes`, and never encoded on the event loop."""

import re
import threading
from typing import Any

import pytest

from spine_async import (
    ErrorPolicy,
    InvalidParamsError,
    RetryPolicy,
    Step,
    StepResult,
    Workflow,
    WorkflowChangedError,
    WorkflowContext,
    WorkflowRunnerConfig,
)
from spine_async._engine.step import large_values
from spine_async._model import large_document
from tests.lag import measured_lag

pytestmark = pytest.mark.anyio

LIMIT = 1_000
TEXT = "é" * 600  # 1,202 bytes as JSON, 600 characters


def limited(make_runner: Any, limit: int = LIMIT) -> Any:
    return make_runner(config=WorkflowRunnerConfig(max_value_bytes=limit))


def returning(value: Any) -> Any:
    async def handler(context: WorkflowContext, config: Any) -> Any:
        return value

    return handler


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ({"text": TEXT}, r"its output has 1,211 bytes"),
        (StepResult.ok(None, {"p": TEXT}), r"its update of param 'p' has 1,202 bytes"),
        (
            StepResult.ok(events=[{"event_type": "noted", "metadata": {"text": TEXT}}]),
            r"its event 'noted' has 1,211 bytes",
        ),
        (StepResult.skip("why", {"text": TEXT}), r"its output has 1,211 bytes"),
        (StepResult.stop("why", {"text": TEXT}), r"its output has 1,211 bytes"),
    ],
)
async def test_a_value_that_is_too_large_fails_its_step(make_runner: Any, value: Any, what: str) -> None:
    runner = limited(make_runner)
    result = await runner.execute(Workflow("w", [Step.lambda_("load", returning(value))]), run_id="r")
    assert (result.status, result.error_step, result.error_category) == ("failed", "load", "INTERNAL")
    assert result.error is not None
    assert "step 'load'" in result.error
    assert re.search(what, result.error), result.error
    assert "max_value_bytes (1,000)" in result.error
    assert "é" not in result.error


async def test_values_at_the_limit_are_stored(make_runner: Any) -> None:
    runner = limited(make_runner)
    value = StepResult.ok("x" * 998, {"p": "x" * 998, "q": "x" * 998})
    result = await runner.execute(Workflow("w", [Step.lambda_("a", returning(value))]), params={"p": "y" * 998})
    assert result.status == "completed", result.error


async def test_a_tolerated_step_continues_without_the_value(make_runner: Any) -> None:
    steps = [
        Step.lambda_("load", returning({"text": TEXT}), on_error=ErrorPolicy.CONTINUE),
        Step.lambda_("after", returning({"ok": 1})),
    ]
    result = await limited(make_runner).execute(Workflow("w", steps))
    assert (result.status, result.failed_steps, result.completed_steps) == ("completed", ["load"], ["after"])


async def test_a_failure_keeps_its_reason_and_loses_a_large_output(make_runner: Any) -> None:
    failed = StepResult.fail("the real reason", "TRANSIENT", output={"text": TEXT})
    result = await limited(make_runner).execute(Workflow("w", [Step.lambda_("a", returning(failed))]))
    assert (result.error, result.error_category) == ("the real reason", "TRANSIENT")


async def test_retries_see_the_failure(make_runner: Any) -> None:
    values = [{"text": TEXT}, {"n": 1}]

    async def shrinking(context: WorkflowContext, config: Any) -> Any:
        return values[context.attempt - 1]

    policy = RetryPolicy(max_attempts=2, initial_delay=0.001, retryable_errors=("INTERNAL",))
    result = await limited(make_runner).execute(Workflow("w", [Step.lambda_("a", shrinking, retry=policy)]))
    assert result.context.get_output("a") == {"n": 1}


@pytest.mark.parametrize("where", ["params", "partition", "defaults"])
async def test_a_param_that_is_too_large_is_refused_before_anything_is_stored(make_runner: Any, where: str) -> None:
    runner = limited(make_runner)
    steps = [Step.lambda_("a", returning(None))]
    workflow = Workflow("w", steps, defaults={"text": TEXT} if where == "defaults" else None)
    given = {where: {"text": TEXT}} if where != "defaults" else {}
    with pytest.raises(InvalidParamsError, match=rf"'text' of {where} has 1,202 bytes.*max_value_bytes"):
        await runner.execute(workflow, **given)
    assert await runner.list_runs() == []


async def test_the_params_of_a_context_and_of_a_resume_have_the_same_limit(make_runner: Any) -> None:
    runner = limited(make_runner)
    workflow = Workflow(
        "w", [Step.lambda_("a", returning(StepResult.stop("later"))), Step.lambda_("b", returning(None))]
    )
    with pytest.raises(InvalidParamsError, match="'text' of params"):
        await runner.execute(workflow, context=WorkflowContext(params={"text": TEXT}))
    await runner.execute(workflow, run_id="r")
    with pytest.raises(InvalidParamsError, match="'text' of params_override"):
        await runner.resume("r", params_override={"text": TEXT})
    assert (await runner.resume("r")).status == "completed"


async def test_an_item_that_is_too_large_fails_only_that_item(make_runner: Any) -> None:
    step = Step.map("each", items=["a", TEXT, "b"], iterator=returning({"n": 1}), tolerated_failures=0.5)
    result = await limited(make_runner).execute(Workflow("w", [step]))
    output = result.context.get_output("each")
    assert output["succeeded"] == 2
    (error,) = output["errors"]
    assert (error["index"], error["category"]) == (1, "INTERNAL")
    assert "item 1 of map 'each' has 1,202 bytes" in error["error"]


async def test_the_results_of_a_map_are_an_output_like_any_other(make_runner: Any) -> None:
    step = Step.map("each", items=range(4), iterator=returning({"text": "x" * 400}))
    result = await limited(make_runner).execute(Workflow("w", [step]))
    assert (result.error_step, result.error_category) == ("each", "INTERNAL")
    assert "step 'each' returned a value that is too large" in str(result.error)


async def test_large_values_come_back_as_small_ones_do(open_runner: Any) -> None:
    rows = [{"n": number, "text": "é" * 20} for number in range(30_000)]
    seen: list[object] = []

    async def produce(context: WorkflowContext, config: Any) -> StepResult:
        events = [{"event_type": "noted", "metadata": {"rows": rows}}]
        return StepResult.ok({"rows": rows}, {"updated": rows}, events=events)

    async def read(context: WorkflowContext, config: Any) -> None:
        same = (context.params["given"], context.params["updated"], context.get_output("produce", "rows"))
        seen.append([each == rows for each in same])
        if len(seen) == 1:
            raise ValueError("not yet")

    workflow = Workflow("w", [Step.lambda_("produce", produce), Step.lambda_("read", read)])
    runner = await open_runner()
    failed = await runner.execute(workflow, params={"given": rows}, run_id="r")
    assert failed.status == "failed"
    again = await runner.execute(workflow, params={"given": [dict(row) for row in rows]}, run_id="r")
    assert again.error == failed.error
    assert (await runner.resume("r")).status == "completed"
    assert seen == [[True] * 3] * 2
    checkpoint = await runner.get_checkpoint("r", "produce")
    assert checkpoint.context_snapshot["params"] == {"given": rows, "updated": rows}
    (noted,) = [event async for event in runner.events("r") if event.event_type == "noted"]
    assert noted.metadata == {"rows": rows}


async def test_middleware_gets_the_values_and_not_documents(make_runner: Any) -> None:
    rows = [{"n": number} for number in range(30_000)]
    runner, seen = make_runner(), []

    @runner.middleware
    async def look(step: Step, context: WorkflowContext, next_fn: Any) -> StepResult:
        result = await next_fn(step, context)
        seen.append(result.output)
        return result

    await runner.execute(Workflow("w", [Step.lambda_("a", returning({"rows": rows}))]))
    assert seen == [{"rows": rows}]


async def test_a_large_value_is_encoded_on_a_thread_and_a_small_one_is_not(
    make_runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: dict[str, bool] = {}
    original = large_values.encode_result

    def recording(step: Step, result: StepResult, **options: Any) -> Any:
        threads[step.name] = threading.current_thread() is threading.main_thread()
        return original(step, result, **options)

    monkeypatch.setattr(large_values, "encode_result", recording)
    steps = [
        Step.lambda_("small", returning({"n": 1})),
        Step.lambda_("large", returning({"rows": [{"n": number} for number in range(30_000)]})),
    ]
    result = await make_runner().execute(Workflow("w", steps))
    assert result.status == "completed"
    assert threads == {"small": True, "large": False}


async def test_a_value_that_is_changed_meanwhile_is_stored_whole_or_refused(
    make_runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    value: dict[str, Any] = {f"k{number}": ["x" * 100] for number in range(20_000)}
    original, begun = large_document._object_pieces, threading.Event()

    def slow(*args: Any) -> Any:
        for number, piece in enumerate(original(*args)):
            if number == 10:
                value["added meanwhile"] = 1
                begun.set()
            yield piece

    monkeypatch.setattr(large_document, "_object_pieces", slow)
    result = await make_runner().execute(Workflow("w", [Step.lambda_("a", returning(value))]), run_id="r")
    assert begun.is_set()
    if result.status == "completed":  # it was encoded again
        assert result.context.get_output("a") == value
    else:
        assert "changed" in str(result.error)


@pytest.mark.slow
async def test_the_loop_runs_while_a_large_value_is_encoded(make_runner: Any) -> None:
    """In one piece, this value stops the loop for a second. The bound is in the thread's own CPU time."""
    rows = [{"id": number, "name": f"row {number}", "v": [number, number + 1]} for number in range(200_000)]
    async with measured_lag() as lag:
        result = await make_runner().execute(Workflow("w", [Step.lambda_("a", returning({"rows": rows}))]))
    assert result.status == "completed", result.error
    assert lag.turns > 20
    assert lag.worst_cpu_ms < 50


async def test_the_loop_runs_while_a_large_item_is_encoded_and_compared(make_runner: Any) -> None:
    """The item is a large list of rows; the retry of the map compares it with the first attempt's."""
    rows = [{"number": number, "text": "a" * 20} for number in range(100_000)]
    attempts: list[int] = []

    async def count(context: WorkflowContext, config: Any) -> None:
        attempts.append(context.attempt)

    async def fail_once(context: WorkflowContext, config: Any) -> None:
        if len(attempts) == 1:
            attempts.append(0)
            raise ConnectionError

    iterator = Workflow(steps=[Step.lambda_("count", count), Step.lambda_("fail", fail_once)])
    step = Step.map("m", items=lambda _: [rows], iterator=iterator, retry=RetryPolicy(2, initial_delay=0))
    runner = make_runner()
    async with measured_lag() as lag:
        result = await runner.execute(Workflow("w", [step]))
    assert result.status == "completed", result.error
    assert attempts == [1, 0]
    assert lag.turns > 20
    assert lag.worst_cpu_ms < 50


async def test_a_large_item_that_differs_is_refused(make_runner: Any) -> None:
    lists = [[{"a": 1, "b": number} for number in range(40_000)], [{"b": number, "a": 1} for number in range(40_000)]]
    lists.append([*lists[0][:-1], {"a": 2, "b": 39_999}])

    async def fail(context: WorkflowContext, config: Any) -> None:
        raise ConnectionError

    def workflow(item: Any, *, fails: bool) -> Workflow:
        iterator = Workflow(
            steps=[Step.lambda_("first", returning(None)), Step.lambda_("last", fail if fails else returning(None))]
        )
        return Workflow("w", [Step.map("m", items=[item], iterator=iterator)])

    runner = make_runner()
    assert (await runner.execute(workflow(lists[0], fails=True), run_id="r")).status == "failed"
    with pytest.raises(WorkflowChangedError, match="differs"):
        await runner.resume("r", workflow=workflow(lists[2], fails=False))
    assert (await runner.resume("r", workflow=workflow(lists[1], fails=False))).status == "completed"
