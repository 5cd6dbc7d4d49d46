"""The test kit: killed and resumed workflows, mocked steps, definitions tried on stored runs."""

from __future__ import annotations

from typing import Any

import pytest

from spine_async import (
    Step,
    StepError,
    StepResult,
    UnknownStepError,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
    WorkflowRunnerConfig,
)
from spine_async.storage import MemoryRunStore
from spine_async.testing import assert_resumes, check_compatible, mock_steps

pytestmark = pytest.mark.anyio
counts: dict[str, int] = {}


async def count(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
    name = f"{context.run_id} {context.params['name']}"
    counts[name] = counts.get(name, 0) + 1
    return {"calls": counts[name]}


async def nothing(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
    return {"by": "handler"}


async def fail(context: WorkflowContext, config: dict[str, Any]) -> StepResult:
    return StepResult.fail("no stock", "DATA_QUALITY")


STEPS = [Step.lambda_("a", nothing), Step.lambda_("b", nothing), Step.lambda_("c", nothing)]


async def test_each_commit_is_killed_before_and_after() -> None:
    assert await assert_resumes(Workflow("w", STEPS)) == 6


async def test_maps_branches_and_retries_resume() -> None:
    async def second_time(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
        if context.attempt == 1:
            raise ConnectionError
        return {"item": context.params["item"]}

    steps = [
        Step.map("all", items=[1, 2, 3], iterator=Workflow("item", [Step.lambda_("b", nothing)])),
        Step.parallel("both", {"x": nothing, "y": [Step.lambda_("one", nothing), Step.lambda_("two", nothing)]}),
        Step.workflow("inner", Workflow("inner", STEPS)),
    ]
    assert await assert_resumes(Workflow("w", steps)) > 10


async def test_a_failure_must_be_the_same_failure() -> None:
    assert await assert_resumes(Workflow("w", [*STEPS, Step.lambda_("fails", fail)])) >= 6


async def test_a_handler_that_depends_on_its_process_is_found() -> None:
    memory: list[str] = []

    async def remember(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
        memory.append("remembered")
        return {}

    async def recall(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
        known = list(memory)
        memory.clear()
        return {"known": known}

    workflow = Workflow("w", [Step.lambda_("remember", remember), Step.lambda_("recall", recall)])
    with pytest.raises(AssertionError, match=r"workflow 'w', killed after commit 1 of 2|killed before commit"):
        await assert_resumes(workflow)


async def test_what_is_compared_can_be_chosen() -> None:
    workflow = Workflow("w", [Step.lambda_("count", count)], defaults={"name": "compared"})
    with pytest.raises(AssertionError, match="killed before commit 1"):
        await assert_resumes(workflow)
    assert await assert_resumes(workflow, compare=lambda result: result.status) == 2


async def outputs_of(workflow: Workflow) -> dict[str, Any]:
    result = await WorkflowRunner(store=MemoryRunStore()).execute(workflow)
    result.raise_for_status()
    outputs: dict[str, Any] = result.to_dict()["context"]["outputs"]
    return outputs


async def test_a_mocked_step_returns_the_given_output() -> None:
    assert await outputs_of(mock_steps(Workflow("w", STEPS), {"b": {"by": "mock"}})) == {
        "a": {"by": "handler"},
        "b": {"by": "mock"},
        "c": {"by": "handler"},
    }


async def test_a_mocked_step_can_raise_and_can_be_a_handler() -> None:
    mocked = mock_steps(Workflow("w", STEPS), {"b": ConnectionError("mocked")})
    result = await WorkflowRunner(store=MemoryRunStore()).execute(mocked)
    assert "mocked" in str(result.error)
    replaced = mock_steps(Workflow("w", STEPS), {"a": lambda context, config: {"by": context.run_id[:0] + "other"}})
    assert (await outputs_of(replaced))["a"] == {"by": "other"}


async def test_steps_in_maps_branches_and_children_are_mocked_by_their_paths() -> None:
    inner = Workflow("inner", [Step.lambda_("one", nothing)])
    workflow = Workflow(
        "w",
        [
            Step.map("all", items=[1, 2], iterator=inner),
            Step.parallel("both", {"x": inner, "y": nothing}),
            Step.workflow("child", inner),
        ],
    )
    mocked = mock_steps(workflow, {"all/one": {"by": 1}, "both[x]/one": {"by": 2}, "child/one": {"by": 3}})
    outputs = await outputs_of(mocked)
    assert [each["by"] for each in outputs["all"]["results"]] == [1, 1]
    assert (outputs["both"]["x"], outputs["child"]) == ({"by": 2}, {"by": 3})


async def test_a_pipeline_is_mocked_without_a_dispatcher() -> None:
    workflow = Workflow("w", [Step.pipeline("ingest", "ingest")])
    assert await outputs_of(mock_steps(workflow, {"ingest": {"rows": 3}})) == {"ingest": {"rows": 3}}


def test_a_mock_of_an_unknown_step_is_an_error() -> None:
    with pytest.raises(UnknownStepError, match="'bb'"):
        mock_steps(Workflow("w", STEPS), {"a": {}, "bb": {}})


async def test_runs_that_a_new_definition_cannot_continue_are_found() -> None:
    store = MemoryRunStore()
    runner = WorkflowRunner(store=store, config=WorkflowRunnerConfig(trace_enabled=False))
    failing = Workflow("w", [*STEPS[:2], Step.lambda_("fails", fail)])
    await runner.execute(failing, run_id="failed")
    await runner.execute(Workflow("w", STEPS), run_id="completed")
    await runner.execute(Workflow("other", [Step.lambda_("fails", fail)]), run_id="other")
    assert await check_compatible(store, Workflow("w", [*STEPS[:2], Step.lambda_("mended", nothing)])) == []
    (found,) = await check_compatible(store, Workflow("w", [STEPS[1], STEPS[0]]))
    assert (found.run_id, str(found.status)) == ("failed", "failed")
    assert "failed" in found.problem
    record = await runner.get_run("failed")
    assert record.status == "failed"


async def test_errors_of_the_workflow_itself_are_raised() -> None:
    with pytest.raises((StepError, Exception), match="param"):
        await assert_resumes(Workflow("w", STEPS), params={1: 2})  # type: ignore[dict-item]
