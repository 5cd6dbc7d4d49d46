"""Workers of a map and the commits of their items: which worker waits for which commit, and failed commits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import anyio
import anyio.lowlevel
import pytest

from spine_async import (
    ErrorPolicy,
    RunStatus,
    Step,
    StepResult,
    StoreUnavailableError,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
    WorkflowRunnerConfig,
)
from spine_async._engine.state.open_visit import OpenVisit
from spine_async._engine.state.pending_writes import PendingWrites
from spine_async._model.run_change import RunChange
from spine_async._model.run_claim import Claim
from spine_async._model.visit_filter import VisitFilter
from spine_async.ports import CommitOutcome
from spine_async.storage import MemoryRunStore
from spine_async.testing.conformance.rows import visit

pytestmark = pytest.mark.anyio


class Watched(MemoryRunStore):
    """Commits of items wait for `release`, and the first one fails if `is_broken`. Counts the stored items."""

    def __init__(self) -> None:
        super().__init__()
        self.release = anyio.Event()
        self.is_broken = False
        self.stored = 0

    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        ended = sum(visit.ends_item for change in changes for visit in change.visits)
        if ended:
            await self.release.wait()
        if ended and self.is_broken:
            self.is_broken = False
            raise StoreUnavailableError("the store is away")
        outcomes = await super().commit(changes)
        self.stored += ended
        return outcomes


class Items:
    """Items; each records that it began, and how many items were stored then."""

    def __init__(self, store: Watched) -> None:
        self.store = store
        self.begun: list[int] = []
        self.most_at_once = 0
        self._at_once = 0
        self.most_unstored = 0

    async def run(self, context: WorkflowContext, config: dict[str, Any]) -> None:
        self.begun.append(int(str(context.get_param("item"))))
        self.most_unstored = max(self.most_unstored, len(self.begun) - self.store.stored)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        await anyio.lowlevel.checkpoint()
        self._at_once -= 1

    def workflow(self, count: int, workers: int) -> Workflow:
        return Workflow("w", [Step.map("each", items=range(count), iterator=self.run, max_concurrency=workers)])


async def execute(runner: WorkflowRunner, workflow: Workflow, failures: list[Exception]) -> None:
    """Execute the workflow as the run `r`; the store may fail."""
    try:
        await runner.execute(workflow, run_id="r")
    except StoreUnavailableError as exc:
        failures.append(exc)


async def settled() -> None:
    """Wait until all tasks that can continue have done so."""
    await anyio.wait_all_tasks_blocked()


async def test_workers_go_on_by_one_item_while_the_one_before_is_being_committed() -> None:
    store = Watched()
    items = Items(store)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(WorkflowRunner(store=store).execute, items.workflow(30, 3))
        await settled()
        assert (len(items.begun), store.stored) == (6, 0)
        store.release.set()
    assert (sorted(items.begun), store.stored) == ([*range(30)], 30)
    assert items.most_at_once <= 3
    assert items.most_unstored <= 6


async def test_a_lone_worker_stores_each_item_before_it_begins_the_next() -> None:
    store = Watched()
    items = Items(store)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(WorkflowRunner(store=store).execute, items.workflow(5, 1))
        await settled()
        assert items.begun == [0]
        store.release.set()
    assert (items.begun, items.most_unstored) == ([*range(5)], 1)


async def test_a_map_ends_when_all_of_its_items_are_stored() -> None:
    store = Watched()
    items = Items(store)
    seen: list[int] = []

    async def after(context: WorkflowContext, config: dict[str, Any]) -> None:
        seen.append(store.stored)

    # Without a checkpoint of its own the map waits for its items only.
    each = Step.map("each", items=range(4), iterator=items.run, max_concurrency=4, checkpoint=False)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(WorkflowRunner(store=store).execute, Workflow("w", [each, Step.lambda_("after", after)]))
        await settled()
        assert (len(items.begun), seen) == (4, [])
        store.release.set()
    assert seen == [4]


async def test_a_commit_that_fails_ends_the_map_at_once_though_workers_have_gone_on() -> None:
    store = Watched()
    store.is_broken = True
    cancelled: list[int] = []

    async def first_short_then_endless(context: WorkflowContext, config: dict[str, Any]) -> None:
        item = int(str(context.get_param("item")))
        if item < 2:
            return
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            cancelled.append(item)
            raise

    each = Step.map("each", items=range(10), iterator=first_short_then_endless, max_concurrency=2)
    runner = WorkflowRunner(store=store)
    failures: list[Exception] = []

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(execute, runner, Workflow("w", [each]), failures)
        await settled()
        assert (failures, cancelled) == ([], [])
        store.release.set()
    assert (len(failures), cancelled) == (1, [2])
    assert (await runner.get_run("r")).status == RunStatus.PENDING


async def test_a_failed_map_waits_for_its_enqueued_commits_and_ends_with_its_error() -> None:
    """The map fails and cancels a worker whose previous item is being committed; this commit fails afterwards."""
    store = Watched()
    store.is_broken = True
    fail = anyio.Event()

    async def work(context: WorkflowContext, config: dict[str, Any]) -> None:
        item = context.get_param("item")
        if item == 1:
            await fail.wait()
            raise ValueError("no")
        if item == 2:
            await anyio.sleep_forever()

    each = Step.map("each", items=range(3), iterator=work, max_concurrency=2, on_error=ErrorPolicy.CONTINUE)
    runner = WorkflowRunner(store=store)
    failures: list[Exception] = []

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(execute, runner, Workflow("w", [each]), failures)
        await settled()
        fail.set()
        await settled()
        assert failures == []
        store.release.set()
    assert len(failures) == 1
    assert await store.visits("r") == await store.visits("r", VisitFilter(inside="each")) == []


async def test_a_failed_commit_is_raised_even_if_the_run_is_cancelled_meanwhile() -> None:
    """A stop during the commit of the run's end must not return a result if this end is not stored."""

    class Breaking(MemoryRunStore):
        reached = anyio.Event()
        release = anyio.Event()

        async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
            self.reached.set()
            await self.release.wait()
            raise StoreUnavailableError("the store is away")

    async def nothing(context: WorkflowContext, config: dict[str, Any]) -> None:
        return None

    store = Breaking()
    runner = WorkflowRunner(store=store)
    failures: list[Exception] = []

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(execute, runner, Workflow("w", [Step.lambda_("only", nothing)]), failures)
        await store.reached.wait()
        await runner.stop("r")
        store.release.set()
    assert len(failures) == 1


def test_refused_writes_precede_those_of_the_next_commit() -> None:
    """Writes of a cancelled run whose commit failed are committed with the run's end."""
    claim = Claim("r", 1, 1, 2)
    pending = PendingWrites(claim, records_events=True)
    visits = [OpenVisit(name, name, now(), 0.0) for name in ("a", "b")]
    for opened in visits:
        pending.begin_visit(opened)
        row = visit(opened.path, 0)
        pending.add_visit(opened, row, ())
        refused = pending.drain(now(), "mark")
        if opened.path == "a":
            pending.restore()
    assert [(row.path, row.started_seq, row.seq) for row in refused.visits] == [("a", 2, 3), ("b", 4, 5)]
    pending.committed(refused)
    pending.restore()
    assert (pending.drain(now(), "mark").visits, claim.next_seq) == ((), 6)


def now() -> datetime:
    return datetime.now(UTC)


Interruption = Literal["stop", "task", "scope", "workflow_timeout", "map timeout"]


@pytest.mark.parametrize("way", ["stop", "task", "scope", "workflow_timeout", "map timeout"])
async def test_a_cancelled_map_begins_no_further_item(way: Interruption) -> None:
    """Also if its items ignore their cancellation, and nothing else makes a worker wait."""
    begun: list[int] = []
    cancelled = anyio.Event()

    async def outlives(context: WorkflowContext, config: dict[str, Any]) -> None:
        begun.append(int(str(context.get_param("item"))))
        with anyio.CancelScope(shield=True):
            await cancelled.wait()

    each = Step.map(
        "each", items=range(20), iterator=outlives, max_concurrency=4, timeout=0.5 if way == "map timeout" else None
    )
    config = WorkflowRunnerConfig(workflow_timeout=0.5 if way == "workflow_timeout" else None)
    runner = WorkflowRunner(store=MemoryRunStore(), config=config)
    scope = anyio.CancelScope()

    async def execute() -> None:
        with scope:
            await runner.execute(Workflow("w", [each]), run_id="r")

    work = asyncio.create_task(execute())
    while len(begun) < 4:
        await anyio.lowlevel.checkpoint()
    if way == "stop":
        await runner.stop("r")
    elif way == "task":
        work.cancel()
    elif way == "scope":
        scope.cancel()
    else:
        await anyio.sleep(0.6)  # the test needs this much time to pass
    for _ in range(5):
        await anyio.lowlevel.checkpoint()
    cancelled.set()
    await asyncio.wait([work])
    assert begun == [0, 1, 2, 3]


@pytest.mark.parametrize("way", ["stops", "generator"])
async def test_items_that_do_not_end_do_not_delay_a_map_that_was_ended(way: str) -> None:
    over = anyio.Event()

    async def work(context: WorkflowContext, config: dict[str, Any]) -> StepResult | None:
        if context.get_param("item") == 1 and way == "stops":
            return StepResult.stop("enough")
        with anyio.CancelScope(shield=True):
            await over.wait()
        return None

    async def breaks() -> AsyncIterator[int]:
        yield 0
        raise ValueError("no more")

    items: Any = (lambda context: breaks()) if way == "generator" else [0, 1]
    each = Step.map("each", items=items, iterator=work, max_concurrency=2)
    runner = WorkflowRunner(store=MemoryRunStore(), config=WorkflowRunnerConfig(cancel_grace=0.2))
    result = await runner.execute(Workflow("w", [each]))
    over.set()
    assert "did not end within 0.2 s" in str(result.error)


async def test_a_stop_from_an_item_is_stored_with_the_items_that_have_ended() -> None:
    store = MemoryRunStore()
    runner = WorkflowRunner(store=store)
    ran: list[int] = []

    async def work(context: WorkflowContext, config: dict[str, Any]) -> Any:
        item = int(str(context.get_param("item")))
        ran.append(item)
        return StepResult.stop("enough") if item == 5 else {"item": item}

    workflow = Workflow("w", [Step.map("each", items=range(20), iterator=work, max_concurrency=2)])
    first = await runner.execute(workflow, run_id="r")
    assert (first.status, first.stop_reason) == (RunStatus.STOPPED, "enough")
    before = list(ran)
    second = await runner.resume("r")
    assert second.status == RunStatus.COMPLETED
    stored = {row.item_index for row in await store.visits("r", VisitFilter(inside="each"))}
    assert stored == set(range(20))
    assert [item for item in ran[len(before) :] if item in before] == []


@pytest.mark.parametrize("turns", range(6))
async def test_a_run_whose_steps_and_store_never_wait_can_be_cancelled(turns: int) -> None:
    """The run and the writer resume each other in alternate turns, so that neither is ever found waiting."""
    calls = 0
    is_going = asyncio.Event()

    async def never_waits(context: WorkflowContext, config: dict[str, Any]) -> None:
        nonlocal calls
        calls += 1
        if calls == 10:
            is_going.set()

    workflow = Workflow("w", [Step.lambda_("a", never_waits), Step.choice("b", lambda context: calls < 3_000, "a")])
    runner = WorkflowRunner(store=MemoryRunStore())
    work = asyncio.create_task(runner.execute(workflow, run_id="r"))
    await is_going.wait()
    for _ in range(turns):
        await asyncio.sleep(0)
    await runner.stop("r", "enough")
    assert (await work).stop_reason == "enough"
    assert calls < 100
