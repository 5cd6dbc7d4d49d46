"""Recorded calls in map items, after kills and cancellations, in threads that are left, and without a store."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from spine_async import (
    AttemptEndedError,
    DefinitionError,
    RetryPolicy,
    SerializationError,
    Step,
    StepError,
    StepResult,
    StoreError,
    Workflow,
    WorkflowChangedError,
    WorkflowContext,
    WorkflowRunner,
    WorkflowRunnerConfig,
)
from spine_async._model.visit_filter import VisitFilter
from spine_async.storage import MemoryRunStore
from spine_async.testing import FaultInjectingStore
from tests.service.calls import AGAIN, Calls, fail_twice, recorded
from tests.service.conftest import StartService
from tests.service.flows import Notes
from tests.service.places import Place
from tests.service.services import until

pytestmark = pytest.mark.anyio

Config = Mapping[str, object]


async def test_what_cannot_be_identified_or_stored_is_refused_without_showing_it(place: Place) -> None:
    problems = list[str]()

    async def echo(value: object) -> object:
        return value

    async def work(context: WorkflowContext, config: Config) -> None:
        for call in (
            context.once("echo", echo, {"secret": object()}),
            context.once("echo", echo, 1, key=math.nan),
            context.once("echo", echo, math.inf, key="k"),
            context.once("echo", echo, "x" * 3000, key="k"),
            context.once("", echo, 1),
            context.once("echo", None, 1),  # type: ignore[arg-type]
        ):
            with pytest.raises((SerializationError, DefinitionError)) as caught:
                await call
            problems.append(str(caught.value))

    async with place.runner(work=False, config={"max_value_bytes": 2000}) as runner:
        result = await runner.execute(Workflow("w", [Step.lambda_("work", work)]), run_id="r")
        assert await recorded(runner, "r") == []
    result.raise_for_status()
    arguments, key, returned, large, name, function = problems
    assert arguments.startswith("$.args[0].secret: ")
    assert arguments.endswith("pass key= to identify the call without its arguments")
    assert key.startswith("$.key: ")
    assert returned.startswith("$: ")
    assert returned.endswith("once('echo') cannot store what its call returned")
    assert "the value that once('echo') recorded has 3,002 bytes as JSON, more than max_value_bytes (2,000)" in large
    assert name == "step 'work': once: a name must not be empty"
    assert function == "step 'work': once: the second argument must be a function, not NoneType"


async def test_items_and_their_visits_have_calls_of_their_own(place: Place) -> None:
    calls = Calls()
    is_ready = False

    async def work(context: WorkflowContext, config: Config) -> dict[str, object]:
        value = await context.once("double", calls.double, 7)
        again = await context.once("double", calls.double, context.params["item"])
        if not is_ready and context.params["item"] == 2:
            raise StepError("no")
        return {"values": [value, again]}

    def flow(count: int) -> Workflow:
        steps = [Step.lambda_("work", work), Step.lambda_("note", lambda context, config: None)]
        items = [0, 1, 2] if count == 3 else [0, 1, 9]
        return Workflow("w", [Step.map("each", items=items, iterator=Workflow(steps=steps), max_concurrency=1)])

    async with place.runner(work=False) as runner:
        await runner.execute(flow(3), run_id="r")
    is_ready = True
    async with place.runner(work=False) as runner:
        with pytest.raises(WorkflowChangedError):  # what item 2 recorded must not be used for another item
            await runner.resume("r", workflow=flow(4))
        result = await runner.resume("r", workflow=flow(3))
        checkpoints = await runner.list_checkpoints("r")
    params: list[Any] = [each.context_snapshot["params"] for each in checkpoints[:-1]]
    assert [each["item"] for each in params] == [0, 0, 1, 1, 2, 2]
    result.raise_for_status()
    assert sorted(calls.made) == [0, 1, 2, 7, 7, 7]


async def test_nested_items_find_their_calls_after_a_resume(place: Place) -> None:
    calls = Calls()
    is_ready = False

    async def work(context: WorkflowContext, config: Config) -> None:
        await context.once("double", calls.double, context.params["inner"] + 10 * context.params["outer"])
        if not is_ready:
            raise StepError("no")

    inner = Workflow(steps=[Step.map("inner", items=[1, 2], iterator=work, item_param="inner", tolerated_failures=0)])
    flow = Workflow("w", [Step.map("outer", items=[1, 2], iterator=inner, item_param="outer", max_concurrency=1)])
    async with place.runner(work=False) as runner:
        await runner.execute(flow, run_id="r")
    first = list(calls.made)
    is_ready = True
    async with place.runner(work=False) as runner:
        (await runner.resume("r", workflow=flow)).raise_for_status()
    assert first
    assert sorted(calls.made) == [11, 12, 21, 22]


async def test_finished_items_are_resumed_without_their_calls() -> None:
    calls = Calls()
    is_ready = False

    async def work(context: WorkflowContext, config: Config) -> None:
        for number in range(20):
            await context.once("double", calls.double, number)
        if context.params["item"] == 49 and not is_ready:
            raise StepError("no")

    flow = Workflow("w", [Step.map("each", items=range(50), iterator=work, max_concurrency=1)])
    store = MemoryRunStore()
    async with WorkflowRunner(store=store, work=False) as runner:
        await runner.execute(flow, run_id="r")
    is_ready = True
    # The visit of each finished item, and the first call of each item, which stores the item: not 1,049 rows.
    assert len(await store.visits("r", VisitFilter(inside="each"))) == 49 + 50
    async with WorkflowRunner(store=store, work=False) as runner:
        (await runner.resume("r", workflow=flow)).raise_for_status()
    assert len(calls.made) == 1_000


async def test_a_killed_process_repeats_only_the_call_that_had_not_returned(
    service: StartService, notes: Notes, observer: WorkflowRunner
) -> None:
    first = await service()
    await first.ask("start", workflow="agent", run_id="r")
    await until(lambda: notes.read(what="called", tool="hold"))
    await first.kill()
    await service()
    await observer.handle("r").result(20)
    made = [note["tool"] for note in notes.read(what="called", run="r")]
    assert sorted(made) == ["a", "b", "b", "c", "hold", "hold"]  # the second `b` is a second call
    record = await observer.get_run("r")
    assert record.outputs is not None
    assert record.outputs["think"] == {"said": ["B", "C"]}


async def test_a_call_that_was_cancelled_while_it_was_stored_is_right_in_the_next_attempt() -> None:
    calls = Calls()
    store = FaultInjectingStore(MemoryRunStore())
    hang = store.hang("commit", call=1)

    async def work(context: WorkflowContext, config: Config) -> dict[str, object]:
        if context.attempt == 1:
            with anyio.move_on_after(5) as scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(context.once, "double", calls.double, 4)
                    await hang.reached.wait()
                    scope.cancel()
            hang.release.set()
            raise StepError("again", category="TRANSIENT")
        return {"value": await context.once("double", calls.double, 4)}

    async with WorkflowRunner(store=store, work=False) as runner:
        result = await runner.execute(Workflow("w", [Step.lambda_("work", work, retry=AGAIN)]))
    assert result.context.get_output("work", "value") == 8
    assert calls.made == [4]


async def test_a_failed_commit_raises_and_a_repetition_stores_the_value_without_another_call() -> None:
    calls = Calls()
    store = FaultInjectingStore(MemoryRunStore())
    store.fail("commit", call=1)

    async def work(context: WorkflowContext, config: Config) -> dict[str, object]:
        with pytest.raises(StoreError):
            await context.once("double", calls.double, 4)
        return {"value": await context.once("double", calls.double, 4)}

    async with WorkflowRunner(store=store, work=False) as runner:
        result = await runner.execute(Workflow("w", [Step.lambda_("work", work)]), run_id="r")
        assert len(await recorded(runner, "r")) == 1
    assert result.context.get_output("work", "value") == 8
    assert calls.made == [4]


async def test_a_thread_that_outlives_its_attempt_records_nothing() -> None:
    go_on, ended = threading.Event(), threading.Event()
    problems = list[BaseException]()
    calls = Calls()

    def work(context: WorkflowContext, config: Config) -> None:
        if context.attempt > 1:
            return
        go_on.wait(20)
        try:
            context.once_in_thread("double", calls.double_plainly, 1)
        except AttemptEndedError as exc:
            problems.append(exc)
        ended.set()

    retry = RetryPolicy(max_attempts=2, backoff="constant", initial_delay=0.001, jitter=False)
    async with Place(None).runner(work=False) as runner:
        flow = Workflow("w", [Step.lambda_("work", work, retry=retry, timeout=0.5)])
        (await runner.execute(flow, run_id="r")).raise_for_status()
        go_on.set()
        await anyio.to_thread.run_sync(ended.wait, 20)
        assert await recorded(runner, "r") == []
    assert len(problems) == 1
    assert calls.made == []


@pytest.mark.parametrize("how", [{"dry_run": True}, {"checkpoint_enabled": False}])
async def test_without_a_store_the_values_are_kept_in_memory(how: dict[str, bool]) -> None:
    calls = Calls()

    async def work(context: WorkflowContext, config: Config) -> StepResult:
        value = await context.once("double", calls.double, 4)
        fail_twice(context)
        return StepResult.ok({"value": value})

    runner = WorkflowRunner(config=WorkflowRunnerConfig(**how))
    result = await runner.execute(Workflow("w", [Step.lambda_("work", work, retry=AGAIN)]))
    assert result.context.get_output("work", "value") == 8
    assert calls.made == [4]


async def test_once_in_thread_is_refused_on_the_loop_and_both_outside_of_a_step() -> None:
    calls = Calls()

    async def work(context: WorkflowContext, config: Config) -> None:
        context.once_in_thread("double", calls.double, 4)

    async with Place(None).runner(work=False) as runner:
        result = await runner.execute(Workflow("w", [Step.lambda_("work", work)]))
    assert "use `await context.once(…)` in an async def" in str(result.error)
    with pytest.raises(DefinitionError, match="once can be called only on the context of a running step"):
        await WorkflowContext().once("double", calls.double, 4)
