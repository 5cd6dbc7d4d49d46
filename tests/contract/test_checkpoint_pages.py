"""Checkpoints are read one by one or in pages: the cost depends on the page, and the event loop is not blocked."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from spine_async import RunNotFoundError, Step, StepResult, Workflow, WorkflowContext, WorkflowRunner
from spine_async._engine.start.replay import load_position
from spine_async._engine.start.request import _EMPTY_DIGEST
from spine_async._model.run_change import RunEnd
from spine_async._model.status import EventType, RunStatus
from spine_async._model.visit_row import EventRow
from spine_async.ports import RunStore
from spine_async.storage import SqlRunStore
from spine_async.testing import FaultInjectingStore
from spine_async.testing.conformance.rows import change, committed, created, moment, moved, new_run, visit
from tests.lag import measured_lag

pytestmark = pytest.mark.anyio

STEPS = 2_000
ITEMS = 10_000

ResultT = TypeVar("ResultT")


async def work(context: WorkflowContext, config: Any) -> StepResult:
    number = context.params.get("item", 0)
    return StepResult.ok({"n": number}, {"last": number})


def flow() -> Workflow:
    iterator = Workflow(steps=[Step.lambda_("first", work), Step.lambda_("second", work)])
    each = Step.map("each", items=[10, 11, 12], iterator=iterator, max_concurrency=1)
    return Workflow("w", [Step.lambda_("before", work), each, Step.lambda_("after", work)])


@pytest.fixture
async def runner(open_runner: Any) -> WorkflowRunner:
    runner: WorkflowRunner = await open_runner()
    await runner.execute(flow(), params={"p": 1}, run_id="r")
    return runner


async def test_map_items_are_shown(runner: WorkflowRunner) -> None:
    items = [f"each[{index}]/{step}" for index in range(3) for step in ("first", "second")]
    found = await runner.list_checkpoints("r")
    assert [each.path for each in found] == ["before", *items, "each", "after"]
    assert [each.seq for each in found] == sorted(each.seq for each in found)
    first, second = (each.context_snapshot for each in found[3:5])
    assert first["params"] == {"p": 1, "last": 11, "item": 11}
    assert first["outputs"] == {"before": {"n": 0}, "first": {"n": 11}}
    assert second["outputs"] == {"before": {"n": 0}, "first": {"n": 11}, "second": {"n": 11}}


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 100])
async def test_pages_add_up_to_the_whole(runner: WorkflowRunner, sql: Any, limit: int) -> None:
    seen: list[Any] = []
    while page := await runner.list_checkpoints("r", limit=limit, after=seen[-1].seq if seen else 0):
        assert len(page) <= limit
        seen += page
    view = sql("SELECT path, seq, context_snapshot FROM core_workflow_checkpoints WHERE run_id = 'r' ORDER BY seq")
    assert [(each.path, each.seq) for each in seen] == [(row["path"], row["seq"]) for row in view]
    assert [each.context_snapshot for each in seen] == [json.loads(row["context_snapshot"]) for row in view]


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 100])
async def test_items_of_nested_maps_and_of_waits_are_shown_in_every_page(
    open_runner: Any, sql: Any, limit: int
) -> None:
    paused = Workflow(steps=[Step.wait("pause", 0.01), Step.lambda_("last", work)])
    inner = Step.map("inner", items=[1, 2], item_param="i", iterator=paused)
    iterator = Workflow(steps=[inner, Step.lambda_("next", work)])
    outer = Step.map("outer", items=["A", "B"], item_param="o", iterator=iterator)
    runner: WorkflowRunner = await open_runner()
    await runner.execute(Workflow("w", [outer]), run_id="r")
    seen: list[Any] = []
    while page := await runner.list_checkpoints("r", limit=limit, after=seen[-1].seq if seen else 0):
        seen += page
    view = sql("SELECT path, context_snapshot FROM core_workflow_checkpoints WHERE run_id = 'r' ORDER BY seq")
    assert [(each.path, each.context_snapshot) for each in seen] == [
        (row["path"], json.loads(row["context_snapshot"])) for row in view
    ]
    for each in seen:
        assert await runner.get_checkpoint("r", each.path) == each
    params = {each.path: each.context_snapshot["params"] for each in seen}
    assert params["outer[1]/inner[0]/last"] == {"o": "B", "i": 1, "last": 0}
    assert params["outer[1]/inner"] == {"o": "B"}


async def test_items_that_began_on_an_earlier_page_are_read_together(database_url: str) -> None:
    store = FaultInjectingStore(SqlRunStore.from_url(database_url))
    iterator = Workflow(steps=[Step.lambda_("first", work), Step.lambda_("second", work)])
    each = Step.map("each", items=list(range(150)), iterator=iterator, max_concurrency=150)
    async with WorkflowRunner(store=store) as runner:
        await runner.execute(Workflow("w", [each]), run_id="r")
        first_page = await runner.list_checkpoints("r", limit=150)
        store.calls.clear()
        page = await runner.list_checkpoints("r", limit=150, after=first_page[-1].seq)
    begun_earlier = {row.path.partition("/")[0] for row in first_page} & {row.path.partition("/")[0] for row in page}
    assert len(begun_earlier) > 100
    assert store.calls["visits"] <= 5
    assert all(len(row.context_snapshot["outputs"]) == 2 for row in page if row.step_name == "second")  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [0, -1, 1001])
async def test_a_page_has_a_size(runner: WorkflowRunner, limit: int) -> None:
    with pytest.raises(ValueError, match="between 1 and 1,000"):
        await runner.list_checkpoints("r", limit=limit)


@pytest.mark.parametrize("after", [-(2**40), 2**31, 2**63, 10**30])
async def test_a_cursor_may_be_any_number(runner: WorkflowRunner, after: int) -> None:
    assert bool(await runner.list_checkpoints("r", after=after)) is (after < 0)
    assert bool([event async for event in runner.events("r", after=after)]) is (after < 0)


async def test_one_checkpoint_by_its_path(runner: WorkflowRunner) -> None:
    for each in await runner.list_checkpoints("r"):
        assert await runner.get_checkpoint("r", each.path) == each
    for step in ("first", "each[3]/first", "nobody", "", "each[1]", "nul\x00", "half \ud800", "x' OR '1'='1"):
        assert await runner.get_checkpoint("r", step) is None
    with pytest.raises(RunNotFoundError):
        await runner.get_checkpoint("r2", "before")
    with pytest.raises(RunNotFoundError):
        await runner.list_checkpoints("r2")


async def test_a_step_that_was_visited_again_shows_its_last_visit(open_runner: Any) -> None:
    async def count(context: WorkflowContext, config: Any) -> dict[str, int]:
        return {"n": int(str(context.get_output("count", "n", 0))) + 1}

    again = Step.choice("again", lambda context: context.get_output("count", "n") < 12, "count", "end")
    runner = await open_runner()
    await runner.execute(Workflow("w", [Step.lambda_("count", count), again, Step.lambda_("end", work)]), run_id="r")
    checkpoint = await runner.get_checkpoint("r", "count")
    assert (checkpoint.path, checkpoint.context_snapshot["outputs"]["count"]) == ("count#12", {"n": 12})
    third = await runner.get_checkpoint("r", "count#3")
    assert third.context_snapshot["outputs"]["count"] == {"n": 3}


async def test_what_a_resume_changed_is_part_of_the_context(open_runner: Any) -> None:
    runner = await open_runner()
    stop = Step.lambda_("stop", lambda context, config: StepResult.stop("later"))
    steps = [stop, Step.wait("pause", 0.01), Step.lambda_("end", work)]
    await runner.execute(Workflow("w", steps), params={"a": 1, "b": 1}, run_id="r")
    await runner.resume("r", params_override={"b": 2})
    snapshots = {each.path: each.context_snapshot for each in await runner.list_checkpoints("r", limit=1)}
    later = await runner.list_checkpoints("r", limit=2, after=3)
    assert snapshots["stop"]["params"] == {"a": 1, "b": 1}
    assert later[-1].path == "end"
    assert later[-1].context_snapshot["params"] == {"a": 1, "b": 2, "last": 0}


# ---- cost


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[FaultInjectingStore]:
    """A store for one or more of the runs below, which cost much to make."""
    kept = SqlRunStore(database_url)
    yield FaultInjectingStore(kept)
    await kept.close()


async def _steps(kept: RunStore) -> None:
    """A run of `STEPS` steps."""
    claim = await created(kept, replace(new_run("steps"), initial_outputs="{}"))
    text = "x" * 100
    rows = [visit(f"s{n}", claim.next_seq + n, output=f'{{"n":{n},"text":"{text}"}}') for n in range(STEPS)]
    await committed(kept, change(claim, rows))


async def _visits(kept: RunStore) -> None:
    """A run of 20,000 visits."""
    claim = await created(kept, new_run("visits"))
    paths = [f"{name}{'' if n == 1 else f'#{n}'}" for n in range(1, 10_001) for name in ("a", "b")]
    rows = [visit(path, claim.next_seq + n) for n, path in enumerate(paths)]
    await committed(kept, change(claim, rows))


async def _failed(kept: RunStore) -> None:
    """A failed run with a map of `ITEMS` items."""
    claim = await created(kept, replace(new_run("failed", workflow="w"), params_hash=_EMPTY_DIGEST))
    for first in range(0, ITEMS, 5_000):
        rows = []
        for index in range(first, first + 5_000):
            at = claim.next_seq + 3 * (index - first)
            rows.append(
                visit(f"m[{index}]/x", at + 1, started_seq=at, item_seq=at + 2, item_index=index, ends_item=True)
            )
        claim = moved(claim, await committed(kept, change(claim, rows)))
    at = claim.next_seq
    events = [
        EventRow(EventType.STEP_STARTED, "m", moment(at), path="m", seq=at),
        EventRow(EventType.STEP_FAILED, "m", moment(at + 1), '{"attempts":3,"duration_ms":7.5}', "m", at + 1),
        EventRow(EventType.WORKFLOW_FAILED, None, moment(at + 2), seq=at + 2),
    ]
    end = RunEnd(RunStatus.FAILED, moment(at + 2), "m", "E", "INTERNAL")
    await committed(kept, change(claim, (), events, end=end))


async def _unblocked(call: Callable[[], Awaitable[ResultT]]) -> ResultT:
    """The result of a call that keeps the loop's thread busy for less than 50 ms at a time."""
    async with measured_lag() as lag:
        result = await call()
    assert lag.worst_cpu_ms < 50
    return result


async def _peak(call: Callable[[], Awaitable[object]]) -> float:
    """The most memory, in MB, that a call needs."""
    tracemalloc.start()
    try:
        await call()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


@pytest.mark.slow
async def test_one_checkpoint_of_a_long_run(store: FaultInjectingStore) -> None:
    await _steps(store)
    async with WorkflowRunner(store=store) as runner:
        await runner.get_checkpoint("steps", "s1")
        last = await _unblocked(lambda: runner.get_checkpoint("steps", f"s{STEPS - 1}"))
        assert last is not None
        assert len(last.context_snapshot["outputs"]) == STEPS  # type: ignore[arg-type]
        del last
        store.calls.clear()
        await runner.get_checkpoint("steps", "s3")
        assert store.calls["visits"] == 1
        assert await _peak(lambda: runner.get_checkpoint("steps", "s3")) < 1
        assert await _peak(lambda: runner.get_checkpoint("steps", f"s{STEPS - 1}")) < 8


@pytest.mark.slow
async def test_pages_of_a_long_run(store: FaultInjectingStore) -> None:
    await _steps(store)
    await _failed(store)
    late = STEPS - 500
    async with WorkflowRunner(store=store) as runner:
        page = await _unblocked(lambda: runner.list_checkpoints("steps", after=late))
        assert len(page) == 100
        items = await _unblocked(lambda: runner.list_checkpoints("failed", limit=200, after=ITEMS))
        assert len(items) == 200
        del page, items
        assert await _peak(lambda: runner.list_checkpoints("steps", after=late)) < 30
        assert await _peak(lambda: runner.list_checkpoints("failed", limit=200, after=ITEMS)) < 15


@pytest.mark.slow
async def test_a_failed_run_with_many_events_gives_its_result_again(store: FaultInjectingStore) -> None:
    await _failed(store)
    stored = await store.load("failed")
    assert stored is not None
    workflow = Workflow("w", [Step.map("m", items=[1], iterator=work)], version=stored.workflow_version)
    async with WorkflowRunner(store=store) as runner:
        result = await _unblocked(lambda: runner.execute(workflow, run_id="failed"))
        assert await _peak(lambda: runner.execute(workflow, run_id="failed")) < 3
    assert (result.status, result.failed_steps) == ("failed", ["m"])
    (metric,) = result.step_metrics
    assert (metric.attempts, metric.duration_ms) == (3, 7.5)
    assert store.calls["events"] == 0


@pytest.mark.slow
async def test_a_resume_after_many_visits_does_not_block_the_loop(store: FaultInjectingStore) -> None:
    await _visits(store)
    steps = [Step.lambda_("a", work), Step.lambda_("b", work, next_step="a")]
    async with WorkflowRunner(store=store) as runner:
        stored = await store.load("visits")
        assert stored is not None
        position = await _unblocked(
            lambda: load_position(runner._runtime, Workflow("w", steps), stored, is_resumed=True)
        )
    assert position.cursor.segment == "a#10001"
    assert store.calls["past_visits"] > 10
