"""Calls that a step makes once: what they returned is recorded, and later attempts do not repeat them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from spine_async import (
    Step,
    StepError,
    StepFunction,
    StepResult,
    Workflow,
    WorkflowContext,
)
from tests.service.calls import AGAIN, Calls, fail_twice, recorded
from tests.service.places import Place

pytestmark = pytest.mark.anyio

Config = Mapping[str, object]


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


async def test_middleware_and_handler_make_calls_of_their_own(place: Place) -> None:
    calls = Calls()

    async def work(context: WorkflowContext, config: Config) -> None:
        await context.once("double", calls.double, 1)
        fail_twice(context)

    async with place.runner(work=False) as runner:

        @runner.middleware
        async def before(step: Step, context: WorkflowContext, next_fn: StepFunction) -> StepResult:
            await context.once("before", calls.double, 2)
            return await next_fn(step, context)

        (await runner.execute(Workflow("w", [Step.lambda_("work", work, retry=AGAIN)]))).raise_for_status()
    assert calls.made == [2, 1]
