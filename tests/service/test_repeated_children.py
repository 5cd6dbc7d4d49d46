"""A retry or a resume repeats what failed inside of a step, exactly as often as its policy says."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from spine_async import RetryPolicy, RunStatus, Step, StepResult, Workflow, WorkflowChangedError, WorkflowContext
from tests.service.nesting import Handlers
from tests.service.places import Place
from tests.service.services import until
from tests.service.test_queued_children import PARKS, QUICK, children_of, ended, flow, is_parked, pair

pytestmark = pytest.mark.anyio

TWICE = RetryPolicy(delays=[0.0, 0.0], retryable_errors=("DEPENDENCY",))


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


async def test_a_parent_that_is_parked_in_a_retry_resumes_its_child_once(place: Place, handlers: Handlers) -> None:
    """The parent is woken after each failure of the child, and must not take the new failure for the old one."""

    async def fails(context: WorkflowContext, config: Any) -> StepResult:
        handlers.ran["fails"] += 1
        await until(lambda: is_parked(handle))
        return StepResult.fail("no", "DEPENDENCY")

    child = Workflow("kid", [Step.lambda_("fails", fails)])
    async with place.runner(config=PARKS) as runner:
        handle = runner.handle("r")
        await runner.start(flow(handlers, child, retry=TWICE), run_id="r")
        result = await ended(handle)
        events = [event.event_type async for event in handle.events()]
    assert (result.status, handlers.ran["fails"]) == (RunStatus.FAILED, 3)
    assert events.count("child_resumed") == 2


async def test_a_step_that_has_started_another_workflow_is_refused(place: Place, handlers: Handlers) -> None:
    handlers.broken = {"b"}
    async with place.runner(config=QUICK) as runner:
        await runner.execute(flow(handlers, pair(handlers)), run_id="r")
    handlers.broken = set()
    changed = flow(handlers, Workflow("other", [handlers.step("a"), handlers.step("b")]))
    async with place.runner(config=QUICK) as runner:
        with anyio.fail_after(30), pytest.raises(WorkflowChangedError, match=r"'child'.*'r/child'.*'kid'.*'other' now"):
            await runner.resume("r", workflow=changed)
        assert (await runner.get_run("r")).status == RunStatus.FAILED
        result = await runner.resume("r", workflow=flow(handlers, pair(handlers)))
    assert (result.status, handlers.repeated()) == (RunStatus.COMPLETED, ["b"])


async def test_a_step_with_long_delays_is_retried_again_when_a_step_around_it_is(
    place: Place, handlers: Handlers
) -> None:
    """Each delay is stored; the inner step counts from one again."""
    handlers.broken = {"b"}
    inner = Workflow(steps=[handlers.step("a"), Step.workflow("deep", pair(handlers), retry=TWICE)])
    workflow = Workflow("w", [Step.workflow("outer", inner, retry=TWICE)])
    async with place.runner(config=PARKS) as runner:
        result = await ended(await runner.start(workflow, run_id="r"))
    assert (result.status, result.error_category) == (RunStatus.FAILED, "DEPENDENCY")
    assert (handlers.ran["outer/a"], handlers.ran["outer/deep/a"], handlers.ran["outer/deep/b"]) == (1, 1, 9)


@pytest.mark.parametrize("config", [QUICK, PARKS])
async def test_a_resume_after_a_stop_resumes_children_of_children_and_those_that_have_cleaned_up(
    place: Place, handlers: Handlers, config: dict[str, Any]
) -> None:
    grandchild = Workflow("deep", [handlers.step("c"), handlers.blocking("stuck")], cleanup=[handlers.step("tidy")])
    child = pair(handlers, Step.workflow("deep", grandchild, queue="default"), cleanup=[handlers.step("clean")])
    async with place.runner(config=config) as runner:
        handle = await runner.start(flow(handlers, child), run_id="r")
        await until(lambda: handlers.ran["stuck"] == 1)
        assert await handle.stop("enough")
        assert (await ended(handle)).stop_reason == "enough"
        handlers.gate.set()
        result = await runner.resume("r")  # at once: the children may be stopping still
        records = [await runner.get_run(run_id) for run_id in ("r/child", "r/child/deep")]
        resumed = [event.event_type async for event in runner.events("r/child")].count("workflow_resumed")
    assert (result.status, handlers.ran["a"], handlers.ran["c"]) == (RunStatus.COMPLETED, 1, 1)
    assert [each.status for each in records] == [RunStatus.COMPLETED] * 2
    assert resumed == 1


async def test_a_stop_with_compensations_reaches_the_children(place: Place, handlers: Handlers) -> None:
    async def undo(context: WorkflowContext, config: Any) -> None:
        handlers.ran[f"undo {context.run_id}"] += 1

    booking = Step.lambda_("book", handlers.work, compensate=undo)
    child = Workflow("kid", [booking, handlers.blocking("stuck")], cleanup=[handlers.step("tidy")])
    workflow = Workflow("parent", [booking, Step.workflow("child", child, queue="default")])
    async with place.runner(config=PARKS) as runner:
        handle = await runner.start(workflow, run_id="r")
        await until(lambda: handlers.ran["stuck"] == 1)
        await until(lambda: is_parked(handle))
        assert await handle.stop("enough", compensate=True)
        results = [await ended(runner.handle(run_id)) for run_id in ("r", "r/child")]
    assert [(each.status, each.compensated_steps) for each in results] == [(RunStatus.STOPPED, ["book"])] * 2
    assert (handlers.ran["undo r"], handlers.ran["undo r/child"], handlers.ran["tidy"]) == (1, 1, 1)


@pytest.mark.parametrize("config", [QUICK, PARKS])
async def test_a_deleted_child_fails_its_step_and_is_started_anew_by_a_resume(
    place: Place, handlers: Handlers, config: dict[str, Any]
) -> None:
    workflow = flow(handlers, pair(handlers, handlers.blocking("stuck")))
    async with place.runner(config=config) as runner, place.runner(work=False) as other:
        handle = await runner.start(workflow, run_id="r")
        await until(lambda: handlers.ran["stuck"] == 1)
        if config is PARKS:
            await until(lambda: is_parked(handle))
        await other.delete_run("r/child", force=True)
        result = await ended(handle)
        assert (result.status, result.error_category, await children_of(runner, "r")) == ("failed", "DEPENDENCY", [])
        assert "was deleted before it ended" in str(result.error)
        handlers.gate.set()
        assert (await runner.resume("r")).status == RunStatus.COMPLETED
    assert (handlers.ran["before"], handlers.ran["a"]) == (1, 2)


async def test_a_retry_starts_a_deleted_child_anew(place: Place, handlers: Handlers) -> None:
    workflow = flow(handlers, pair(handlers, handlers.blocking("stuck")), retry=TWICE)
    async with place.runner(config=PARKS) as runner:
        handle = await runner.start(workflow, run_id="r")
        for times in (1, 2):
            await until(lambda times=times: handlers.ran["stuck"] == times)
            await runner.delete_run("r/child", force=True)
        await until(lambda: handlers.ran["stuck"] == 3)
        handlers.gate.set()
        assert (await ended(handle)).status == RunStatus.COMPLETED


async def test_the_deletion_of_a_parent_under_way_fails_no_step_of_it(place: Place, handlers: Handlers) -> None:
    workflow = flow(handlers, pair(handlers, handlers.blocking("stuck")), catch={"*": "after"})
    async with place.runner(config=QUICK) as runner:
        await runner.start(workflow, run_id="r")
        await until(lambda: handlers.ran["stuck"] == 1)
        await runner.delete_run("r", force=True)
        assert await runner.list_runs() == []
    assert handlers.ran["after"] == 0
