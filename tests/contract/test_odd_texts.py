"""Texts that databases refuse, in every place a user can put one: never a run left half-way, never a raised error."""

from collections.abc import Mapping
from typing import Any

import pytest

from spine_async import ErrorPolicy, Step, StepError, StepResult, Workflow, WorkflowContext

pytestmark = pytest.mark.anyio

TEXTS = [
    pytest.param("a\x00b", id="U+0000"),
    pytest.param("a\ud800b", id="lone surrogate"),
    pytest.param("a🐎\u2028'\"\\%s{}$1:x?b", id="quotes and signs"),
]


def answering(answer: Any) -> Any:
    async def handler(context: WorkflowContext, config: Mapping[str, Any]) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return handler


async def after(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, bool]:
    return {"ran": True}


async def run(open_runner: Any, answer: Any) -> Any:
    runner = await open_runner()
    steps = [Step.lambda_("odd", answering(answer), on_error=ErrorPolicy.CONTINUE), Step.lambda_("after", after)]
    result = await runner.execute(Workflow("w", steps), run_id="r1")
    stored = await runner.get_run("r1")
    assert stored.status == result.status
    again = await runner.execute(Workflow("w", steps), run_id="r1")
    assert (again.status, again.completed_steps, again.failed_steps) == (
        result.status,
        result.completed_steps,
        result.failed_steps,
    )
    assert (again.stop_reason, again.error) == (result.stop_reason, result.error)
    return result


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("kind", ["exception", "StepError", "fail"])
async def test_in_an_error(open_runner: Any, text: str, kind: str) -> None:
    answers = {"exception": ValueError(text), "StepError": StepError(text), "fail": StepResult.fail(text)}
    result = await run(open_runner, answers[kind])
    assert result.status == "completed"
    assert result.failed_steps == ["odd"]
    assert result.completed_steps == ["after"]


@pytest.mark.parametrize("text", TEXTS)
async def test_in_the_error_of_a_run(open_runner: Any, text: str) -> None:
    runner = await open_runner()
    result = await runner.execute(Workflow("w", [Step.lambda_("odd", answering(ValueError(text)))]), run_id="r1")
    assert (result.status, result.error_category) == ("failed", "INTERNAL")
    stored = await runner.get_run("r1")
    assert (stored.status, stored.error) == ("failed", result.error)


@pytest.mark.parametrize("text", TEXTS)
async def test_in_a_reason(open_runner: Any, text: str) -> None:
    result = await run(open_runner, StepResult.stop(text))
    assert result.status == "stopped"
    assert result.stop_reason


@pytest.mark.parametrize("text", TEXTS)
async def test_in_the_reason_of_a_skip(open_runner: Any, text: str) -> None:
    result = await run(open_runner, StepResult.skip(text))
    assert result.status == "completed"
    assert result.skipped_steps == ["odd"]


@pytest.mark.parametrize("text", TEXTS)
async def test_in_a_category(open_runner: Any, text: str) -> None:
    result = await run(open_runner, StepResult.fail("odd", category=text))
    assert result.status == "completed"
    assert result.failed_steps == ["odd"]


@pytest.mark.parametrize("text", TEXTS)
async def test_in_the_type_of_an_own_event(open_runner: Any, text: str) -> None:
    """It is stored, or the step fails immediately; the run continues in both cases."""
    result = await run(open_runner, StepResult.ok({"n": 1}, events=[{"event_type": text, "metadata": {}}]))
    assert result.status == "completed"
    assert "after" in result.completed_steps
    assert ("odd" in result.completed_steps) != ("odd" in result.failed_steps)


@pytest.mark.parametrize("metadata", [{"text": "a\x00b"}, {"text": "a\ud800b"}, {"rate": float("nan")}, {1: "a"}])
async def test_in_the_metadata_of_an_own_event(open_runner: Any, metadata: dict[Any, Any]) -> None:
    result = await run(open_runner, StepResult.ok({"n": 1}, events=[{"event_type": "own", "metadata": metadata}]))
    assert result.status == "completed"
    kept = metadata == {"text": "a\x00b"}
    assert result.completed_steps == (["odd", "after"] if kept else ["after"])
    assert result.failed_steps == ([] if kept else ["odd"])


class SilentError(Exception):
    """An exception of a user's that cannot even be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


async def test_an_exception_without_a_text_is_still_named(open_runner: Any) -> None:
    runner = await open_runner()
    result = await runner.execute(Workflow("w", [Step.lambda_("odd", answering(SilentError()))]))
    assert (result.status, result.error_category) == ("failed", "INTERNAL")
    assert "SilentError" in result.error


@pytest.mark.parametrize("value", ["a\x00b", "🐎'\"\\%s"])
async def test_in_params_and_partition(open_runner: Any, value: str) -> None:
    runner = await open_runner()
    workflow = Workflow("w", [Step.lambda_("a", after)])
    await runner.execute(workflow, params={"p": value}, partition={"q": value}, run_id="r1")
    stored = await runner.get_run("r1")
    assert stored.params == {"p": value}
    assert stored.partition == {"q": value}


@pytest.mark.parametrize("name", ["it's", 'say "x"', "50%s", "a;b--", "snow ☃", "{0}"])
async def test_in_names(open_runner: Any, stored_events: Any, name: str) -> None:
    runner = await open_runner()
    result = await runner.execute(Workflow(name, [Step.lambda_(name, after)]), run_id="r1")
    assert result.completed_steps == [name]
    assert (await runner.get_run("r1")).workflow_name == name
    assert [run.run_id for run in await runner.list_runs(workflow_name=name)] == ["r1"]
    checkpoint = await runner.get_checkpoint("r1", name)
    assert checkpoint.context_snapshot["outputs"] == {name: {"ran": True}}
    assert {event["step_name"] for event in stored_events("r1")} == {None, name}
