"""Events that a step emits while it is running: stored in order, from the loop and from threads, with a bound."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest

from spine_async import (
    AttemptEndedError,
    DefinitionError,
    Event,
    RetryPolicy,
    SerializationError,
    Step,
    StepError,
    StepResult,
    StoreError,
    TooManyPendingEventsError,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
    WorkflowRunnerConfig,
)
from spine_async.storage import MemoryRunStore
from spine_async.testing import FaultInjectingStore
from tests.service.places import Place

pytestmark = pytest.mark.anyio

Config = Mapping[str, object]
AGAIN = RetryPolicy(max_attempts=2, backoff="constant", initial_delay=0.001, jitter=False)


async def stored(runner: WorkflowRunner, run_id: str) -> list[Event]:
    return [event async for event in runner.events(run_id)]


def shown(events: list[Event], kind: str = "token") -> list[Any]:
    return [event.metadata["data"] for event in events if event.event_type == kind]


async def test_they_are_stored_in_order_between_the_start_and_the_end_of_their_step(place: Place) -> None:
    async def answer(context: WorkflowContext, config: Config) -> dict[str, object]:
        for number in range(5):
            context.emit("token", {"number": number})
            await anyio.lowlevel.checkpoint()
        context.emit("done")
        return {}

    async with place.runner(work=False) as runner:
        await runner.execute(Workflow("w", [Step.lambda_("answer", answer)]), run_id="r")
        events = await stored(runner, "r")
    types = [event.event_type for event in events]
    assert types == ["workflow_started", "step_started", *["token"] * 5, "done", "step_completed", "workflow_completed"]
    assert [event.seq for event in events] == list(range(1, 11))
    assert events[3].metadata == {"execution": 1, "attempt": 1, "data": {"number": 1}}
    assert events[7].metadata["data"] is None
    assert (events[3].step_name, events[3].path) == ("answer", "answer")
    assert [event.timestamp for event in events] == sorted(event.timestamp for event in events)


async def test_they_are_stored_while_the_step_is_running(place: Place) -> None:
    seen: list[Any] = []

    async def answer(context: WorkflowContext, config: Config) -> None:
        for number in range(3):
            context.emit("token", number)
            await context.flush()
            seen.append(shown(await stored(runner, context.run_id)))

    async with place.runner(work=False) as runner:
        await runner.execute(Workflow("w", [Step.lambda_("answer", answer)]))
    assert seen == [[0], [0, 1], [0, 1, 2]]


async def test_threads_emit_in_their_order_and_before_the_end_of_their_step(place: Place) -> None:
    def answer(context: WorkflowContext, config: Config) -> dict[str, object]:
        for number in range(500):
            context.emit("token", number)
        anyio.from_thread.run(context.flush)
        return {"stored": len(shown(anyio.from_thread.run(stored, runner, context.run_id)))}

    async with place.runner(work=False) as runner:
        result = await runner.execute(Workflow("w", [Step.lambda_("answer", answer)]), run_id="r")
        events = await stored(runner, "r")
    assert result.context.get_output("answer", "stored") == 500
    assert shown(events) == list(range(500))
    assert [event.event_type for event in events[-2:]] == ["step_completed", "workflow_completed"]


async def test_many_threads_and_the_loop_emit_at_once(place: Place) -> None:
    def in_thread(context: WorkflowContext, name: int) -> None:
        for number in range(100):
            context.emit("token", [name, number])

    async def answer(context: WorkflowContext, config: Config) -> None:
        async with anyio.create_task_group() as tasks:
            for name in range(4):
                tasks.start_soon(anyio.to_thread.run_sync, in_thread, context, name)
            for number in range(100):
                context.emit("token", [4, number])
                await anyio.lowlevel.checkpoint()

    async with place.runner(work=False) as runner:
        await runner.execute(Workflow("w", [Step.lambda_("answer", answer)]), run_id="r")
        tokens = shown(await stored(runner, "r"))
    for name in range(5):
        assert [number for each, number in tokens if each == name] == list(range(100))


async def test_each_attempt_and_each_item_is_told_apart(place: Place) -> None:
    async def answer(context: WorkflowContext, config: Config) -> None:
        context.emit("token", context.params["item"])
        if context.attempt == 1:
            raise StepError("again", category="TRANSIENT")

    inner = Workflow(steps=[Step.lambda_("answer", answer, retry=AGAIN)])
    async with place.runner(work=False) as runner:
        await runner.execute(Workflow("w", [Step.map("each", items=["a", "b"], iterator=inner)]), run_id="r")
        events = await stored(runner, "r")
    for index, item in enumerate("ab"):
        path = f"each[{index}]/answer"
        told = [
            (event.event_type, event.metadata.get("attempt"), event.metadata.get("data"))
            for event in events
            if event.path == path
        ]
        assert told[:-1] == [
            ("step_started", None, None),
            ("token", 1, item),
            ("step_retrying", 1, None),
            ("token", 2, item),
        ]


async def test_emit_after_the_end_of_the_attempt_is_refused(place: Place) -> None:
    kept: list[WorkflowContext] = []

    async def answer(context: WorkflowContext, config: Config) -> None:
        kept.append(context)
        if context.attempt == 1:
            raise StepError("again", category="TRANSIENT")
        with pytest.raises(AttemptEndedError):
            kept[0].emit("token", "late")
        context.emit("token", "in time")

    async with place.runner(work=False) as runner:
        await runner.execute(Workflow("w", [Step.lambda_("answer", answer, retry=AGAIN)]), run_id="r")
        for number, context in enumerate(kept, 1):
            with pytest.raises(AttemptEndedError, match=f"attempt {number} of step 'answer'") as caught:
                context.emit("token", "later")
            assert (caught.value.run_id, caught.value.path, caught.value.attempt) == ("r", "answer", number)
        assert shown(await stored(runner, "r")) == ["in time"]


async def test_a_thread_that_is_left_behind_by_a_timeout_emits_nothing_more(place: Place) -> None:
    refused: list[Exception] = []
    begun, left = threading.Event(), threading.Event()

    def answer(context: WorkflowContext, config: Config) -> None:
        context.emit("token", "before")
        begun.set()
        left.wait(10)
        try:
            context.emit("token", "after")
        except AttemptEndedError as exc:
            refused.append(exc)
        begun.clear()

    async with place.runner(work=False) as runner:
        step = Step.lambda_("answer", answer, timeout=0.5)
        result = await runner.execute(Workflow("w", [step]), run_id="r")
        left.set()
        while begun.is_set():  # noqa: ASYNC110 (the thread clears it)
            await anyio.sleep(0.001)
        assert result.error_category == "TIMEOUT"
        assert len(refused) == 1
        assert shown(await stored(runner, "r")) == ["before"]


async def test_what_a_failed_attempt_emitted_stays_stored(place: Place) -> None:
    async def answer(context: WorkflowContext, config: Config) -> None:
        context.emit("token", 1)
        raise StepError("no")

    async with place.runner(work=False) as runner:
        result = await runner.execute(Workflow("w", [Step.lambda_("answer", answer)]), run_id="r")
        types = [event.event_type for event in await stored(runner, "r")]
    assert result.status == "failed"
    assert types == ["workflow_started", "step_started", "token", "step_failed", "workflow_failed"]


@pytest.mark.parametrize("kind", ["step_started", "workflow_completed", "", "a\nb", 7])
async def test_an_invalid_type_is_refused(kind: Any) -> None:
    async def answer(context: WorkflowContext, config: Config) -> None:
        with pytest.raises(DefinitionError, match="emit"):
            context.emit(kind)

    runner = WorkflowRunner(store=MemoryRunStore())
    (await runner.execute(Workflow("w", [Step.lambda_("answer", answer)]))).raise_for_status()


async def test_data_without_a_json_form_and_data_that_are_too_large_are_refused() -> None:
    async def answer(context: WorkflowContext, config: Config) -> None:
        for value in (float("nan"), {1: 2}, object(), "x" * 2000):
            with pytest.raises(SerializationError):
                context.emit("token", value)

    runner = WorkflowRunner(store=MemoryRunStore(), config=WorkflowRunnerConfig(max_value_bytes=1000))
    (await runner.execute(Workflow("w", [Step.lambda_("answer", answer)]))).raise_for_status()


async def test_the_data_are_stored_as_they_were_when_they_were_emitted() -> None:
    async def answer(context: WorkflowContext, config: Config) -> None:
        data = {"list": [1]}
        context.emit("token", data)
        data["list"].append(2)

    runner = WorkflowRunner(store=MemoryRunStore())
    await runner.execute(Workflow("w", [Step.lambda_("answer", answer)]), run_id="r")
    assert shown(await stored(runner, "r")) == [{"list": [1]}]


@pytest.mark.parametrize("is_thread", [False, True])
async def test_emit_raises_beyond_the_limit_and_flush_makes_room(place: Place, is_thread: bool) -> None:
    def fill(context: WorkflowContext) -> int:
        for number in itertools.count():
            try:
                context.emit("token", number)
            except TooManyPendingEventsError:
                break
        return number

    async def on_loop(context: WorkflowContext, config: Config) -> dict[str, object]:
        accepted = [fill(context)]
        await context.flush()
        accepted.append(fill(context))
        return {"accepted": accepted}

    def on_thread(context: WorkflowContext, config: Config) -> dict[str, object]:
        number = 0
        for number in range(200):
            context.emit("token", number)
            if number % 20 == 19:
                anyio.from_thread.run(context.flush)
        return {"accepted": number + 1}

    step = Step.lambda_("fill", on_thread if is_thread else on_loop)
    async with place.runner(work=False, config={"max_pending_events": 20}) as runner:
        result = await runner.execute(Workflow("w", [step]), run_id="r")
        tokens = shown(await stored(runner, "r"))
    result.raise_for_status()
    accepted = result.context.get_output("fill", "accepted")
    assert accepted == (200 if is_thread else [20, 20])
    assert tokens == (list(range(200)) if is_thread else [*range(20), *range(20)])


async def test_a_failed_commit_loses_no_event_and_flush_raises() -> None:
    store = FaultInjectingStore(MemoryRunStore())

    async def answer(context: WorkflowContext, config: Config) -> None:
        context.emit("token", 1)
        await context.flush()
        store.fail("commit", call=store.calls["commit"] + 1)
        context.emit("token", 2)
        with pytest.raises(StoreError):
            await context.flush()
        await context.flush()
        context.emit("token", 3)

    runner = WorkflowRunner(store=store)
    (await runner.execute(Workflow("w", [Step.lambda_("answer", answer)]), run_id="r")).raise_for_status()
    assert shown(await stored(runner, "r")) == [1, 2, 3]


@pytest.mark.parametrize("settings", [{"dry_run": True}, {"checkpoint_enabled": False}, {"emit_events": False}])
async def test_where_no_events_are_stored_emit_checks_its_arguments_and_stores_nothing(
    settings: dict[str, bool],
) -> None:
    async def answer(context: WorkflowContext, config: Config) -> None:
        for number in range(50):
            context.emit("token", number)
        await context.flush()
        with pytest.raises(DefinitionError):
            context.emit("step_started")

    config = WorkflowRunnerConfig(max_pending_events=10, **settings)
    runner = WorkflowRunner(store=MemoryRunStore(), config=config)
    (await runner.execute(Workflow("w", [Step.lambda_("answer", answer)]), run_id="r")).raise_for_status()
    if "emit_events" in settings:
        assert await stored(runner, "r") == []


async def test_a_context_outside_of_a_running_step_emits_nothing() -> None:
    with pytest.raises(DefinitionError, match="emit can be called only on the context of a running step"):
        WorkflowContext().emit("token")
    with pytest.raises(DefinitionError, match="flush can be called only"):
        await WorkflowContext().flush()


async def test_middleware_and_the_functions_of_other_steps_may_emit() -> None:
    async def loud(step: Step, context: WorkflowContext, next_fn: Any) -> StepResult:
        context.emit("token", "before")
        result: StepResult = await next_fn(step, context)
        context.emit("token", "after")
        return result

    def condition(context: WorkflowContext) -> bool:
        context.emit("token", "condition")
        return True

    runner = WorkflowRunner(store=MemoryRunStore())
    runner.middleware(loud)
    flow = Workflow("w", [Step.choice("which", condition, "last"), Step.lambda_("last", lambda context, config: None)])
    (await runner.execute(flow, run_id="r")).raise_for_status()
    assert shown(await stored(runner, "r")) == ["before", "condition", "after", "before", "after"]
