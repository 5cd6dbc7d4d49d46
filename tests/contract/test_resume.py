"""Resuming: which steps run, which do not, and the context of the steps."""

from collections.abc import Mapping
from typing import Any

import anyio
import pytest

from spine_async import (
    ErrorPolicy,
    RunNotFoundError,
    RunNotResumableError,
    Step,
    StepResult,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
)

pytestmark = pytest.mark.anyio


class Story:
    """Four steps; `c` fails until `mended` is set."""

    def __init__(self) -> None:
        self.mended = False
        self.ran: list[str] = []
        self.contexts: list[WorkflowContext] = []

    async def work(self, context: WorkflowContext, config: Mapping[str, Any]) -> Any:
        assert context.step_name is not None
        self.ran.append(context.step_name)
        self.contexts.append(context)
        if context.step_name == "a":
            return StepResult.ok({"tuple": (1, 2)}, context_updates={"from_a": True})
        if context.step_name == "c" and not self.mended:
            raise ConnectionError("not yet")
        return {"params": dict(context.params), "a": context.get_output("a")}

    def workflow(self, name: str = "story") -> Workflow:
        return Workflow(name, [Step.lambda_(step, self.work) for step in "abcd"])


@pytest.fixture
def story() -> Story:
    return Story()


async def test_after_a_failure(open_runner: Any, story: Story) -> None:
    failed = await (await open_runner()).execute(story.workflow(), params={"n": 1}, partition={"day": "d"})
    assert (failed.status, failed.error_step, failed.completed_steps) == ("failed", "c", ["a", "b"])
    story.mended = True
    resumed = await (await open_runner()).resume(failed.run_id, workflow=story.workflow())
    assert resumed.status == "completed"
    assert resumed.run_id == failed.run_id
    assert story.ran == ["a", "b", "c", "c", "d"]
    assert resumed.completed_steps == ["a", "b", "c", "d"]
    assert resumed.failed_steps == []
    assert (resumed.error, resumed.error_step, resumed.error_category) == (None, None, None)
    assert resumed.context.get_output("d") == {"params": {"n": 1, "from_a": True}, "a": {"tuple": [1, 2]}}
    assert dict(resumed.context.partition) == {"day": "d"}
    assert resumed.total_steps == 4


async def test_a_run_may_fail_and_be_resumed_again_and_again(runner: WorkflowRunner, story: Story) -> None:
    failed = await runner.execute(story.workflow())
    for _ in range(3):
        assert (await runner.resume(failed.run_id)).status == "failed"
    story.mended = True
    assert (await runner.resume(failed.run_id)).status == "completed"
    assert story.ran == ["a", "b", "c", "c", "c", "c", "c", "d"]


async def test_a_step_sees_that_its_run_was_resumed(runner: WorkflowRunner, story: Story) -> None:
    failed = await runner.execute(story.workflow())
    story.mended = True
    await runner.resume(failed.run_id)
    assert [bool(context.metadata.get("resumed")) for context in story.contexts] == [False] * 3 + [True] * 2
    assert story.contexts[-1].metadata["resumed"] is True


async def test_the_key_of_a_step_visit_stays(runner: WorkflowRunner, story: Story) -> None:
    failed = await runner.execute(story.workflow())
    story.mended = True
    await runner.resume(failed.run_id)
    keys = {context.step_name: context.idempotency_key for context in story.contexts}
    assert [context.idempotency_key for context in story.contexts] == [keys[name] for name in "abccd"]
    assert len(set(keys.values())) == 4


async def test_params_override(runner: WorkflowRunner, story: Story) -> None:
    failed = await runner.execute(story.workflow(), params={"n": 1, "kept": True})
    story.mended = True
    resumed = await runner.resume(failed.run_id, params_override={"n": 2, "new": 3})
    expected = {"n": 2, "kept": True, "new": 3, "from_a": True}
    assert resumed.context.get_output("c", "params") == expected
    assert resumed.context.get_output("d", "params") == expected
    assert resumed.context.get_output("b", "params")["n"] == 1
    assert dict(resumed.context.params) == expected


async def test_params_override_lasts(make_runner: Any, story: Story) -> None:
    failed = await make_runner().execute(story.workflow(), params={"n": 1})
    workflow = story.workflow()
    await make_runner().resume(failed.run_id, params_override={"n": 2}, workflow=workflow)
    story.mended = True
    resumed = await make_runner().resume(failed.run_id, workflow=workflow)
    assert resumed.context.get_output("c", "params")["n"] == 2


async def test_after_a_cancellation(make_runner: Any) -> None:
    calls = []

    async def waits_once(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, int]:
        calls.append(1)
        if len(calls) == 1:
            begun.set()
            await anyio.sleep_forever()
        return {"calls": len(calls)}

    begun = anyio.Event()
    workflow = Workflow("w", [Step.lambda_("waits", waits_once)])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: make_runner().execute(workflow, run_id="r1"))
        await begun.wait()
        tasks.cancel_scope.cancel()
    resumed = await make_runner(workflows=(workflow,)).resume("r1")
    assert resumed.context.get_output("waits") == {"calls": 2}
    assert resumed.stop_reason is None


async def test_a_failure_that_was_passed_over_is_not_tried_again(runner: WorkflowRunner, story: Story) -> None:
    breaks = []

    async def fails(context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
        breaks.append(1)
        return StepResult.fail("optional")

    steps = [Step.lambda_("optional", fails, on_error=ErrorPolicy.CONTINUE), Step.lambda_("c", story.work)]
    failed = await runner.execute(Workflow("w", steps))
    story.mended = True
    resumed = await runner.resume(failed.run_id)
    assert resumed.status == "completed"
    assert resumed.failed_steps == ["optional"]
    assert len(breaks) == 1


async def test_a_choice_is_not_made_again(runner: WorkflowRunner, story: Story) -> None:
    asked = []

    def condition(context: WorkflowContext) -> bool:
        asked.append(1)
        return len(asked) == 1

    steps = [Step.choice("pick", condition, "c", "b"), Step.lambda_("b", story.work), Step.lambda_("c", story.work)]
    failed = await runner.execute(Workflow("w", steps))
    assert failed.skipped_steps == ["b"]
    story.mended = True
    resumed = await runner.resume(failed.run_id)
    assert resumed.status == "completed"
    assert story.ran == ["c", "c"]
    assert len(asked) == 1
    assert resumed.skipped_steps == ["b"]
    assert resumed.completed_steps == ["pick", "c"]


async def test_a_loop_goes_on_where_it_was(runner: WorkflowRunner) -> None:
    ran = []

    async def work(context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
        ran.append(context.get_param("count", 0))
        if len(ran) == 3:
            raise ConnectionError("once")
        return StepResult.ok({"count": ran[-1]}, context_updates={"count": ran[-1] + 1})

    again = Step.choice("again", lambda context: context.params["count"] < 4, "work")
    failed = await runner.execute(Workflow("loop", [Step.lambda_("work", work), again]))
    assert failed.status == "failed"
    resumed = await runner.resume(failed.run_id)
    assert resumed.status == "completed"
    assert ran == [0, 1, 2, 2, 3]
    assert resumed.context.get_output("work") == {"count": 3}


async def test_an_unknown_run(runner: WorkflowRunner, story: Story) -> None:
    with pytest.raises(RunNotFoundError, match="no-such-run"):
        await runner.resume("no-such-run", workflow=story.workflow())


async def test_a_completed_run(runner: WorkflowRunner, story: Story) -> None:
    story.mended = True
    done = await runner.execute(story.workflow(), run_id="r1")
    assert done.status == "completed"
    with pytest.raises(RunNotResumableError, match="r1") as refused:
        await runner.resume("r1")
    assert "completed" in str(refused.value)
    assert story.ran == ["a", "b", "c", "d"]
