"""`execute` with a context of one's own, and from a step in the middle."""

from collections.abc import Mapping
from typing import Any

import pytest

from spine_async import Step, Workflow, WorkflowChangedError, WorkflowContext, WorkflowRunner

pytestmark = pytest.mark.anyio


class Trace:
    def __init__(self) -> None:
        self.ran: list[str] = []

    async def __call__(self, context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
        assert context.step_name is not None
        self.ran.append(context.step_name)
        return {"params": dict(context.params), "seen": context.get_output("a", "seed")}

    def workflow(self) -> Workflow:
        return Workflow("w", [Step.lambda_(name, self) for name in "abc"])


@pytest.fixture
def trace() -> Trace:
    return Trace()


@pytest.mark.parametrize(("start", "ran"), [("a", "abc"), ("b", "bc"), ("c", "c")])
async def test_a_run_may_start_in_the_middle(runner: WorkflowRunner, trace: Trace, start: str, ran: str) -> None:
    result = await runner.execute(trace.workflow(), start_from=start)
    assert result.status == "completed"
    assert trace.ran == list(ran)
    assert result.total_steps == 3


async def test_an_unknown_start_is_refused(runner: WorkflowRunner, trace: Trace) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        await runner.execute(trace.workflow(), start_from="nowhere", run_id="r1")
    assert trace.ran == []
    result = await runner.execute(trace.workflow(), params={"free": True}, run_id="r1")
    assert result.status == "completed"


async def test_the_context_of_another_run_is_carried_on(runner: WorkflowRunner, trace: Trace) -> None:
    async def seed(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"seed": 42}

    before = await runner.execute(Workflow("before", [Step.lambda_("a", seed)]), params={"kept": 1})
    context = before.context.with_params({"added": 2})
    result = await runner.execute(trace.workflow(), context=context, start_from="b", run_id="r2")
    assert result.status == "completed"
    assert trace.ran == ["b", "c"]
    assert result.context.get_output("b") == {"params": {"kept": 1, "added": 2}, "seen": 42}
    assert result.context.get_output("a") == {"seed": 42}
    assert result.context.run_id == result.run_id
    assert result.context.workflow_name == "w"


async def test_a_context_that_went_through_a_dict(runner: WorkflowRunner, trace: Trace) -> None:
    first = await runner.execute(trace.workflow(), params={"kept": 1})
    trace.ran.clear()
    context = WorkflowContext.from_dict(first.context.to_dict())
    result = await runner.execute(trace.workflow(), context=context, start_from="c", run_id="r2")
    assert trace.ran == ["c"]
    assert result.context.get_output("c", "params") == {"kept": 1}


async def test_params_come_on_top_of_the_context(runner: WorkflowRunner, trace: Trace) -> None:
    first = await runner.execute(trace.workflow(), params={"kept": 1, "changed": 1})
    result = await runner.execute(
        trace.workflow(), context=first.context, start_from="c", params={"changed": 2}, run_id="r2"
    )
    assert result.context.get_output("c", "params")["changed"] == 2


async def test_a_run_that_began_in_the_middle_is_resumed_there(runner: WorkflowRunner, trace: Trace) -> None:
    async def breaks_once(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
        trace.ran.append("c")
        if trace.ran.count("c") == 1:
            raise ValueError("once")
        return {"seen": context.get_output("a", "seed")}

    steps = [Step.lambda_("a", trace), Step.lambda_("b", trace), Step.lambda_("c", breaks_once)]
    seeded = (await runner.execute(trace.workflow())).context.with_output("a", {"seed": 42})
    trace.ran.clear()
    workflow = Workflow("middle", steps)
    failed = await runner.execute(workflow, context=seeded, start_from="b", run_id="r2")
    assert (failed.status, failed.error_step) == ("failed", "c")
    resumed = await runner.resume("r2")
    assert resumed.status == "completed"
    assert trace.ran == ["b", "c", "c"]
    assert resumed.context.get_output("c") == {"seen": 42}


async def test_a_resume_whose_definition_lacks_the_step_to_start_from_is_refused(runner: WorkflowRunner) -> None:
    def flow(name: str) -> Workflow:
        def fails(context: WorkflowContext, config: Mapping[str, Any]) -> None:
            raise ValueError("broken")

        return Workflow("w", [Step.lambda_("first", fails), Step.lambda_(name, fails)])

    await runner.execute(flow("second"), start_from="second", run_id="r")
    with pytest.raises(WorkflowChangedError) as caught:
        await runner.resume("r", workflow=flow("renamed"))
    assert caught.value.step == "second"
    assert "step 'second' is missing, but the run starts from it" in str(caught.value)
