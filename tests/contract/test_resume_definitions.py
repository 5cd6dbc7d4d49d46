"""The definition that a resume uses, and the changed definitions that it rejects."""

from collections.abc import Mapping
from typing import Any

import pytest

from spine_async import LocalDispatcher, Step, Workflow, WorkflowChangedError, WorkflowContext, WorkflowRunner

pytestmark = pytest.mark.anyio


async def work(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"step": context.step_name}


async def breaks(context: WorkflowContext, config: Mapping[str, Any]) -> None:
    raise ConnectionError("not yet")


def story(*steps: Step, name: str = "story", last: Any = work) -> Workflow:
    return Workflow(name, [*steps, Step.lambda_("last", last)])


@pytest.fixture
async def failed(make_runner: Any) -> str:
    """A stored run of which `a` and `b` have finished and `last` has failed."""
    workflow = story(Step.lambda_("a", work), Step.lambda_("b", work), last=breaks)
    result = await make_runner().execute(workflow, run_id="r1")
    assert result.completed_steps == ["a", "b"]
    return str(result.run_id)


SAME = story(Step.lambda_("a", work), Step.lambda_("b", work))


async def test_an_executed_workflow_is_known(runner: WorkflowRunner) -> None:
    failed = await runner.execute(story(last=breaks))
    assert (await runner.resume(failed.run_id)).error_step == "last"


async def test_a_registered_workflow_is_known(make_runner: Any, failed: str) -> None:
    runner = make_runner()
    runner.register(SAME)
    assert (await runner.resume(failed)).status == "completed"


async def test_a_workflow_given_to_the_runner_is_known(make_runner: Any, failed: str) -> None:
    assert (await make_runner(workflows=[SAME]).resume(failed)).status == "completed"


async def test_a_workflow_may_be_given_to_resume(make_runner: Any, failed: str) -> None:
    assert (await make_runner().resume(failed, workflow=SAME)).status == "completed"


async def test_the_workflow_given_to_resume_wins(make_runner: Any, failed: str) -> None:
    runner = make_runner(workflows=[story(Step.lambda_("a", work), Step.lambda_("b", work), last=breaks)])
    assert (await runner.resume(failed, workflow=SAME)).status == "completed"


async def test_an_unknown_workflow_is_named(make_runner: Any, failed: str) -> None:
    with pytest.raises(Exception, match="story"):
        await make_runner().resume(failed)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        pytest.param(story(Step.lambda_("a", work), Step.lambda_("renamed", work)), "b", id="renamed"),
        pytest.param(story(Step.lambda_("a", work)), "b", id="removed"),
        pytest.param(story(Step.lambda_("b", work)), "a", id="first removed"),
        pytest.param(story(Step.lambda_("a", work), Step.wait("b", 0)), "b", id="another kind"),
        pytest.param(story(Step.lambda_("a", work), Step.pipeline("b", "load")), "b", id="now a pipeline"),
    ],
)
async def test_completed_steps_that_no_longer_match(
    make_runner: Any, failed: str, changed: Workflow, named: str
) -> None:
    runner = make_runner(dispatcher=LocalDispatcher())
    with pytest.raises(WorkflowChangedError, match=rf"\b{named}\b"):
        await runner.resume(failed, workflow=changed)
    assert (await runner.get_run(failed)).status == "failed"
    assert (await runner.resume(failed, workflow=SAME)).status == "completed"


async def test_steps_that_had_not_finished_may_change(make_runner: Any, failed: str) -> None:
    changed = Workflow(
        "story",
        [Step.lambda_("a", work), Step.lambda_("b", work), Step.lambda_("instead", work), Step.lambda_("more", work)],
    )
    result = await make_runner().resume(failed, workflow=changed)
    assert result.status == "completed"
    assert result.completed_steps == ["a", "b", "instead", "more"]
    assert result.total_steps == 4


async def test_handlers_may_change(make_runner: Any, failed: str) -> None:
    calls = []

    async def better(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        calls.append(context.step_name)

    changed = story(Step.lambda_("a", better), Step.lambda_("b", better), last=better)
    assert (await make_runner().resume(failed, workflow=changed)).status == "completed"
    assert calls == ["last"]


async def test_a_step_that_is_now_something_else_and_had_not_finished(make_runner: Any, failed: str) -> None:
    changed = Workflow("story", [Step.lambda_("a", work), Step.lambda_("b", work), Step.wait("last", 0)])
    assert (await make_runner().resume(failed, workflow=changed)).status == "completed"


@pytest.mark.parametrize(
    "before",
    [
        Step.parallel("each", {"one": work, "two": breaks}),
        Step.workflow("each", Workflow("child", [Step.lambda_("one", work), Step.lambda_("two", breaks)])),
    ],
    ids=["parallel", "workflow"],
)
async def test_a_step_with_finished_steps_inside_that_is_now_a_map(make_runner: Any, before: Step) -> None:
    await make_runner().execute(story(before), run_id="r1")
    changed = story(Step.map("each", items=[1], iterator=work))
    with pytest.raises(WorkflowChangedError, match=r"'each' is a map now, but the finished step 'one' inside of it"):
        await make_runner().resume("r1", workflow=changed)
    assert (await make_runner().get_run("r1")).status == "failed"
    assert (await make_runner().resume("r1", workflow=story(before))).error_step == "each"
