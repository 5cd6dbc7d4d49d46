"""`Step.parallel`: its output, how many branches must succeed, what is cancelled, and what a resume repeats."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from spine_async import (
    END,
    DefinitionError,
    LocalDispatcher,
    RetryPolicy,
    RunStatus,
    Step,
    StepResult,
    Workflow,
    WorkflowChangedError,
    WorkflowRunner,
)
from tests.service.nesting import Handlers
from tests.service.places import Place
from tests.service.services import until

pytestmark = pytest.mark.anyio

AT_ONCE = RetryPolicy(max_attempts=3, initial_delay=0.0, jitter=False, retryable_errors=("DEPENDENCY",))


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


def flow(handlers: Handlers, branches: Any, **options: Any) -> Workflow:
    return Workflow("w", [handlers.step("before"), Step.parallel("both", branches, **options), handlers.step("after")])


async def test_each_form_of_a_branch_runs_and_sees_what_precedes_the_step(place: Place, handlers: Handlers) -> None:
    branches = {
        "flow": Workflow("sub", [handlers.step("a"), handlers.step("b")], defaults={"day": 0, "limit": 5}),
        "handler": handlers.work,
        "step": handlers.step("single"),
        "list": [handlers.step("a"), Step.parallel("inner", {"x": handlers.work})],
    }
    result = await place.runner().execute(flow(handlers, branches), params={"day": 1}, run_id="r")
    assert result.context.get_output("both") == {
        "flow": {"by": "b"},
        "handler": {"by": "handler"},
        "step": {"by": "single"},
        "list": {"x": {"by": "x"}},
    }
    assert handlers.seen["both[flow]/b"] == ({"day": 1, "limit": 5}, ["a", "before"])
    assert handlers.seen["both[list]/inner[x]/x"] == ({"day": 1}, ["a", "before"])
    assert handlers.seen["after"] == ({"day": 1}, ["before", "both"])


@pytest.mark.parametrize("need", ["any", 2])
async def test_when_enough_branches_have_succeeded_the_others_are_cancelled(
    place: Place, handlers: Handlers, need: Any
) -> None:
    branches = {
        "slow": handlers.blocking("slow"),
        "quick": handlers.step("quick"),
        "also": [handlers.step("first"), handlers.step("second")],
    }
    result = await place.runner().execute(flow(handlers, branches, need=need), run_id="r")
    outputs = result.context.get_output("both")
    assert result.status == RunStatus.COMPLETED
    assert (outputs["slow"], sum(each is not None for each in outputs.values())) == (None, 1 if need == "any" else 2)
    assert handlers.reasons == {"both[slow]/slow": "sibling_done"}


async def test_a_failure_that_the_need_tolerates_leaves_none(place: Place, handlers: Handlers) -> None:
    handlers.broken = {"x"}
    workflow = flow(handlers, {"x": handlers.work, "y": handlers.work, "z": handlers.work}, need=2)
    runner = place.runner()
    result = await runner.execute(workflow, run_id="r")
    assert result.context.get_output("both") == {"x": None, "y": {"by": "y"}, "z": {"by": "z"}}
    events = {(each.event_type, each.path): each.metadata async for each in runner.events("r")}
    assert events["branch_completed", "both[y]"]["branch"] == "y"
    assert events["branch_failed", "both[x]"] == {
        "branch": "x",
        "error": "step 'x' failed: StepError: x is broken",
        "category": "DEPENDENCY",
    }


async def test_the_step_fails_when_too_few_branches_can_succeed(place: Place, handlers: Handlers) -> None:
    handlers.broken = {"x", "y"}
    branches = {"slow": handlers.blocking("slow"), "y": handlers.work, "x": handlers.work}
    result = await place.runner().execute(flow(handlers, branches, need=2), run_id="r")
    assert (result.status, result.error_step, result.error_category) == (RunStatus.FAILED, "both", "DEPENDENCY")
    assert result.error == (
        "2 of 3 branches failed, and 2 must succeed; branch 'y': step 'y' failed: StepError: y is broken; "
        "branch 'x': step 'x' failed: StepError: x is broken"
    )
    assert handlers.reasons == {"both[slow]/slow": "sibling_failed"}


async def test_a_resume_runs_only_what_is_not_finished(place: Place, handlers: Handlers) -> None:
    handlers.broken = {"x", "b"}
    branches = {"whole": [handlers.step("p"), handlers.step("q")], "half": [handlers.step("a"), handlers.step("b")]}
    workflow = flow(handlers, branches, max_concurrency=1)
    assert (await place.runner().execute(workflow, run_id="r")).status == RunStatus.FAILED
    handlers.broken = set()
    result = await place.runner().resume("r", workflow=workflow)
    assert (result.status, handlers.repeated()) == (RunStatus.COMPLETED, ["both[half]/b"])
    assert result.context.get_output("both") == {"whole": {"by": "q"}, "half": {"by": "b"}}


async def test_a_retry_continues_the_branches_where_they_failed(place: Place, handlers: Handlers) -> None:
    failures = [False, True]

    async def flaky(context: Any, config: Any) -> StepResult:
        await handlers.work(context, config)
        return StepResult.fail("not yet", "DEPENDENCY") if failures.pop() else StepResult.ok({})

    branches = {"good": handlers.step("good"), "bad": [handlers.step("a"), Step.lambda_("flaky", flaky)]}
    result = await place.runner().execute(flow(handlers, branches, retry=AT_ONCE, max_concurrency=1), run_id="r")
    assert (result.status, handlers.repeated()) == (RunStatus.COMPLETED, ["both[bad]/flaky"])


async def test_a_caught_failure_and_the_end_of_a_branch(place: Place, handlers: Handlers) -> None:
    handlers.broken = {"x"}
    ending = [handlers.step("a", next_step=END), handlers.step("never")]
    step = Step.parallel("both", {"x": handlers.work, "y": ending}, max_concurrency=1, catch={"DEPENDENCY": "repair"})
    workflow = Workflow("w", [step, handlers.step("skipped"), handlers.step("repair")])
    result = await place.runner().execute(workflow, run_id="r")
    assert (result.status, sorted(handlers.ran)) == (RunStatus.COMPLETED, ["both[x]/x", "repair"])
    handlers.broken = set()
    result = await place.runner().execute(workflow, run_id="good")
    assert result.context.get_output("both") == {"x": {"by": "x"}, "y": {"by": "a"}}


async def test_branches_run_at_the_same_time_within_the_limit(handlers: Handlers) -> None:
    now, most = 0, 0

    async def count(context: Any, config: Any) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await anyio.sleep(0.01)
        now -= 1

    for limit, expected in ((None, 6), (2, 2), (lambda context: 3, 3)):
        most = 0
        await Place(None).runner().execute(flow(handlers, {f"b{n}": count for n in range(6)}, max_concurrency=limit))
        assert most == expected


async def test_a_stop_of_the_run_reaches_all_branches(place: Place, handlers: Handlers) -> None:
    workflow = flow(handlers, {"x": handlers.blocking("x"), "y": handlers.blocking("y")})
    async with place.runner() as runner:
        handle = await runner.start(workflow, run_id="r")
        await until(lambda: handlers.ran["both[x]/x"] + handlers.ran["both[y]/y"] == 2)
        assert await handle.stop()
        assert (await handle.result()).status == RunStatus.STOPPED
    assert handlers.reasons == {"both[x]/x": "user", "both[y]/y": "user"}


async def test_a_timeout_limits_the_whole_step(place: Place, handlers: Handlers) -> None:
    branches = {"x": handlers.step("x"), "y": handlers.blocking("y")}
    result = await place.runner().execute(flow(handlers, branches, timeout=1.0), run_id="r")
    assert (result.status, result.error_category) == (RunStatus.FAILED, "TIMEOUT")
    assert handlers.reasons == {"both[y]/y": "step_timeout"}


async def test_after_a_shutdown_finished_branches_do_not_run_again(place: Place, handlers: Handlers) -> None:
    workflow = flow(handlers, {"x": [handlers.step("a"), handlers.blocking("stuck")], "y": handlers.step("y")})
    async with place.runner() as runner:
        await runner.start(workflow, run_id="r")
        await until(lambda: handlers.ran["both[x]/stuck"] and handlers.ran["both[y]/y"])
        await until(lambda: has_event(runner, "branch_completed"))
    handlers.gate.set()
    async with place.runner(workflows=[workflow]) as runner:
        with anyio.fail_after(60):
            result = await runner.handle("r").result()
    assert (result.status, handlers.repeated()) == (RunStatus.COMPLETED, ["both[x]/stuck"])


async def has_event(runner: WorkflowRunner, event_type: str) -> bool:
    return event_type in [each.event_type async for each in runner.events("r")]


async def test_branches_that_wait_are_parked(place: Place, handlers: Handlers) -> None:
    branches = {
        "signal": [handlers.step("a"), Step.wait_for_signal("approve")],
        "wait": Step.workflow("nap", Workflow(steps=[Step.wait("pause", 1_000), handlers.step("b")])),
    }
    workflow = flow(handlers, branches, need="any")
    async with place.runner(config={"park_after": 0.0, "poll_interval": 0.05}) as runner:
        handle = await runner.start(workflow, run_id="r")

        async def is_parked() -> bool:
            record = await handle.record()
            return record.status == RunStatus.WAITING and record.due_at is not None

        await until(is_parked)
        await handle.signal("approve", "yes")
        with anyio.fail_after(60):
            result = await handle.result()
    assert result.context.get_output("both", "wait") is None
    assert result.context.get_output("both", "signal")["value"] == "yes"
    assert handlers.repeated() == []


async def test_a_changed_branch_is_refused(place: Place, handlers: Handlers) -> None:
    handlers.broken = {"b"}
    workflow = flow(handlers, {"x": [handlers.step("a"), handlers.step("b")]})
    await place.runner().execute(workflow, run_id="r")
    renamed = flow(handlers, {"y": [handlers.step("a"), handlers.step("b")]})
    with pytest.raises(WorkflowChangedError, match="branch 'x' of step 'both': the branch has finished steps") as error:
        await place.runner().resume("r", workflow=renamed)
    assert (error.value.branch, error.value.map_path) == ("x", "both")
    handlers.broken = set()
    assert (await place.runner().resume("r", workflow=workflow)).status == RunStatus.COMPLETED


async def test_a_dry_run_reaches_all_branches(handlers: Handlers) -> None:
    branches = {"x": handlers.work, "y": Step.pipeline("load", "load")}
    runner = Place(None).runner(dry_run=True, dispatcher=LocalDispatcher())
    assert (await runner.execute(flow(handlers, branches))).status == RunStatus.COMPLETED


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"branches": {}}, "branches is empty"),
        ({"branches": [1]}, "branches is of type list"),
        ({"branches": {"a/b": print}}, "reserved for paths"),
        ({"branches": {"a": 7}}, "branch 'a': steps is of type int"),
        ({"branches": {"a": []}}, "branch 'a': a workflow needs at least one step"),
        ({"need": 3}, "need is 3; it must be 'all', 'any' or an integer from 1 to 1"),
        ({"need": "most"}, "need is 'most'"),
        ({"need": True}, "need is True"),
        ({"need": ["all"]}, "need is ['all']"),
        ({"max_concurrency": 0}, "max_concurrency is 0"),
    ],
)
def test_a_definition_that_is_wrong_is_refused(handlers: Handlers, options: dict[str, Any], problem: str) -> None:
    chosen: dict[str, Any] = {"branches": {"a": handlers.work}, **options}
    with pytest.raises(DefinitionError) as refused:
        Workflow("w", [Step.parallel("both", **chosen)])
    assert problem in str(refused.value)
    assert "step 'both'" in str(refused.value)
