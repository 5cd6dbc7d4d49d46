"""`Step.workflow(queue=…)`: the child is a run of its own, which is started once and ends with its parent."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from spine_async import (
    DefinitionError,
    Queue,
    RetryPolicy,
    RunConflictError,
    RunHandle,
    RunNotFoundError,
    RunStatus,
    Step,
    StepResult,
    Workflow,
    WorkflowContext,
    WorkflowResult,
    WorkflowRunner,
)
from tests.service.nesting import Handlers
from tests.service.places import Place
from tests.service.services import until

pytestmark = pytest.mark.anyio

AT_ONCE = RetryPolicy(max_attempts=3, initial_delay=0.0, jitter=False, retryable_errors=("DEPENDENCY",))
QUICK: dict[str, Any] = {"poll_interval": 0.05}
PARKS: dict[str, Any] = {**QUICK, "park_after": 0.0}


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


def pair(handlers: Handlers, *steps: Step, **options: Any) -> Workflow:
    return Workflow("kid", [handlers.step("a"), *(steps or (handlers.step("b"),))], **options)


def flow(handlers: Handlers, child: Workflow, params: Any = None, **options: Any) -> Workflow:
    step = Step.workflow("child", child, params, queue="default", **options)
    return Workflow("parent", [handlers.step("before"), step, handlers.step("after")])


async def ended(handle: RunHandle) -> WorkflowResult:
    with anyio.fail_after(60):
        return await handle.result()


async def is_parked(handle: RunHandle) -> bool:
    record = await handle.record()
    return record.status == RunStatus.WAITING and record.due_at is None


async def children_of(runner: WorkflowRunner, run_id: str) -> list[str]:
    return [each.run_id for each in await runner.list_runs(parent_run_id=run_id)]


@pytest.mark.parametrize("config", [QUICK, PARKS])
async def test_the_output_is_that_of_the_child(place: Place, handlers: Handlers, config: dict[str, Any]) -> None:
    workflow = flow(handlers, pair(handlers, defaults={"limit": 5}), lambda context: {"n": 1})
    async with place.runner(config=config) as runner:
        result = await ended(await runner.start(workflow, params={"day": 1}, partition={"p": 1}, run_id="r"))
        assert result.context.get_output("child") == {"by": "b"}
        record = await runner.get_run("r/child")
        assert (record.parent_run_id, record.queue, record.status) == ("r", "default", RunStatus.COMPLETED)
        assert (record.params, record.partition) == ({"n": 1, "limit": 5}, {"p": 1})
        assert await children_of(runner, "r") == ["r/child"]
    assert handlers.seen["a"] == ({"n": 1, "limit": 5}, [])
    assert handlers.repeated() == []


async def test_a_call_of_execute_waits_for_the_child(place: Place, handlers: Handlers) -> None:
    workflow = flow(handlers, pair(handlers))
    async with place.runner(config=QUICK) as runner:
        with anyio.fail_after(60):
            result = await runner.execute(workflow, params={"day": 1}, run_id="r")
    assert (result.status, handlers.seen["a"][0]) == (RunStatus.COMPLETED, {"day": 1})


async def test_the_parent_is_parked_while_its_child_is_under_way(place: Place, handlers: Handlers) -> None:
    workflow = flow(handlers, pair(handlers, handlers.blocking("stuck")))
    async with place.runner(config=PARKS) as runner:
        handle = await runner.start(workflow, run_id="r")
        await until(lambda: handlers.ran["stuck"] == 1)
        await until(lambda: is_parked(handle))
        handlers.gate.set()
        result = await ended(handle)
        events = [(each.event_type, each.path) async for each in handle.events()]
    assert (result.status, handlers.repeated()) == (RunStatus.COMPLETED, [])
    assert len(events) == len(set(events))


async def test_the_failure_of_the_child_fails_the_step_and_a_resume_resumes_the_child(
    place: Place, handlers: Handlers
) -> None:
    handlers.broken = {"b"}
    workflow = flow(handlers, pair(handlers))
    async with place.runner(config=PARKS) as runner:
        first = await ended(await runner.start(workflow, run_id="r"))
        assert (first.status, first.error_step, first.error_category) == (RunStatus.FAILED, "child", "DEPENDENCY")
        assert first.error == "run 'r/child' of workflow 'kid' failed at step 'b': StepError: b is broken"
        handlers.broken = set()
        with anyio.fail_after(60):
            second = await runner.resume("r")
    assert (second.status, handlers.repeated()) == (RunStatus.COMPLETED, ["b"])


async def test_a_retry_of_the_step_resumes_the_child(place: Place, handlers: Handlers) -> None:
    left = [True, True]

    async def flaky(context: WorkflowContext, config: Any) -> StepResult:
        await handlers.work(context, config)
        return StepResult.fail("not yet", "DEPENDENCY") if left and left.pop() else StepResult.ok({"ok": True})

    workflow = flow(handlers, pair(handlers, Step.lambda_("flaky", flaky)), retry=AT_ONCE)
    async with place.runner(config=PARKS) as runner:
        result = await ended(await runner.start(workflow, run_id="r"))
    assert (result.status, handlers.ran["a"], handlers.ran["flaky"]) == (RunStatus.COMPLETED, 1, 3)


@pytest.mark.parametrize("config", [QUICK, PARKS])
async def test_a_stop_of_the_parent_stops_its_child(place: Place, handlers: Handlers, config: dict[str, Any]) -> None:
    workflow = flow(handlers, pair(handlers, handlers.blocking("stuck")))
    async with place.runner(config=config) as runner:
        handle = await runner.start(workflow, run_id="r")
        await until(lambda: handlers.ran["stuck"] == 1)
        if config is PARKS:
            await until(lambda: is_parked(handle))
        assert await handle.stop("enough")
        assert (await ended(handle)).stop_reason == "enough"
        child = await ended(runner.handle("r/child"))
        assert (child.status, child.stop_reason) == (RunStatus.STOPPED, "enough")
        handlers.gate.set()
        with anyio.fail_after(60):
            result = await runner.resume("r")
    assert (result.status, handlers.repeated()) == (RunStatus.COMPLETED, ["stuck"])


async def test_a_timeout_of_the_step_stops_the_child(place: Place, handlers: Handlers) -> None:
    workflow = flow(handlers, pair(handlers, handlers.blocking("stuck")), timeout=1)
    async with place.runner(config=QUICK) as runner:
        result = await ended(await runner.start(workflow, run_id="r"))
        assert (result.status, result.error_category) == (RunStatus.FAILED, "TIMEOUT")
        assert (await ended(runner.handle("r/child"))).stop_reason == "step_timeout"


async def test_a_child_that_is_stopped_by_itself_fails_the_step(place: Place, handlers: Handlers) -> None:
    workflow = flow(handlers, pair(handlers, handlers.blocking("stuck")))
    async with place.runner(config=PARKS) as runner:
        handle = await runner.start(workflow, run_id="r")
        await until(lambda: handlers.ran["stuck"] == 1)
        assert await runner.stop("r/child", "no more")
        result = await ended(handle)
    assert result.error == "run 'r/child' of workflow 'kid' was stopped: no more"


@pytest.mark.parametrize("outcome", ["completed", "failed", "stopped"])
async def test_a_child_cleans_up_at_its_own_end(place: Place, handlers: Handlers, outcome: str) -> None:
    """Before its parent continues, and also when the stop of its parent stops it."""
    last = handlers.blocking("b") if outcome == "stopped" else handlers.step("b")
    handlers.broken = {"b"} if outcome == "failed" else set()
    workflow = flow(handlers, Workflow("kid", [last], cleanup=[handlers.step("tidy")]))
    async with place.runner(config=PARKS) as runner:
        handle = await runner.start(workflow, run_id="r")
        if outcome == "stopped":
            await until(lambda: handlers.ran["b"] == 1)
            await handle.stop("enough")
        assert (await ended(handle)).status == outcome
        child = await ended(runner.handle("r/child"))
    assert (child.status, child.completed_steps[-1], handlers.ran["tidy"]) == (outcome, "tidy", 1)
    assert handlers.ran["after"] == (1 if outcome == "completed" else 0)


async def test_the_deletion_of_the_parent_deletes_its_children(place: Place, handlers: Handlers) -> None:
    grandchild = pair(handlers)
    child = Workflow("outer", [Step.workflow("deep", grandchild, queue="default")])
    async with place.runner(config=PARKS) as runner:
        await ended(await runner.start(flow(handlers, child), run_id="r"))
        assert (await runner.get_run("r/child/deep")).parent_run_id == "r/child"
        await runner.delete_run("r")
        for run_id in ("r", "r/child", "r/child/deep"):
            with pytest.raises(RunNotFoundError):
                await runner.get_run(run_id)


async def test_a_parent_that_is_under_way_keeps_its_children(place: Place, handlers: Handlers) -> None:
    workflow = flow(handlers, Workflow("kid", [handlers.blocking("stuck")]))
    async with place.runner(config=PARKS) as runner:
        handle = await runner.start(workflow, run_id="r")
        await until(lambda: handlers.ran["stuck"] == 1)
        with pytest.raises(RunConflictError):
            await runner.delete_run("r")
        handlers.gate.set()
        assert (await ended(handle)).status == RunStatus.COMPLETED


async def test_after_a_shutdown_no_step_of_parent_or_child_runs_again(place: Place, handlers: Handlers) -> None:
    workflow = flow(handlers, pair(handlers, handlers.blocking("stuck"), handlers.step("c")))
    async with place.runner(config=PARKS) as runner:
        await runner.start(workflow, run_id="r")
        await until(lambda: handlers.ran["stuck"] == 1)
    handlers.gate.set()
    async with place.runner(config=PARKS, workflows=[workflow]) as runner:
        result = await ended(runner.handle("r"))
        assert len(await children_of(runner, "r")) == 1
    assert (result.status, handlers.repeated()) == (RunStatus.COMPLETED, ["stuck"])


async def test_items_of_a_map_fan_out(place: Place, handlers: Handlers) -> None:
    item = Workflow(steps=[Step.workflow("sub", pair(handlers), queue="default"), handlers.step("score")])
    workflow = Workflow("parent", [Step.map("each", items=[1, 2, 3], iterator=item)])
    async with place.runner(config=PARKS) as runner:
        result = await ended(await runner.start(workflow, run_id="r"))
        assert sorted(await children_of(runner, "r")) == [f"r/each[{index}]/sub" for index in range(3)]
    assert result.context.get_output("each", "succeeded") == 3
    assert (handlers.ran["a"], handlers.ran["b"]) == (3, 3)
    assert sorted(handlers.ran[f"each[{index}]/score"] for index in range(3)) == [1, 1, 1]


async def test_params_that_do_not_fit_fail_the_step(handlers: Handlers) -> None:
    async with Place(None).runner(config=QUICK) as runner:
        for params, category in ((lambda context: 7, "CONFIGURATION"), (lambda context: {"x": object()}, "INTERNAL")):
            result = await runner.execute(flow(handlers, pair(handlers), params))
            assert (result.status, result.error_category) == (RunStatus.FAILED, category)
        await runner.execute(pair(handlers), run_id="taken/child")
        result = await runner.execute(flow(handlers, pair(handlers)), run_id="taken")
        assert result.error_category == "CONFIGURATION"
        assert "is no child of run 'taken'" in str(result.error)


async def test_without_a_store_the_step_says_what_it_needs(handlers: Handlers) -> None:
    workflow = flow(handlers, pair(handlers))
    result = await Place(None).runner(checkpoint_enabled=False).execute(workflow)
    assert (result.status, result.error_category) == (RunStatus.FAILED, "CONFIGURATION")
    assert "enable checkpoints, or leave out queue" in str(result.error)
    assert (await Place(None).runner(dry_run=True).execute(workflow)).status == RunStatus.COMPLETED


def test_a_child_with_a_queue_needs_a_name(handlers: Handlers) -> None:
    with pytest.raises(DefinitionError, match="needs a name"):
        flow(handlers, Workflow(steps=[handlers.step("a")]))


async def test_a_timeout_in_its_own_limited_queue_is_refused(handlers: Handlers) -> None:
    workflow = flow(handlers, pair(handlers), timeout=30)
    queues = [Queue("default", concurrency=1)]
    async with Place(None).runner(config=QUICK, queues=queues, workflows=[workflow]) as runner:
        result = await ended(await runner.enqueue(workflow))
    assert (result.status, result.error_category) == (RunStatus.FAILED, "CONFIGURATION")
    assert "limited queue 'default'" in str(result.error)
    assert "has a timeout" in str(result.error)


async def test_a_runner_that_parks_nothing_refuses_a_child_in_its_own_limited_queue(handlers: Handlers) -> None:
    """The run was enqueued, so it has a slot, and this runner keeps it in memory to its end."""
    workflow, place, queues = flow(handlers, pair(handlers)), Place(None), [Queue("default", concurrency=1)]
    async with place.runner(work=False, queues=queues) as runner:
        await runner.enqueue(workflow, run_id="r")
        with anyio.fail_after(30):
            result = await runner.execute(workflow, run_id="r")
    assert (result.status, result.error_category) == (RunStatus.FAILED, "CONFIGURATION")
    assert "this runner does not work" in str(result.error)


async def test_a_parked_parent_leaves_its_slot_to_its_child(place: Place, handlers: Handlers) -> None:
    workflow, queues = flow(handlers, pair(handlers)), [Queue("default", concurrency=1)]
    async with place.runner(config=PARKS, queues=queues, workflows=[workflow]) as runner:
        result = await ended(await runner.enqueue(workflow))
    assert (result.status, handlers.repeated()) == (RunStatus.COMPLETED, [])


@pytest.mark.parametrize("call", ["execute", "resume"])
async def test_a_parent_that_is_awaited_leaves_its_slot_too(place: Place, handlers: Handlers, call: str) -> None:
    """It is parked although a caller awaits it, else the child would wait for its slot for ever."""
    workflow, queues = flow(handlers, pair(handlers)), [Queue("default", concurrency=1)]
    async with place.runner(work=False) as producer:
        await producer.enqueue(workflow, run_id="r")
    async with place.runner(config=PARKS, queues=queues) as runner:  # it does not know the workflow before the call
        with anyio.fail_after(60):
            if call == "execute":
                result = await runner.execute(workflow, run_id="r")
            else:
                result = await runner.resume("r", workflow=workflow)
    assert (result.status, handlers.repeated()) == (RunStatus.COMPLETED, [])


async def test_a_stop_request_that_a_dead_owner_has_left_reaches_the_children(place: Place, handlers: Handlers) -> None:
    workflow = flow(handlers, pair(handlers, handlers.blocking("stuck")))
    async with place.runner(config=QUICK) as runner:
        await runner.start(workflow, run_id="r")
        await until(lambda: handlers.ran["stuck"] == 1)
        await until(lambda: has_waited(runner))
    async with place.runner(work=False) as observer:  # the runs are due, and nobody has claimed them
        assert await observer.stop("r", "enough")
        for run_id in ("r", "r/child"):
            result = await ended(observer.handle(run_id))
            assert (result.status, result.stop_reason) == (RunStatus.STOPPED, "enough")


async def has_waited(runner: WorkflowRunner) -> bool:
    return "child" in [each.path async for each in runner.events("r") if each.event_type == "step_started"]
