"""`Step.workflow` inside the same run: what the child sees, failures, retries, resumes, and what is stored."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from spine_async import RetryPolicy, RunStatus, Step, StepResult, Workflow, WorkflowChangedError, WorkflowContext
from tests.crash.conftest import plain_query
from tests.service.nesting import Handlers
from tests.service.places import Place
from tests.service.services import until

pytestmark = pytest.mark.anyio

AT_ONCE = RetryPolicy(max_attempts=3, initial_delay=0.0, jitter=False, retryable_errors=("DEPENDENCY",))


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


def flow(handlers: Handlers, child: Workflow, params: Any = None, **options: Any) -> Workflow:
    return Workflow(
        "parent", [handlers.step("before"), Step.workflow("child", child, params, **options), handlers.step("after")]
    )


def pair(handlers: Handlers, **options: Any) -> Workflow:
    return Workflow("pair", [handlers.step("a"), handlers.step("b")], **options)


async def test_the_output_is_that_of_the_last_step_and_the_child_sees_only_its_params(
    place: Place, handlers: Handlers
) -> None:
    child = pair(handlers, defaults={"limit": 5, "size": 1})
    workflow = flow(handlers, child, lambda context: {"from": context.get_output("before", "by"), "size": 2})
    result = await place.runner().execute(workflow, params={"day": 1}, run_id="r")
    assert result.context.get_output("child") == {"by": "b"}
    assert handlers.seen["child/b"] == ({"limit": 5, "size": 2, "from": "before"}, ["a"])
    assert handlers.seen["after"] == ({"day": 1}, ["before", "child"])
    assert list(result.completed_steps) == ["before", "child", "after"]


async def test_without_params_the_child_sees_those_of_the_parent(place: Place, handlers: Handlers) -> None:
    workflow = flow(handlers, pair(handlers, defaults={"day": 0, "limit": 5}))
    await place.runner().execute(workflow, params={"day": 1}, run_id="r")
    assert handlers.seen["child/a"] == ({"day": 1, "limit": 5}, [])


async def test_a_resume_continues_at_the_failed_step_with_the_params_that_are_stored(
    place: Place, handlers: Handlers
) -> None:
    calls: list[int] = []

    async def params(context: WorkflowContext) -> dict[str, object]:
        calls.append(1)
        return {"call": len(calls)}

    handlers.broken = {"b"}
    workflow = flow(handlers, pair(handlers), params)
    first = await place.runner().execute(workflow, run_id="r")
    assert (first.status, first.error_step, first.error_category) == (RunStatus.FAILED, "child", "DEPENDENCY")
    assert first.error == "step 'b' of workflow 'pair' failed: StepError: b is broken"
    handlers.broken = set()
    second = await place.runner().resume("r", workflow=workflow)
    assert second.status == RunStatus.COMPLETED
    assert handlers.repeated() == ["child/b"]
    assert (calls, handlers.seen["child/b"][0]) == ([1], {"call": 1})


async def test_a_retry_of_the_step_keeps_the_finished_steps_of_the_child(place: Place, handlers: Handlers) -> None:
    failures = [1, 1]

    async def flaky(context: WorkflowContext, config: Any) -> StepResult:
        await handlers.work(context, config)
        if failures:
            failures.pop()
            return StepResult.fail("not yet", "DEPENDENCY")
        return StepResult.ok({"ok": True})

    child = Workflow("kid", [handlers.step("a"), Step.lambda_("flaky", flaky)])
    result = await place.runner().execute(flow(handlers, child, retry=AT_ONCE), run_id="r")
    assert result.status == RunStatus.COMPLETED
    assert (handlers.ran["child/a"], handlers.ran["child/flaky"]) == (1, 3)


async def test_a_stop_in_the_child_stops_the_run_which_continues_after_that_step(
    place: Place, handlers: Handlers
) -> None:
    async def stop(context: WorkflowContext, config: Any) -> StepResult:
        await handlers.work(context, config)
        return StepResult.stop("enough")

    workflow = flow(handlers, Workflow("kid", [Step.lambda_("stop", stop), handlers.step("b")]))
    first = await place.runner().execute(workflow, run_id="r")
    assert (first.status, first.stop_reason) == (RunStatus.STOPPED, "enough")
    second = await place.runner().resume("r", workflow=workflow)
    assert (second.status, handlers.repeated()) == (RunStatus.COMPLETED, [])


async def test_a_changed_child_is_refused_and_nothing_is_lost(place: Place, handlers: Handlers) -> None:
    handlers.broken = {"b"}
    inner = Workflow("inner", [handlers.step("a"), handlers.step("b")])
    workflow = flow(handlers, Workflow("outer", [Step.workflow("deep", inner)]))
    assert (await place.runner().execute(workflow, run_id="r")).status == RunStatus.FAILED
    changed = flow(
        handlers,
        Workflow("outer", [Step.workflow("deep", Workflow("inner", [handlers.step("c"), handlers.step("b")]))]),
    )
    assert changed.fingerprint != workflow.fingerprint
    with pytest.raises(WorkflowChangedError, match=r"step 'child/deep': finished step 'a' is missing") as refused:
        await place.runner().resume("r", workflow=changed)
    assert refused.value.step == "a"
    handlers.broken = set()
    assert (await place.runner().resume("r", workflow=workflow)).status == RunStatus.COMPLETED
    assert handlers.ran["child/deep/a"] == 1


class Order(BaseModel):
    amount: int


async def test_the_model_of_the_child_validates_its_params(place: Place, handlers: Handlers) -> None:
    child = pair(handlers, params_model=Order)
    result = await place.runner().execute(flow(handlers, child, {"amount": "7"}), run_id="good")
    assert (result.status, handlers.seen["child/a"][0]) == (RunStatus.COMPLETED, {"amount": 7})
    result = await place.runner().execute(flow(handlers, child, {"amount": "many"}), run_id="bad")
    assert (result.status, result.error_category) == (RunStatus.FAILED, "DATA_QUALITY")
    assert "many" not in str(result.error)
    assert "amount" in str(result.error)


@pytest.mark.parametrize(
    ("params", "category", "text"),
    [
        (lambda context: 7, "CONFIGURATION", "params returned a value of type int; it must return a mapping"),
        (lambda context: {"x": object()}, "INTERNAL", ".params.x"),
        (lambda context: {"x": "y" * 2_000}, "DATA_QUALITY", "max_value_bytes"),
    ],
)
async def test_params_that_cannot_be_passed_fail_the_step(
    handlers: Handlers, params: Any, category: str, text: str
) -> None:
    runner = Place(None).runner(config={"max_value_bytes": 1_000})
    result = await runner.execute(flow(handlers, pair(handlers), params), run_id="r")
    assert (result.status, result.error_category) == (RunStatus.FAILED, category)
    assert text in str(result.error)
    assert "child/a" not in handlers.ran


async def test_a_timeout_of_the_step_is_a_limit_for_the_whole_child(place: Place, handlers: Handlers) -> None:
    child = Workflow("kid", [handlers.step("a"), handlers.blocking("stuck")])
    result = await place.runner().execute(flow(handlers, child, timeout=1.0), run_id="r")
    assert (result.status, result.error_category) == (RunStatus.FAILED, "TIMEOUT")
    assert handlers.reasons == {"child/stuck": "step_timeout"}


async def test_a_stop_of_the_run_reaches_the_step_of_the_child(place: Place, handlers: Handlers) -> None:
    child = Workflow("kid", [handlers.blocking("stuck")])
    async with place.runner() as runner:
        handle = await runner.start(flow(handlers, child), run_id="r")
        await until(lambda: handlers.ran["child/stuck"] == 1)
        assert await handle.stop("enough")
        result = await handle.result()
    assert (result.status, result.stop_reason) == (RunStatus.STOPPED, "enough")
    assert handlers.reasons == {"child/stuck": "user"}


async def test_after_a_shutdown_the_child_continues_at_its_unfinished_step(place: Place, handlers: Handlers) -> None:
    child = Workflow("kid", [handlers.step("a"), handlers.blocking("stuck"), handlers.step("b")])
    workflow = flow(handlers, child)
    async with place.runner() as runner:
        await runner.start(workflow, run_id="r")
        await until(lambda: handlers.ran["child/stuck"] == 1)
    handlers.gate.set()
    async with place.runner(workflows=[workflow]) as runner:
        with anyio.fail_after(60):
            result = await runner.handle("r").result()
    assert (result.status, handlers.repeated()) == (RunStatus.COMPLETED, ["child/stuck"])


async def test_a_wait_for_a_signal_in_a_child_is_parked_and_is_woken_by_its_token(
    place: Place, handlers: Handlers
) -> None:
    child = Workflow("kid", [handlers.step("a"), Step.wait_for_signal("approve", timeout=1_000), handlers.step("b")])
    workflow = flow(handlers, Workflow("outer", [Step.workflow("deep", child)]))
    async with place.runner(config={"park_after": 0.0, "poll_interval": 0.05}) as runner:
        handle = await runner.start(workflow, run_id="r")

        async def is_parked() -> bool:
            record = await handle.record()
            return record.status == RunStatus.WAITING and record.due_at is not None

        await until(is_parked)
        await handle.signal("child/deep/approve", {"yes": True})
        with anyio.fail_after(60):
            result = await handle.result()
        events = [(event.event_type, event.path) async for event in handle.events()]
    assert (result.status, handlers.repeated()) == (RunStatus.COMPLETED, [])
    assert len(events) == len(set(events))


async def test_checkpoints_of_a_child_hold_what_its_steps_saw(database: Place, handlers: Handlers) -> None:
    each = Step.map("each", items=[3], iterator=handlers.work)
    inner = Workflow("inner", [each, handlers.step("b")])
    child = Workflow("kid", [handlers.step("a"), Step.workflow("deep", inner, {"depth": 2})])
    runner = database.runner()
    await runner.execute(flow(handlers, child, {"depth": 1}), params={"day": 1}, run_id="r")
    snapshots: dict[str, Any] = {each.path: each.context_snapshot for each in await runner.list_checkpoints("r")}
    seen: dict[str, Any] = {path: (each["params"], sorted(each["outputs"])) for path, each in snapshots.items()}
    assert seen["child/a"] == ({"depth": 1}, ["a"])
    assert seen["child/deep/each[0]/item"] == ({"depth": 2, "item": 3}, ["item"])
    assert seen["child/deep/b"] == ({"depth": 2}, ["b", "each"])
    assert seen["child/deep"] == ({"depth": 1}, ["a", "deep"])
    assert seen["child"] == ({"day": 1}, ["before", "child"])
    assert database.url is not None
    rows = plain_query(database.url, "SELECT path, context_snapshot FROM core_workflow_checkpoints")
    assert {path: json.loads(text) for path, text in rows} == snapshots
    for path in ("child/deep/b", "child/deep/each[0]/item", "child"):
        checkpoint = await runner.get_checkpoint("r", path)
        assert checkpoint is not None
        assert checkpoint.context_snapshot == snapshots[path]


async def test_calls_that_a_child_has_recorded_are_not_repeated(place: Place, handlers: Handlers) -> None:
    calls: list[str] = []

    def ask() -> int:
        calls.append("ask")
        return len(calls)

    async def think(context: WorkflowContext, config: Any) -> StepResult:
        value = await context.once("ask", ask)
        return StepResult.fail("broken", "INTERNAL") if handlers.broken else StepResult.ok({"value": value})

    inner = Workflow("inner", [Step.lambda_("think", think)])
    workflow = flow(handlers, Workflow("outer", [Step.parallel("fork", {"x": Step.workflow("deep", inner)})]), {"n": 1})
    handlers.broken = {"think"}
    assert (await place.runner().execute(workflow, run_id="r")).status == RunStatus.FAILED
    handlers.broken = set()
    result = await place.runner().resume("r", workflow=workflow)
    assert (result.context.get_output("child"), calls) == ({"x": {"value": 1}}, ["ask"])


async def test_a_dry_run_reaches_the_steps_of_the_child(handlers: Handlers) -> None:
    runner = Place(None).runner(dry_run=True)
    result = await runner.execute(flow(handlers, pair(handlers), {"x": 1}))
    assert result.status == RunStatus.COMPLETED
    assert handlers.seen["child/a"][0] == {"x": 1, "__dry_run__": True}


async def test_children_are_nested_as_deeply_as_their_paths_allow(handlers: Handlers) -> None:
    workflow = Workflow("leaf", [handlers.step("x")])
    for _ in range(100):
        workflow = Workflow("w", [Step.workflow("w", workflow)])
    result = await Place(None).runner().execute(workflow)
    assert result.context.get_output("w") == {"by": "x"}
