"""Calls that a step makes once: what they returned is recorded, and later attempts do not repeat them."""

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
    Event,
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
from spine_async.storage import MemoryRunStore
from spine_async.testing import FaultInjectingStore
from tests.service.conftest import StartService
from tests.service.flows import Notes
from tests.service.places import Place
from tests.service.services import until

pytestmark = pytest.mark.anyio

Config = Mapping[str, object]
AGAIN = RetryPolicy(max_attempts=3, backoff="constant", initial_delay=0.001, jitter=False)


class Calls:
    """Functions that note their calls."""

    def __init__(self) -> None:
        self.made: list[Any] = []
        self.threads: list[int] = []

    async def double(self, number: int) -> int:
        self.made.append(number)
        await anyio.lowlevel.checkpoint()
        return 2 * number

    def double_plainly(self, number: int) -> int:
        self.made.append(number)
        self.threads.append(threading.get_ident())
        return 2 * number


def fail_twice(context: WorkflowContext) -> None:
    if context.attempt < 3:
        raise StepError("again", category="TRANSIENT")


async def recorded(runner: WorkflowRunner, run_id: str) -> list[Event]:
    return [event async for event in runner.events(run_id) if event.event_type == "call_recorded"]


async def test_a_retry_gets_the_recorded_values_in_any_order(place: Place) -> None:
    calls, seen = Calls(), list[Any]()

    async def work(context: WorkflowContext, config: Config) -> None:
        values = dict[int, Any]()

        async def ask(number: int) -> None:
            values[number] = await context.once("double", calls.double, number)

        async with anyio.create_task_group() as group:
            for number in range(4) if context.attempt % 2 else reversed(range(4)):
                group.start_soon(ask, number)
        seen.append(sorted(values.items()))
        fail_twice(context)

    async with place.runner(work=False) as runner:
        result = await runner.execute(Workflow("w", [Step.lambda_("work", work, retry=AGAIN)]), run_id="r")
        events = [event async for event in runner.events("r")]
    result.raise_for_status()
    assert seen == [[(0, 0), (1, 2), (2, 4), (3, 6)]] * 3
    assert sorted(calls.made) == [0, 1, 2, 3]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    types = [event.event_type for event in events]
    assert types[:6] == ["workflow_started", "step_started", *["call_recorded"] * 4]
    first = next(event for event in events if event.event_type == "call_recorded")
    assert (first.path, first.step_name) == ("work", "work")
    assert first.metadata == {"execution": 1, "attempt": 1, "name": "double", "output_size": 1}


async def test_a_value_is_stored_when_the_call_returns(place: Place) -> None:
    calls, counts = Calls(), list[int]()

    async def work(context: WorkflowContext, config: Config) -> None:
        for number in range(3):
            await context.once("double", calls.double, number)
            counts.append(len(await recorded(runner, context.run_id)))

    async with place.runner(work=False) as runner:
        await runner.execute(Workflow("w", [Step.lambda_("work", work)]))
    assert counts == [1, 2, 3]


async def test_a_resume_gets_the_recorded_values_and_a_finished_step_is_not_read(place: Place) -> None:
    calls, given = Calls(), list[Any]()

    async def work(context: WorkflowContext, config: Config) -> None:
        for number in range(300):  # more than a page
            given.append(await context.once("double", calls.double, number))
        if context.step_name == "second" and not context.metadata["resumed"]:
            raise StepError("no")

    flow = Workflow("w", [Step.lambda_("first", work), Step.lambda_("second", work)])
    async with place.runner(work=False) as runner:
        await runner.execute(flow, run_id="r")
    assert len(calls.made) == 600
    async with place.runner(work=False) as runner:
        given.clear()
        (await runner.resume("r", workflow=flow)).raise_for_status()
        checkpoints = await runner.list_checkpoints("r")
    assert len(calls.made) == 600
    assert given == [2 * number for number in range(300)]
    assert [each.path for each in checkpoints] == ["first", "second"]


async def test_equal_calls_are_counted_and_one_that_raised_is_not(place: Place) -> None:
    made = list[str]()

    async def next_number(kind: str) -> int:
        made.append(kind)
        if len(made) == 2:
            raise StepError("lost")
        return len(made)

    async def work(context: WorkflowContext, config: Config) -> dict[str, object]:
        first = await context.once("next", next_number, "a")
        for _ in range(2):
            try:
                second = await context.once("next", next_number, "a")
                break
            except StepError:
                continue
        other = await context.once("next", next_number, "b")
        fail_twice(context)
        return {"values": [first, second, other]}

    async with place.runner(work=False) as runner:
        result = await runner.execute(Workflow("w", [Step.lambda_("work", work, retry=AGAIN)]))
    assert result.context.get_output("work", "values") == [1, 3, 4]
    assert made == ["a", "a", "a", "b"]


async def test_plain_calls_run_on_a_thread_and_a_plain_handler_calls_in_its_own(place: Place) -> None:
    calls, here = Calls(), threading.get_ident()
    handlers = list[int]()

    async def on_loop(context: WorkflowContext, config: Config) -> dict[str, object]:
        value = await context.once("double", calls.double_plainly, 4)
        fail_twice(context)
        return {"value": value}

    def on_thread(context: WorkflowContext, config: Config) -> dict[str, object]:
        handlers.append(threading.get_ident())
        values = [
            context.once_in_thread("double", calls.double_plainly, 5),
            context.once_in_thread("double", calls.double, 6),
        ]
        fail_twice(context)
        return {"values": values}

    flow = Workflow("w", [Step.lambda_(each.__name__, each, retry=AGAIN) for each in (on_loop, on_thread)])
    async with place.runner(work=False) as runner:
        result = await runner.execute(flow)
    assert result.context.get_output("on_loop", "value") == 8
    assert result.context.get_output("on_thread", "values") == [10, 12]
    assert calls.made == [4, 5, 6]
    assert calls.threads[0] != here
    assert calls.threads[1] == handlers[0]


async def test_all_threads_may_make_calls_at_once() -> None:
    calls = Calls()

    def work(context: WorkflowContext, config: Config) -> None:
        context.once_in_thread("double", calls.double_plainly, context.params["item"])

    flow = Workflow("w", [Step.map("each", items=range(200), iterator=work, max_concurrency=200)])
    async with Place(None).runner(work=False) as runner:
        (await runner.execute(flow)).raise_for_status()
    assert sorted(calls.made) == list(range(200))


async def test_a_key_stands_for_the_arguments(place: Place) -> None:
    made = list[object]()

    async def ask(client: object) -> str:
        made.append(client)
        return "yes"

    async def work(context: WorkflowContext, config: Config) -> dict[str, object]:
        answers = [await context.once("ask", ask, object(), key={"b": 1, "a": [number, None]}) for number in range(2)]
        fail_twice(context)
        return {"answers": answers}

    async with place.runner(work=False) as runner:
        result = await runner.execute(Workflow("w", [Step.lambda_("work", work, retry=AGAIN)]))
    assert result.context.get_output("work", "answers") == ["yes", "yes"]
    assert len(made) == 2


async def test_the_order_of_keys_in_arguments_does_not_matter(place: Place) -> None:
    made = list[object]()

    async def ask(query: dict[str, int]) -> str:
        made.append(query)
        return "yes"

    async def work(context: WorkflowContext, config: Config) -> None:
        await context.once("ask", ask, {"a": 1, "b": 2} if context.attempt == 1 else {"b": 2, "a": 1})
        fail_twice(context)

    async with place.runner(work=False) as runner:
        (await runner.execute(Workflow("w", [Step.lambda_("work", work, retry=AGAIN)]))).raise_for_status()
    assert made == [{"a": 1, "b": 2}]


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


async def test_a_large_value_is_recorded_and_read(place: Place) -> None:
    made = list[int]()

    async def big(count: int) -> dict[str, list[str]]:
        made.append(count)
        return {"rows": ["é" * 100] * count}

    async def work(context: WorkflowContext, config: Config) -> dict[str, object]:
        value = await context.once("big", big, 5_000)
        fail_twice(context)
        return {"rows": len(value["rows"]), "last": value["rows"][-1]}

    async with place.runner(work=False) as runner:
        result = await runner.execute(Workflow("w", [Step.lambda_("work", work, retry=AGAIN)]))
    assert result.context.get_output("work") == {"rows": 5_000, "last": "é" * 100}
    assert made == [5_000]


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
    assert len(await store.visits("r", "each")) == 49 + 50
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
        flow = Workflow("w", [Step.lambda_("work", work, retry=retry, timeout=0.05)])
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
