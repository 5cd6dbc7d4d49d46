"""Bounds of a map: its tasks, tolerated share and memory, the iterators that it closes, the pages that it reads."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from spine_async import (
    RunStatus,
    SharingError,
    SpineError,
    Step,
    StepResult,
    StoreUnavailableError,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
)
from spine_async._engine.state.index_table import DigestTable, IndexSet
from spine_async._engine.state.scope import Scope
from spine_async._model.visit_filter import OWN_VISITS, VisitFilter
from spine_async._model.visit_row import VisitRow
from spine_async.storage import MemoryRunStore
from spine_async.testing import FaultInjectingStore

pytestmark = pytest.mark.anyio


async def nothing(context: WorkflowContext, config: dict[str, Any]) -> None:
    return None


def as_list(count: int) -> Any:
    return list(range(count))


def as_generator(count: int) -> Iterator[int]:
    yield from range(count)


async def as_stream(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


@pytest.mark.parametrize("form", [as_list, as_generator, as_stream])
async def test_there_are_not_more_workers_than_items(form: Any) -> None:
    most, before = 0, len(asyncio.all_tasks())

    async def counts(context: WorkflowContext, config: dict[str, Any]) -> None:
        nonlocal most
        most = max(most, len(asyncio.all_tasks()) - before)

    each = Step.map("each", items=lambda context: form(3), iterator=counts, max_concurrency=200_000)
    result = await WorkflowRunner(store=MemoryRunStore()).execute(Workflow("w", [each]))
    assert result.context.get_output("each", "succeeded") == 3
    assert most < 10


async def test_a_slow_stream_adds_no_worker_while_one_waits() -> None:
    most, before = 0, len(asyncio.all_tasks())
    ended = anyio.Event()

    async def one_by_one() -> AsyncIterator[int]:
        nonlocal ended
        for number in range(50):
            ended = anyio.Event()
            yield number
            await ended.wait()
            await anyio.wait_all_tasks_blocked()

    async def counts(context: WorkflowContext, config: dict[str, Any]) -> None:
        nonlocal most
        most = max(most, len(asyncio.all_tasks()) - before)
        ended.set()

    each = Step.map("each", items=lambda context: one_by_one(), iterator=counts, max_concurrency=1_000)
    result = await WorkflowRunner(store=MemoryRunStore()).execute(Workflow("w", [each]))
    assert result.context.get_output("each", "succeeded") == 50
    assert most < 10


@pytest.mark.parametrize("form", [as_list, as_generator, as_stream])
async def test_as_many_items_run_at_once_as_are_allowed(form: Any) -> None:
    at_once, most = 0, 0

    async def counts(context: WorkflowContext, config: dict[str, Any]) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await anyio.wait_all_tasks_blocked()
        at_once -= 1

    each = Step.map("each", items=lambda context: form(12), iterator=counts, max_concurrency=4)
    await WorkflowRunner(store=MemoryRunStore()).execute(Workflow("w", [each]))
    assert most == 4


@pytest.mark.parametrize(
    ("share", "total", "allowed"),
    [
        (0.29, 100, 29),
        (1 / 3, 3, 1),
        (1 / 49, 49, 1),
        (2 / 3, 99, 66),
        (1 - 0.9, 10, 1),
        (1 - 0.7, 10, 3),
        (0.1 + 0.2, 10, 3),
        (0.333, 3, 0),
        (5e-324, 3, 0),
        (0.57, 100, 57),
        (0.58, 50, 29),
        (0.07, 100, 7),
        (0.1, 30, 3),
        (1e-2, 100, 1),
        (0.999, 1000, 999),
    ],
)
@pytest.mark.parametrize("form", [as_list, as_stream])
async def test_a_tolerated_share_is_the_decimal_number_that_was_written(
    share: float, total: int, allowed: int, form: Any
) -> None:
    async def fails(context: WorkflowContext, config: dict[str, Any]) -> None:
        if context.params["item"] < context.params["failing"]:
            raise ValueError("no")

    each = Step.map("each", items=lambda context: form(total), iterator=fails, tolerated_failures=share, collect=False)
    runner = WorkflowRunner(checkpoint_enabled=False)
    within = await runner.execute(Workflow("w", [each]), params={"failing": allowed})
    beyond = await runner.execute(Workflow("w", [each]), params={"failing": allowed + 1})
    assert (within.status, beyond.status) == (RunStatus.COMPLETED, RunStatus.FAILED)


class Stream:
    """An async iterator that is no generator."""

    def __init__(self, count: int, *, fails: bool = False) -> None:
        self.left = count
        self.closed = 0
        self.fails = fails

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> int:
        await anyio.lowlevel.checkpoint()
        if not self.left:
            raise StopAsyncIteration
        self.left -= 1
        return self.left

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.closed += 1
        if self.fails:
            raise OSError("no such handle")


@pytest.mark.parametrize("way", ["ends", "fails", "stops", "is cancelled"])
async def test_an_async_iterator_is_closed(way: str) -> None:
    stream, begun = Stream(5), anyio.Event()

    async def work(context: WorkflowContext, config: dict[str, Any]) -> StepResult | None:
        begun.set()
        if way == "fails":
            raise ValueError("no")
        if way == "is cancelled":
            await anyio.sleep_forever()
        return StepResult.stop("enough") if way == "stops" else None

    each = Step.map("each", items=lambda context: stream, iterator=work, max_concurrency=2)
    runner = WorkflowRunner(store=MemoryRunStore())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: runner.execute(Workflow("w", [each]), run_id="r"))
        if way == "is cancelled":
            await begun.wait()
            await runner.stop("r")
    assert stream.closed == 1


@pytest.mark.parametrize("way", ["fails", "stops"])
async def test_a_generator_is_closed(way: str) -> None:
    closed: list[str] = []

    def numbers() -> Iterator[int]:
        try:
            yield from range(5)
        finally:
            closed.append("closed")

    async def work(context: WorkflowContext, config: dict[str, Any]) -> StepResult:
        if way == "fails":
            raise ValueError("no")
        return StepResult.stop("enough")

    each = Step.map("each", items=lambda context: numbers(), iterator=work, max_concurrency=1)
    await WorkflowRunner(store=MemoryRunStore()).execute(Workflow("w", [each]))
    assert closed == ["closed"]


async def test_an_open_file_is_not_closed(tmp_path: Any) -> None:
    path = tmp_path / "lines"
    path.write_text("a\nb\n")
    with path.open() as lines:
        each = Step.map("each", items=lambda context: lines, iterator=nothing)
        await WorkflowRunner(store=MemoryRunStore()).execute(Workflow("w", [each]))
        assert not lines.closed


async def test_an_error_while_closing_does_not_replace_why_the_map_ended() -> None:
    async def stops(context: WorkflowContext, config: dict[str, Any]) -> StepResult:
        return StepResult.stop("enough")

    each = Step.map("each", items=lambda context: Stream(5, fails=True), iterator=stops)
    result = await WorkflowRunner(store=MemoryRunStore()).execute(Workflow("w", [each]))
    assert (result.status, result.stop_reason) == (RunStatus.STOPPED, "enough")
    each = Step.map("each", items=lambda context: Stream(5, fails=True), iterator=nothing)
    result = await WorkflowRunner(store=MemoryRunStore()).execute(Workflow("w", [each]))
    assert (result.status, result.error) == (RunStatus.FAILED, "OSError: no such handle")


@pytest.mark.parametrize("steps", [1, 2])
async def test_failed_items_leave_no_scopes_behind(steps: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "spine_async")  # pytest keeps the frames of each exception that is logged
    left: list[int] = []

    async def last_fails(context: WorkflowContext, config: dict[str, Any]) -> None:
        if context.step_name == "s1" or steps == 1:
            if context.params["item"] == 299:
                gc.collect()
                left.append(sum(isinstance(each, Scope) for each in gc.get_objects()))
            raise ValueError("no")

    iterator = Workflow(steps=[Step.lambda_(f"s{number}", last_fails) for number in range(steps)])
    each = Step.map("each", items=range(300), iterator=iterator, tolerated_failures=1.0, collect=False)
    gc.collect()
    before = sum(isinstance(each, Scope) for each in gc.get_objects())
    result = await WorkflowRunner(store=MemoryRunStore()).execute(Workflow("w", [each]))
    assert result.context.get_output("each", "failed") == 300
    assert left[0] - before < 30


async def test_events_of_failed_items_are_committed_while_the_map_goes_on() -> None:
    store = MemoryRunStore()
    seen: list[int] = []

    async def fails(context: WorkflowContext, config: dict[str, Any]) -> None:
        seen.append(len(await store.events("r", 0, 10_000)))
        raise ValueError("no")

    each = Step.map("each", items=range(50), iterator=fails, tolerated_failures=1.0, max_concurrency=1)
    await WorkflowRunner(store=store).execute(Workflow("w", [each]), run_id="r")
    assert seen == sorted(set(seen))


class Pages(MemoryRunStore):
    """Records how many rows each page of a map has, and how often other tasks ran until then."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: list[int] = []
        self.turns = 0
        self.turns_at: list[int] = []

    async def visits(self, run_id: str, chosen: VisitFilter = OWN_VISITS) -> list[VisitRow]:
        rows = await super().visits(run_id, chosen)
        if chosen.inside is not None:
            self.pages.append(len(rows))
            self.turns_at.append(self.turns)
        return rows


async def test_a_resume_reads_the_rows_of_a_map_in_pages_and_yields_between_them() -> None:
    store, is_broken = Pages(), True

    async def work(context: WorkflowContext, config: dict[str, Any]) -> None:
        if is_broken and context.params["item"] == 1_999:
            raise ValueError("broken")

    each = Step.map("each", items=range(2_000), iterator=work, max_concurrency=50, collect=False)
    workflow = Workflow("w", [each, Step.map("later", items=[1], iterator=work)])
    await WorkflowRunner(store=store).execute(workflow, run_id="r")
    is_broken = False

    async def beat() -> None:
        while True:
            await anyio.lowlevel.checkpoint()
            store.turns += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(beat)
        result = await WorkflowRunner(store=store).resume("r", workflow=workflow)
        tasks.cancel_scope.cancel()
    assert result.status is RunStatus.COMPLETED
    assert sum(store.pages) == 1_999
    assert max(store.pages) <= 256
    assert store.turns_at == sorted(set(store.turns_at))


@pytest.mark.parametrize("error", [StoreUnavailableError("lost"), SharingError("shared", "create another")])
async def test_a_store_that_fails_while_the_rows_are_read_is_no_failure_of_the_step(error: SpineError) -> None:
    memory, is_broken = MemoryRunStore(), True

    async def work(context: WorkflowContext, config: dict[str, Any]) -> None:
        if is_broken and context.params["item"] == 2:
            raise ValueError("broken")

    each = Step.map("each", items=range(3), iterator=work, max_concurrency=1, on_error="continue")
    workflow = Workflow("w", [Step.lambda_("before", nothing), each])
    first = Workflow("w", [workflow.steps[0], Step.map("each", items=range(3), iterator=work, max_concurrency=1)])
    await WorkflowRunner(store=memory).execute(first, run_id="r")
    is_broken = False
    store = FaultInjectingStore(memory)
    store.fail("visits", error=error)
    with pytest.raises(type(error)):
        await WorkflowRunner(store=store).resume("r", workflow=workflow)
    result = await WorkflowRunner(store=memory).resume("r", workflow=workflow)
    assert result.context.get_output("each", "succeeded") == 3


def test_tables_over_indexes() -> None:
    indexes, digests = IndexSet(), DigestTable()
    assert (indexes.last, len(indexes), 0 in indexes, digests[7]) == (-1, 0, False, 0)
    for index in (3, 0, 4095, 4096, 10**15, 3):
        indexes.add(index)
        digests[index] = -index - 1
    assert (indexes.last, len(indexes)) == (10**15, 5)
    assert [index for index in (0, 1, 3, 4, 4094, 4095, 4096, 4097, 10**15, 10**15 + 1) if index in indexes] == [
        0,
        3,
        4095,
        4096,
        10**15,
    ]
    assert [digests[index] for index in (0, 1, 4096, 10**15)] == [-1, 0, -4097, -(10**15) - 1]
    digests[0] = digests[99_999] = 0
    assert (digests[0], digests[99_999]) == (0, 0)
