"""Runs a workflow for each item, in a bounded pool of workers that pull from one feed.

A worker takes an item only when it is free, so that there are never more tasks than `max_concurrency` nor items read
ahead of the work. Each item is a scope of its own in the run's ledger: what it finished is committed item by item, and
a retry or a resume of the map runs only the rest.

While an item that has ended is being committed its worker goes on to the next one, and no further: it begins a third
only when the first is stored. So commits take none of the workers' time, and a crash repeats at most two items for each
worker. A lone worker waits at once, so that each item of a map that goes one by one is stored before the next begins.
"""

from __future__ import annotations

import anyio
import anyio.lowlevel

from spine_async._engine.commit.journal import Commit
from spine_async._engine.handlers.feed import Feed, open_feed
from spine_async._engine.handlers.map_report import ItemLoss, MapReport, base_context, check_same_item
from spine_async._engine.run.loop import drive
from spine_async._engine.run.transition import replay
from spine_async._engine.runtime.runtime import Engine
from spine_async._engine.state.cursor import Cursor
from spine_async._engine.state.interrupts import Draining, RunInterrupt, StopRequested
from spine_async._engine.state.map_progress import MapMemory
from spine_async._engine.state.outcome import ScopeEnd
from spine_async._engine.state.scope import Scope, Visit, visit_of
from spine_async._engine.tasks import CANCELLATION, FOREIGN, is_asked_for, is_foreign
from spine_async._model.context import WorkflowContext
from spine_async._model.document import NULL, Document, encode, quote
from spine_async._model.record import EventRow
from spine_async._model.status import EventType, RunStatus
from spine_async._model.step import MapStep
from spine_async._model.step_result import StepResult
from spine_async.errors import SerializationError, StepError


async def run_map(engine: Engine, step: MapStep, context: WorkflowContext) -> StepResult:
    """Run the step's iterator once for each item that is not finished yet.

    Returns:
        Output `{"results": [...], "succeeded": n, "failed": n, "errors": [{"index", "error", "category"}]}`.
    """
    visit = visit_of(context)
    visit.run.ledger.announce_visit(visit.open)
    memory = await _memory(engine, visit, step)
    pool = _Pool(engine, step, context, memory=memory, feed=await open_feed(step.source, context))
    await pool.run()
    return pool.result()


async def _memory(engine: Engine, visit: Visit, step: MapStep) -> MapMemory:
    scope, path = visit.scope, visit.path
    if path not in scope.maps:
        rows = scope.stored_below(path) if not scope.is_run else []
        if scope.is_run and visit.run.is_resumed:
            rows = await engine.store.visits(visit.run.run_id, below=path)
        scope.maps[path] = MapMemory(path, collects=step.collect, rows=rows)
    return scope.maps[path]


class _Pool:
    """The workers of one attempt of a map."""

    def __init__(
        self, engine: Engine, step: MapStep, context: WorkflowContext, *, memory: MapMemory, feed: Feed
    ) -> None:
        self._engine = engine
        self._visit = visit_of(context)
        self._step = step
        self._context = context
        self._memory = memory
        self._feed = feed
        self._report = MapReport(step, memory, feed)
        self._item_param = quote(step.item_param)
        self._item_context = base_context(context, step.workflow)
        self._tasks = anyio.create_task_group()
        self._is_alone = True
        self._newest: Commit | None = None
        self._interrupt: BaseException | None = None

    async def run(self) -> None:
        """Work through the feed; returns early when more items failed than may."""
        try:
            async with self._tasks as tasks:
                count = self._workers_needed()
                self._is_alone = count == 1
                for number in range(count):
                    tasks.start_soon(self._work, name=f"{self._visit.path} worker {number}")
        finally:
            self._visit.open.cancelled_mono = None  # the workers are gone; a retry of the map begins anew
            if self._newest is not None:
                await self._newest.attend()  # the run goes on, or ends, when nothing of it is under way any more
            await self._feed.close()
        if self._interrupt is not None:
            raise self._interrupt

    def result(self) -> StepResult:
        return self._report.result()

    def _workers_needed(self) -> int:
        limit, total = self._step.max_concurrency, self._feed.total
        return limit if total is None else min(limit, total)

    async def _work(self) -> None:
        try:
            await self._take_items()
        except Draining as exc:  # the other workers come to the same by themselves, each when its step has ended
            self._interrupt = self._interrupt or exc
        except CANCELLATION:
            if is_asked_for():
                raise
            # Nobody cancelled the map: the group would take it for its own end, and the map for complete.
            self._break_off(StepError(FOREIGN) if is_foreign() else Draining())
            raise
        except (RunInterrupt, Exception) as exc:  # noqa: BLE001 - raised again by `run`
            self._break_off(exc)

    async def _take_items(self) -> None:
        before: Commit | None = None
        while (entry := await self._next()) is not None:
            commit = await self._run_item(*entry)
            if self._report.has_failed:
                self._cancel_items()
                return
            await _ended(before)
            if commit is not None and self._is_alone:
                await commit.wait()
            before = commit
        await _ended(before)

    async def _next(self) -> tuple[int, object] | None:
        if self._engine.is_draining:
            raise Draining
        if self._tasks.cancel_scope.cancel_called:
            await anyio.lowlevel.checkpoint_if_cancelled()  # no item begins after the one that ended the map
        return await self._feed.next()

    def _break_off(self, error: BaseException) -> None:
        # Kept and raised after the group has ended, so that it comes out as itself and not inside a group.
        self._interrupt = self._interrupt or error
        self._cancel_items()

    def _cancel_items(self) -> None:
        if self._visit.open.cancelled_mono is None:
            self._visit.open.cancelled_mono = self._engine.clock.monotonic()
        self._tasks.cancel_scope.cancel()

    async def _run_item(self, index: int, item: object) -> Commit | None:
        """Bring an item to its end; the commit that stores it, where there is something to store."""
        try:
            encoded = encode(item)
        except SerializationError as exc:
            raise StepError(f"items[{index}] has no strict JSON form: {exc}") from None
        if index in self._memory.finished:
            return None
        scope = self._item_scope(index, encoded)
        if scope.cursor.step is not None:
            return self._conclude(index, scope, await drive(self._engine, scope))
        self._memory.finish(index, (scope.last_output or NULL).text)
        return None

    def _item_scope(self, index: int, item: Document) -> Scope:
        begun = self._memory.begun.get(index)
        if begun is not None:
            return begun
        step, workflow, run = self._step, self._step.workflow, self._visit.run
        context = self._item_context.for_item({step.item_param: item})
        path = self._memory.item_path(index)
        scope = Scope(run, workflow, path, Cursor(workflow), context, item_index=index, parent=self._visit)
        scope.opening = f"{{{self._item_param}:{item.text}}}"
        # Also where the item has no rows of its own: it may begin with a map, whose items have some.
        scope.outer_memory = self._memory
        rows = self._memory.stored_rows(index)
        if rows:
            check_same_item(step, index, item, rows)
            replay(scope, rows)
        self._memory.begun[index] = scope
        return scope

    def _conclude(self, index: int, scope: Scope, end: ScopeEnd) -> Commit | None:
        if end.status is RunStatus.COMPLETED:
            self._memory.finish(index, (scope.last_output or NULL).text)
            return self._handed_in()
        if end.status is RunStatus.STOPPED:
            raise StopRequested(end.reason or "")
        # What it has to tell goes with the next commit; nothing was finished that could be lost.
        self._fail(ItemLoss(index, end.error or "", end.category or "INTERNAL"), scope.path)
        return None

    def _handed_in(self) -> Commit:
        commit = self._engine.journal.hand_in(self._visit.run.ledger)
        if commit is not self._newest:  # the workers share it
            self._newest = commit
            commit.when_broken(self._break_off)
        return commit

    def _fail(self, loss: ItemLoss, path: str) -> None:
        self._report.lose(loss)
        event = EventRow(
            EventType.MAP_ITEM_FAILED, self._step.name, self._engine.clock.now(), encode(loss.told).text, path
        )
        self._visit.run.ledger.note(event)


async def _ended(commit: Commit | None) -> None:
    """Wait for the commit of the item before."""
    if commit is None or commit.is_over:
        await anyio.lowlevel.checkpoint_if_cancelled()  # or a worker that need never wait could not be cancelled
    if commit is not None:
        await commit.wait()
