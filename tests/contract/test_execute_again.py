"""`execute` with a run id that is stored already."""

from collections.abc import Mapping
from typing import Any

import pytest

from spine_async import RunConflictError, Step, StepResult, Workflow, WorkflowContext, WorkflowRunner

pytestmark = pytest.mark.anyio


class Counting:
    def __init__(self, answer: Any = None) -> None:
        self.calls = 0
        self.answer = answer

    async def __call__(self, context: WorkflowContext, config: Mapping[str, Any]) -> Any:
        self.calls += 1
        return self.answer or {"calls": self.calls}

    def workflow(self, name: str = "orders") -> Workflow:
        return Workflow(name, [Step.lambda_("a", self), Step.choice("b", lambda context: True, "c"), Step.wait("c", 0)])


async def test_a_given_run_id_is_used(runner: WorkflowRunner) -> None:
    result = await runner.execute(Counting().workflow(), run_id="order-17")
    assert result.run_id == result.context.run_id == "order-17"


async def test_run_ids_of_ones_own_are_not_needed(runner: WorkflowRunner) -> None:
    workflow = Counting().workflow()
    ids = {(await runner.execute(workflow)).run_id for _ in range(5)}
    assert len(ids) == 5


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (None, "completed"),
        (StepResult.fail("odd", category="DEPENDENCY"), "failed"),
        (StepResult.stop("closed today"), "stopped"),
    ],
)
async def test_a_finished_run_comes_back_and_nothing_runs(open_runner: Any, answer: Any, status: str) -> None:
    handler = Counting(answer)
    workflow = handler.workflow()
    first = await (await open_runner()).execute(workflow, params={"n": 1}, partition={"day": "d"}, run_id="r1")
    again = await (await open_runner()).execute(workflow, params={"n": 1}, partition={"day": "d"}, run_id="r1")
    assert handler.calls == 1
    assert first.status == again.status == status
    assert again.run_id == "r1"
    for name in ("workflow_name", "completed_steps", "skipped_steps", "failed_steps", "total_steps", "error_step"):
        assert getattr(again, name) == getattr(first, name), name
    for name in ("error", "error_category", "stop_reason"):
        assert getattr(again, name) == getattr(first, name), name
    assert dict(again.context.params) == dict(first.context.params)
    assert {name: again.context.get_output(name) for name in "abc"} == {
        name: first.context.get_output(name) for name in "abc"
    }
    assert dict(again.context.partition) == {"day": "d"}


@pytest.mark.parametrize(
    ("params", "same"),
    [
        pytest.param({"a": (1, 2)}, {"a": [1, 2]}, id="tuple and list"),
        pytest.param({"a": 1, "b": 2}, {"b": 2, "a": 1}, id="order of keys"),
        pytest.param({"a": {"x": 1, "y": 2}}, {"a": {"y": 2, "x": 1}}, id="order of inner keys"),
    ],
)
async def test_params_are_compared_by_value(runner: WorkflowRunner, params: Any, same: Any) -> None:
    handler = Counting()
    await runner.execute(handler.workflow(), params=params, run_id="r1")
    await runner.execute(handler.workflow(), params=same, run_id="r1")
    assert handler.calls == 1


@pytest.mark.parametrize("params", [None, {}, {"n": 2}, {"n": "1"}, {"n": 1, "m": None}, {"n": True}])
async def test_other_params_are_a_conflict(runner: WorkflowRunner, params: Any) -> None:
    handler = Counting()
    await runner.execute(handler.workflow(), params={"n": 1}, run_id="r1")
    with pytest.raises(RunConflictError, match="r1") as refused:
        await runner.execute(handler.workflow(), params=params, run_id="r1")
    assert "params" in str(refused.value)
    assert handler.calls == 1


async def test_the_values_of_params_are_not_in_the_error(runner: WorkflowRunner) -> None:
    await runner.execute(Counting().workflow(), params={"token": "hunter2"}, run_id="r1")
    with pytest.raises(RunConflictError) as refused:
        await runner.execute(Counting().workflow(), params={"token": "swordfish"}, run_id="r1")
    assert "hunter2" not in str(refused.value)
    assert "swordfish" not in str(refused.value)


async def test_another_workflow_is_a_conflict(runner: WorkflowRunner) -> None:
    handler = Counting()
    await runner.execute(handler.workflow("orders"), run_id="r1")
    with pytest.raises(RunConflictError, match="r1") as refused:
        await runner.execute(handler.workflow("prices"), run_id="r1")
    assert "orders" in str(refused.value)
    assert handler.calls == 1


async def test_no_params_and_empty_params_are_the_same(runner: WorkflowRunner) -> None:
    handler = Counting()
    await runner.execute(handler.workflow(), run_id="r1")
    await runner.execute(handler.workflow(), params={}, run_id="r1")
    assert handler.calls == 1


async def test_context_updates_do_not_change_what_the_params_were(runner: WorkflowRunner) -> None:
    handler = Counting(StepResult.ok(context_updates={"n": 2}))
    await runner.execute(handler.workflow(), params={"n": 1}, run_id="r1")
    again = await runner.execute(handler.workflow(), params={"n": 1}, run_id="r1")
    assert handler.calls == 1
    assert again.context.get_param("n") == 2


async def test_the_conflict_changes_nothing(runner: WorkflowRunner) -> None:
    handler = Counting()
    first = await runner.execute(handler.workflow(), params={"n": 1}, run_id="r1")
    with pytest.raises(RunConflictError):
        await runner.execute(handler.workflow(), params={"n": 2}, run_id="r1")
    again = await runner.execute(handler.workflow(), params={"n": 1}, run_id="r1")
    assert again.context.get_output("a") == first.context.get_output("a")
