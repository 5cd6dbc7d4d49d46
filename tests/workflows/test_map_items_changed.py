"""A resumed map never mixes items: where its items or the steps of its iterator differ, the resume is refused."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import anyio
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from spine_async import (
    ErrorPolicy,
    RetryPolicy,
    RunStatus,
    Step,
    StepResult,
    Workflow,
    WorkflowChangedError,
    WorkflowContext,
    WorkflowRunner,
    WorkflowRunnerConfig,
)
from spine_async._clock import SystemClock
from spine_async._model.visit_filter import VisitFilter
from spine_async.ports import RunStore
from spine_async.storage import MemoryRunStore, SqlRunStore

pytestmark = pytest.mark.anyio

MakeRunner = Callable[..., WorkflowRunner]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[RunStore]:
    chosen: RunStore = MemoryRunStore()
    if request.param == "sqlite":
        chosen = SqlRunStore.from_url(request.getfixturevalue("sqlite_url"))
    elif request.param == "postgres":
        chosen = SqlRunStore.from_url(request.getfixturevalue("cleared_postgres_url"))
    yield chosen
    await chosen.close()


class Work:
    """A handler that records what it ran, and fails for one item until the test repairs it."""

    def __init__(self, broken: object = None, *keys: str) -> None:
        self.broken = broken
        self.keys = keys or ("item",)
        self.ran: list[tuple[object, ...]] = []

    async def __call__(self, context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
        seen = tuple(context.get_param(key) for key in self.keys)
        if self.broken is not None and self.broken in {seen, seen[-1]}:
            raise ValueError("broken")
        self.ran.append(seen)
        return {"seen": list(seen)}


def nested(work: Work, outer: Callable[[], Any], inner: Callable[[], Any], **options: Any) -> Workflow:
    within = Step.map("inner", items=lambda context: inner(), item_param="i", iterator=work, max_concurrency=1)
    step = Step.map(
        "outer",
        items=lambda context: outer(),
        item_param="o",
        iterator=Workflow(steps=[within]),
        max_concurrency=1,
        **options,
    )
    return Workflow("w", [step])


async def is_refused(runner: WorkflowRunner, workflow: Workflow, map_path: str, index: int, problem: str = "") -> None:
    """The resume is refused because of this item, and the run, which has ended, stays as it was."""
    before, rows = await runner.get_run("r"), await stored_rows(runner)
    assert before.status in {RunStatus.FAILED, RunStatus.STOPPED}
    with pytest.raises(WorkflowChangedError) as caught:
        await runner.resume("r", workflow=workflow)
    assert (caught.value.map_path, caught.value.item_index) == (map_path, index)
    assert f"item {index} of map {map_path!r}" in str(caught.value)
    assert problem in str(caught.value)
    assert await stored_rows(runner) == rows
    assert replace(await runner.get_run("r"), updated_at=before.updated_at, last_seq=before.last_seq) == before


async def stored_rows(runner: WorkflowRunner) -> list[str]:
    store = runner._runtime.store
    root = [row.path for row in await store.visits("r")]
    return root + [
        row.path for name in ("outer", "each", "m3") for row in await store.visits("r", VisitFilter(inside=name))
    ]


async def test_outer_items_whose_first_step_is_a_map(store: RunStore) -> None:
    work, outer = Work(("B", 2), "o", "i"), ["A", "B"]
    workflow = nested(work, lambda: outer, lambda: [1, 2])
    first = await WorkflowRunner(store=store).execute(workflow, run_id="r")
    assert first.status is RunStatus.FAILED
    work.broken, ran = None, list(work.ran)
    outer.reverse()
    await is_refused(WorkflowRunner(store=store), workflow, "outer", 0, "the item differs from the one")
    assert work.ran == ran
    outer.reverse()
    result = await WorkflowRunner(store=store).resume("r", workflow=workflow)
    results: Any = result.context.get_output("outer", "results")
    seen = [[one["seen"] for one in each["results"]] for each in results]
    assert seen == [[["A", 1], ["A", 2]], [["B", 1], ["B", 2]]]
    assert len(work.ran) == 4


async def test_a_begun_outer_item_whose_first_step_is_a_map(store: RunStore) -> None:
    """Only the first inner item is stored; the outer item itself has no finished step."""
    work, outer = Work(2, "o", "i"), ["A", "B"]
    workflow = nested(work, lambda: outer, lambda: [1, 2])
    await WorkflowRunner(store=store).execute(workflow, run_id="r")
    assert work.ran == [("A", 1)]
    work.broken = None
    outer.reverse()
    await is_refused(WorkflowRunner(store=store), workflow, "outer", 0)
    outer.reverse()
    assert (await WorkflowRunner(store=store).resume("r", workflow=workflow)).status is RunStatus.COMPLETED


async def test_inner_items_that_differ(store: RunStore) -> None:
    work, inner = Work(3, "o", "i"), [1, 2, 3]
    workflow = nested(work, lambda: ["A", "B"], lambda: list(inner))
    await WorkflowRunner(store=store).execute(workflow, run_id="r")
    work.broken, inner[:] = None, [2, 1, 3]
    await is_refused(WorkflowRunner(store=store), workflow, "outer[0]/inner", 0)
    assert work.ran == [("A", 1), ("A", 2)]
    inner[:] = [1, 2, 3]
    assert (await WorkflowRunner(store=store).resume("r", workflow=workflow)).status is RunStatus.COMPLETED
    assert len(work.ran) == 6


@pytest.mark.parametrize(("level", "path"), [(3, "m3"), (2, "m3[0]/m2")])
async def test_three_levels_of_maps(level: int, path: str) -> None:
    work, lists = Work(("a", "b", "a"), "i3", "i2", "i1"), {1: ["a", "b"], 2: ["a", "b"], 3: ["a", "b"]}
    iterator: Any = work
    for number in (1, 2, 3):
        items = lambda context, number=number: lists[number]  # noqa: E731
        step = Step.map(f"m{number}", items=items, item_param=f"i{number}", iterator=iterator, max_concurrency=1)
        iterator = Workflow(steps=[step])
    workflow, store = Workflow("w", [step]), MemoryRunStore()
    await WorkflowRunner(store=store).execute(workflow, run_id="r")
    work.broken, ran = None, len(work.ran)
    lists[level].reverse()
    await is_refused(WorkflowRunner(store=store), workflow, path, 0)
    assert len(work.ran) == ran
    lists[level].reverse()
    assert (await WorkflowRunner(store=store).resume("r", workflow=workflow)).status is RunStatus.COMPLETED
    assert len(work.ran) == 8


async def test_items_whose_first_step_is_a_wait(store: RunStore) -> None:
    class Shifted(SystemClock):
        shift = timedelta(0)

        def now(self) -> datetime:
            return super().now() + self.shift

    work, items = Work(), ["A", "B"]
    iterator = Workflow(steps=[Step.wait("pause", seconds=3600), Step.lambda_("work", work)])
    workflow = Workflow("w", [Step.map("each", items=lambda context: items, iterator=iterator)])
    first = WorkflowRunner(store=store)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: first.execute(workflow, run_id="r"))
            while len(await store.visits("r", VisitFilter(inside="each"))) < 2:
                await anyio.lowlevel.checkpoint()
            await first.stop("r")
        items.reverse()
        await is_refused(WorkflowRunner(store=store), workflow, "each", 0)
        items.reverse()
        clock = Shifted()
        clock.shift = timedelta(hours=2)
        result = await WorkflowRunner(store=store, clock=clock).resume("r", workflow=workflow)
    assert result.context.get_output("each", "results") == [{"seen": ["A"]}, {"seen": ["B"]}]


def as_list(values: list[Any]) -> Any:
    return list(values)


def as_generator(values: list[Any]) -> Iterator[Any]:
    yield from values


async def as_stream(values: list[Any]) -> AsyncIterator[Any]:
    for value in values:
        yield value


@pytest.mark.parametrize("form", [as_list, as_generator, as_stream])
@pytest.mark.parametrize(
    ("later", "index"),
    [([1, 2], 2), ([], 2), ([2, 1, 3, 4], 0), ([1, 2, 4, 3], 2), ([1, 2, 3.0, 4], 2), ([1, 2, {"a": object()}], 2)],
)
async def test_a_list_that_is_shorter_or_in_another_order(form: Any, later: list[Any], index: int) -> None:
    work, items, store = Work(4), [1, 2, 3, 4], MemoryRunStore()
    step = Step.map("each", items=lambda context: form(items), iterator=work, max_concurrency=1)
    workflow = Workflow("w", [step])
    await WorkflowRunner(store=store).execute(workflow, run_id="r")
    work.broken, items[:] = None, later
    await is_refused(WorkflowRunner(store=store), workflow, "each", index)
    assert len(work.ran) == 3
    items[:] = [1, 2, 3, 4]
    assert (await WorkflowRunner(store=store).resume("r", workflow=workflow)).status is RunStatus.COMPLETED
    assert len(work.ran) == 4


async def test_items_may_be_appended_and_an_item_of_which_nothing_is_stored_may_change() -> None:
    work, items, store = Work(2), [1, 2], MemoryRunStore()
    workflow = Workflow("w", [Step.map("each", items=lambda context: items, iterator=work, max_concurrency=1)])
    await WorkflowRunner(store=store).execute(workflow, run_id="r")
    items[:] = [1, 5, 6]
    result = await WorkflowRunner(store=store).resume("r", workflow=workflow)
    assert result.context.get_output("each", "results") == [{"seen": [1]}, {"seen": [5]}, {"seen": [6]}]


@pytest.mark.parametrize("policy", list(ErrorPolicy))
@pytest.mark.parametrize("later", [["B", "A"], [], ["A"]])
async def test_a_retry_that_gets_another_list(policy: ErrorPolicy, later: list[str]) -> None:
    work, store = Work(), MemoryRunStore()
    calls = 0

    def items(context: WorkflowContext) -> list[str]:
        nonlocal calls
        calls += 1
        return ["A", "B", "C"] if calls in {1, 3} else later

    async def fails_once(context: WorkflowContext, config: dict[str, Any]) -> Any:
        if calls == 1 and context.get_param("item") == "C":
            raise ConnectionError("once")
        return await work(context, config)

    step = Step.map(
        "each",
        items=items,
        iterator=fails_once,
        max_concurrency=1,
        on_error=policy,
        retry=RetryPolicy(max_attempts=3, initial_delay=0, retryable_errors=("TRANSIENT", "INTERNAL")),
    )
    workflow = Workflow("w", [step])
    with pytest.raises(WorkflowChangedError) as caught:
        await WorkflowRunner(store=store).execute(workflow, run_id="r")
    assert (caught.value.map_path, caught.value.item_index) == ("each", 0 if later == ["B", "A"] else 1)
    assert calls == 2
    result = await WorkflowRunner(store=store).resume("r", workflow=workflow)
    assert result.context.get_output("each", "results") == [{"seen": [each]} for each in "ABC"]


async def test_a_retry_compares_inner_items_and_items_that_have_begun() -> None:
    calls: dict[str, int] = {"inner": 0}
    ran: list[object] = []

    def inner(context: WorkflowContext) -> list[int]:
        calls["inner"] += 1
        return [1, 2] if calls["inner"] == 1 else [2, 1]

    async def second_breaks(context: WorkflowContext, config: dict[str, Any]) -> None:
        if context.get_param("i") == 2:
            raise ConnectionError("once")
        ran.append(context.get_param("i"))

    within = Step.map("inner", items=inner, item_param="i", iterator=second_breaks, max_concurrency=1)
    step = Step.map(
        "outer", items=["A"], iterator=Workflow(steps=[within]), retry=RetryPolicy(max_attempts=3, initial_delay=0)
    )
    with pytest.raises(WorkflowChangedError) as caught:
        await WorkflowRunner(store=MemoryRunStore()).execute(Workflow("w", [step]))
    assert (caught.value.map_path, caught.value.item_index, ran) == ("outer[0]/inner", 0, [1])


def iterator_of(work: Work, *names: str) -> Workflow:
    return Workflow(steps=[Step.lambda_(name, work) for name in names])


@pytest.mark.parametrize("policy", [ErrorPolicy.STOP, ErrorPolicy.CONTINUE, ErrorPolicy.RETRY])
@pytest.mark.parametrize("collect", [True, False])
@pytest.mark.parametrize(
    ("later", "problem"),
    [
        (("load", "keep"), "finished step 'save' is missing"),
        (("save", "load"), "is no longer at this position"),
        (("load",), "finished step 'save' comes after the end of the item"),
        (("load", "save", "tell"), "step 'save' was its last step, but step 'tell' follows now"),
        (("check", "load", "save"), "is no longer at this position"),
    ],
)
async def test_a_finished_step_of_the_iterator_that_changed(
    policy: ErrorPolicy, later: tuple[str, ...], problem: str, *, collect: bool
) -> None:
    work, store = Work(3), MemoryRunStore()

    def flow(*names: str, on_error: ErrorPolicy = policy) -> Workflow:
        iterator = iterator_of(work, *names)
        each = Step.map(
            "each", items=[1, 2, 3], iterator=iterator, max_concurrency=1, on_error=on_error, collect=collect
        )
        return Workflow("w", [Step.lambda_("before", lambda context, config: None), each])

    await WorkflowRunner(store=store).execute(flow("load", "save", on_error=ErrorPolicy.STOP), run_id="r")
    work.broken, ran = None, len(work.ran)
    await is_refused(WorkflowRunner(store=store), flow(*later), "each", 0, problem)
    assert len(work.ran) == ran == 4
    await WorkflowRunner(store=store).resume("r", workflow=flow("load", "save"))
    assert len(work.ran) == 6


async def test_an_inner_map_that_was_renamed() -> None:
    work, store = Work(2, "o", "i"), MemoryRunStore()
    first = nested(work, lambda: ["A"], lambda: [1, 2])
    await WorkflowRunner(store=store).execute(first, run_id="r")
    within = Step.map("renamed", items=[1, 2], item_param="i", iterator=work)
    changed = Workflow("w", [Step.map("outer", items=["A"], item_param="o", iterator=Workflow(steps=[within]))])
    await is_refused(WorkflowRunner(store=store), changed, "outer", 0, "steps inside of 'inner' are stored")
    work.broken = None
    assert (await WorkflowRunner(store=store).resume("r", workflow=first)).status is RunStatus.COMPLETED


@pytest.mark.parametrize(
    ("stored", "later", "is_same"),
    [
        ({"a": 1, "b": [{"c": 2, "d": 3}]}, {"b": [{"d": 3, "c": 2}], "a": 1}, True),
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, False),
        ({"a": [1, 2]}, {"a": [2, 1]}, False),
        ({"a": 1}, {"a": True}, False),
        (1, True, False),
        (0, False, False),
        (1, 1.0, False),
        ("1", 1, False),
        (None, "null", False),
        ("{}", {}, False),
        ('ä"\\{', 'ä"\\{', True),
        (0.1 + 0.2, 0.30000000000000004, True),
        (1e22, 1e22, True),
        (10**30, 10**30, True),
        ({"": {}}, {"": {}}, True),
    ],
)
async def test_items_are_compared_as_json_documents(stored: object, later: object, *, is_same: bool) -> None:
    store, items = MemoryRunStore(), [stored, "last"]

    async def work(context: WorkflowContext, config: dict[str, Any]) -> StepResult:
        return StepResult.stop("now") if context.get_param("item") == "last" else StepResult.ok()

    workflow = Workflow("w", [Step.map("each", items=lambda context: items, iterator=work, max_concurrency=1)])
    await WorkflowRunner(store=store).execute(workflow, run_id="r")
    items[0] = later
    if is_same:
        assert (await WorkflowRunner(store=store).resume("r", workflow=workflow)).status is RunStatus.COMPLETED
    else:
        await is_refused(WorkflowRunner(store=store), workflow, "each", 0)


async def test_a_map_that_a_choice_leads_to(store: RunStore) -> None:
    work, outer = Work(2, "o", "i"), ["A", "B"]
    iterator = Workflow(
        steps=[
            Step.choice("which", lambda context: context.get_param("o") == "B", "inner", "other"),
            Step.lambda_("other", lambda context, config: None),
            Step.map("inner", items=[1, 2], item_param="i", iterator=work, max_concurrency=1),
        ]
    )
    step = Step.map("outer", items=lambda context: outer, item_param="o", iterator=iterator, max_concurrency=1)
    workflow = Workflow("w", [step])
    await WorkflowRunner(store=store).execute(workflow, run_id="r")
    work.broken = None
    outer.reverse()
    await is_refused(WorkflowRunner(store=store), workflow, "outer", 0)
    outer.reverse()
    assert (await WorkflowRunner(store=store).resume("r", workflow=workflow)).status is RunStatus.COMPLETED


async def test_items_that_params_override_changes(store: RunStore) -> None:
    work = Work(3)
    workflow = Workflow("w", [Step.map("each", items_path="rows", iterator=work, max_concurrency=1)])
    await WorkflowRunner(store=store).execute(workflow, params={"rows": [1, 2, 3]}, run_id="r")
    work.broken = None
    with pytest.raises(WorkflowChangedError) as caught:
        await WorkflowRunner(store=store).resume("r", workflow=workflow, params_override={"rows": [1, 9, 3]})
    assert caught.value.item_index == 1
    result = await WorkflowRunner(store=store).resume("r", workflow=workflow, params_override={"rows": [1, 2, 3, 4]})
    assert result.context.get_output("each", "results") == [{"seen": [n]} for n in (1, 2, 3, 4)]


@pytest.mark.parametrize("collect", [True, False])
async def test_tolerated_failures_do_not_tolerate_other_items(store: RunStore, *, collect: bool) -> None:
    work, items = Work(2), [1, 2, 3, "stop"]

    async def stops(context: WorkflowContext, config: dict[str, Any]) -> Any:
        if context.get_param("item") == "stop" and work.broken is not None:
            return StepResult.stop("now")
        return await work(context, config)

    step = Step.map(
        "each",
        items=lambda context: items,
        iterator=stops,
        max_concurrency=1,
        tolerated_failures=1.0,
        collect=collect,
        on_error=ErrorPolicy.CONTINUE,
    )
    workflow = Workflow("w", [step])
    assert (await WorkflowRunner(store=store).execute(workflow, run_id="r")).status is RunStatus.STOPPED
    work.broken, items[:] = None, [3, 2, 1, "stop"]
    await is_refused(WorkflowRunner(store=store), workflow, "each", 0)
    items[:] = [1, 2, 3, "stop"]
    result = await WorkflowRunner(store=store).resume("r", workflow=workflow)
    assert result.context.get_output("each", "succeeded") == 4


@pytest.mark.parametrize("every_step", [True, False])
async def test_many_workers(store: RunStore, *, every_step: bool) -> None:
    work, items = Work(77), list(range(100))
    iterator = iterator_of(work, "load", "save")
    config = WorkflowRunnerConfig(checkpoint_every_step=every_step)
    step = Step.map("each", items=lambda context: items, iterator=iterator, max_concurrency=20)
    workflow = Workflow("w", [step])
    await WorkflowRunner(store=store, config=config).execute(workflow, run_id="r")
    work.broken = None
    items[5], items[6] = 6, 5
    await is_refused(WorkflowRunner(store=store, config=config), workflow, "each", 5)
    items.sort()
    result = await WorkflowRunner(store=store, config=config).resume("r", workflow=workflow)
    assert result.context.get_output("each", "results") == [{"seen": [n]} for n in range(100)]


@pytest.mark.parametrize("wraps", ["suppresses", "task group"])
async def test_no_middleware_hides_the_refusal(wraps: str) -> None:
    work, items, store = Work(3), [1, 2, 3], MemoryRunStore()
    workflow = Workflow("w", [Step.map("each", items=lambda context: items, iterator=work, max_concurrency=1)])
    await WorkflowRunner(store=store).execute(workflow, run_id="r")
    work.broken, items[:] = None, [2, 1, 3]
    runner = WorkflowRunner(store=store)

    @runner.middleware
    async def around(step: Step, context: WorkflowContext, next_fn: Any) -> StepResult:
        if wraps == "suppresses":
            try:
                return await next_fn(step, context)
            except BaseException:
                return StepResult.ok({"results": "invented"})
        results: list[StepResult] = []
        async with anyio.create_task_group() as tasks:

            async def call() -> None:
                results.append(await next_fn(step, context))

            tasks.start_soon(call)
        return results[0]

    await is_refused(runner, workflow, "each", 0)


async def test_middleware_that_repeats_a_map_gets_the_same_comparison() -> None:
    lists = [["A", "B"], ["B", "A"]]
    step = Step.map("each", items=lambda context: lists.pop(0), iterator=Work())
    runner = WorkflowRunner(store=MemoryRunStore())

    @runner.middleware
    async def twice(step: Step, context: WorkflowContext, next_fn: Any) -> StepResult:
        await next_fn(step, context)
        return await next_fn(step, context) if step.name == "each" else StepResult.ok()

    with pytest.raises(WorkflowChangedError):
        await runner.execute(Workflow("w", [step]))


async def test_a_refused_run_can_be_resumed_by_another_runner_at_once(store: RunStore) -> None:
    """Its lease has been released; nothing waits for its end."""
    work, items = Work(2), [1, 2]
    workflow = Workflow("w", [Step.map("each", items=lambda context: items, iterator=work, max_concurrency=1)])
    await WorkflowRunner(store=store).execute(workflow, run_id="r")
    work.broken, items[0] = None, 9
    await is_refused(WorkflowRunner(store=store), workflow, "each", 0)
    items[0] = 1
    result = await WorkflowRunner(store=store).resume("r", workflow=workflow)
    assert result.status is RunStatus.COMPLETED


async def test_the_row_that_stores_an_item_has_no_event_of_its_own(store: RunStore) -> None:
    work = Work(None, "o", "i")
    workflow = nested(work, lambda: ["A", "B"], lambda: [1, 2])
    runner = WorkflowRunner(store=store)
    await runner.execute(workflow, run_id="r")
    events = [event async for event in runner.events("r")]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert not [event for event in events if "@item" in f"{event.path}{event.step_name}"]
    started = [event.path for event in events if event.event_type == "step_started"]
    assert len(started) == len(set(started)) == 1 + 2 + 4
    markers = [row for row in await store.visits("r", VisitFilter(inside="outer")) if row.path.endswith("@item")]
    assert [(row.path, row.item_params) for row in markers] == [
        ("outer[0]@item", '{"o":"A"}'),
        ("outer[1]@item", '{"o":"B"}'),
    ]


async def test_an_item_that_an_older_version_stored_without_its_value_is_accepted(sqlite_url: str) -> None:
    """Older versions wrote no row for an item whose first step is a map."""
    store = SqlRunStore.from_url(sqlite_url)
    work, outer = Work(2, "o", "i"), ["A"]
    workflow = nested(work, lambda: outer, lambda: [1, 2])
    await WorkflowRunner(store=store).execute(workflow, run_id="r")
    await store.close()
    with closing(sqlite3.connect(sqlite_url.partition(":///")[2])) as connection:
        assert connection.execute("DELETE FROM core_workflow_steps WHERE path = 'outer[0]@item'").rowcount == 1
        connection.commit()
    await WorkflowRunner(store=store).resume("r", workflow=workflow)
    assert [
        row.item_params for row in await store.visits("r", VisitFilter(inside="outer")) if row.path.endswith("@item")
    ] == ['{"o":"A"}']
    outer[0] = "B"
    await is_refused(WorkflowRunner(store=store), workflow, "outer", 0)
    outer[0], work.broken = "A", None
    assert (await WorkflowRunner(store=store).resume("r", workflow=workflow)).status is RunStatus.COMPLETED
    await store.close()


async def test_checkpoints_of_inner_items_have_the_outer_item(database_url: str) -> None:
    store = SqlRunStore.from_url(database_url)
    workflow = nested(Work(None, "o", "i"), lambda: ["A", "B"], lambda: [1])
    await WorkflowRunner(store=store).execute(workflow, run_id="r")
    await store.close()
    engine = create_async_engine(database_url)
    async with engine.connect() as connection:
        query = text("SELECT path, context_snapshot FROM core_workflow_checkpoints ORDER BY seq")
        rows = (await connection.execute(query)).all()
    await engine.dispose()
    assert [(path, json.loads(snapshot)["params"]) for path, snapshot in rows] == [
        ("outer[0]/inner[0]/item", {"o": "A", "i": 1}),
        ("outer[0]/inner", {"o": "A"}),
        ("outer[1]/inner[0]/item", {"o": "B", "i": 1}),
        ("outer[1]/inner", {"o": "B"}),
        ("outer", {}),
    ]
