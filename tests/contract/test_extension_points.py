"""The methods of the runner that users override."""

from collections.abc import Mapping
from typing import Any

import pytest

from spine_async import LocalDispatcher, Step, StepResult, Workflow, WorkflowContext, WorkflowRunner

pytestmark = pytest.mark.anyio


async def work(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"n": 1}


class Noting(WorkflowRunner):
    """Notes each call and passes it on."""

    seen: list[tuple[str, str]]

    async def noted(self, kind: str, step: Any, context: WorkflowContext, result: StepResult) -> StepResult:
        assert context.step_name == step.name
        assert isinstance(result, StepResult)
        self.seen.append((kind, step.name))
        return result

    async def _execute_lambda(self, step: Any, context: WorkflowContext) -> StepResult:
        return await self.noted("lambda", step, context, await super()._execute_lambda(step, context))

    async def _execute_pipeline(self, step: Any, context: WorkflowContext) -> StepResult:
        return await self.noted("pipeline", step, context, await super()._execute_pipeline(step, context))

    async def _execute_choice(self, step: Any, context: WorkflowContext) -> StepResult:
        return await self.noted("choice", step, context, await super()._execute_choice(step, context))

    async def _execute_map(self, step: Any, context: WorkflowContext) -> StepResult:
        return await self.noted("map", step, context, await super()._execute_map(step, context))

    async def _execute_wait(self, step: Any, context: WorkflowContext) -> StepResult:
        return await self.noted("wait", step, context, await super()._execute_wait(step, context))


async def test_each_kind_of_step_has_its_own(make_runner: Any) -> None:
    dispatcher = LocalDispatcher()
    dispatcher.pipeline("load")(lambda params: {"rows": 1})
    runner = make_runner(cls=Noting, dispatcher=dispatcher)
    runner.seen = []
    steps = [
        Step.lambda_("a", work),
        Step.pipeline("b", "load"),
        Step.choice("c", lambda context: True, "e"),
        Step.lambda_("d", work),
        Step.wait("e", 0),
        Step.map("f", items=[1], iterator=Workflow(steps=[Step.lambda_("inside", work)])),
    ]
    result = await runner.execute(Workflow("w", steps))
    assert result.status == "completed"
    assert runner.seen == [
        ("lambda", "a"),
        ("pipeline", "b"),
        ("choice", "c"),
        ("wait", "e"),
        ("lambda", "inside"),
        ("map", "f"),
    ]
    assert result.skipped_steps == ["d"]
    assert result.context.get_output("f", "results") == [{"n": 1}]


class Stamping(WorkflowRunner):
    """As the specification shows: a span of one's own, and the runner's metrics."""

    async def _execute_lambda(self, step: Any, context: WorkflowContext) -> StepResult:
        with self.tracer.start_as_current_span(f"custom:{step.name}"):
            result = await super()._execute_lambda(step, context.with_params({"stamp": "mine"}))
            self.metrics.record_step(step.name, result)
            return StepResult.ok({**result.output, "wrapped": True})


async def test_an_override_changes_what_the_step_sees_and_gives(make_runner: Any) -> None:
    async def reads(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"stamp": context.params["stamp"]}

    result = await make_runner(cls=Stamping).execute(Workflow("w", [Step.lambda_("a", reads)]))
    assert result.context.get_output("a") == {"stamp": "mine", "wrapped": True}


class Refusing(WorkflowRunner):
    async def _execute_wait(self, step: Any, context: WorkflowContext) -> StepResult:
        return StepResult.ok({"waited": False})

    async def _execute_pipeline(self, step: Any, context: WorkflowContext) -> StepResult:
        return StepResult.fail("no pipelines here", category="CONFIGURATION")

    async def _execute_choice(self, step: Any, context: WorkflowContext) -> StepResult:
        raise ValueError("no choices here")


async def test_an_override_may_do_without_the_original(make_runner: Any) -> None:
    runner = make_runner(cls=Refusing)
    waited = await runner.execute(Workflow("waits", [Step.wait("pause", 3600)]))
    assert waited.context.get_output("pause") == {"waited": False}
    failed = await runner.execute(Workflow("loads", [Step.pipeline("load", "anything")]))
    assert (failed.error_step, failed.error_category) == ("load", "CONFIGURATION")
    assert "no pipelines here" in failed.error


async def test_an_override_that_raises_fails_the_step(make_runner: Any) -> None:
    steps = [Step.choice("pick", lambda context: True, "end"), Step.wait("end", 0)]
    result = await make_runner(cls=Refusing).execute(Workflow("picks", steps))
    assert (result.status, result.error_step, result.error_category) == ("failed", "pick", "INTERNAL")
    assert "no choices here" in result.error
