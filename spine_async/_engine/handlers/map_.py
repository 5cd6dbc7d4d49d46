"""Executes a map: runs a workflow for each item, in a bounded pool of workers that share one feed of items.

A worker takes an item only when it is free, so there are never more tasks than `max_concurrency`, and no items are read
ahead. If the number of items is not known, a worker is added only when an item arrives and no worker waits for one.

Each item is a scope of its own that adds to the run's pending writes. Finished items are committed one by one; a retry
or a resume of the map compares its items with the stored ones, and runs only the remaining ones.

While a finished item is being committed, its worker executes the next item. It begins no third item before the first
one is stored. So commits do not delay the workers, and a crash repeats at most two items per worker. A single worker
waits for each commit, so that each item of a sequential map is stored before the next one begins.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import anyio
import anyio.lowlevel

from spine_async._engine.commit.journal import Commit
from spine_async._engine.handlers.concurrency import concurrency_of
from spine_async._engine.handlers.feed import Feed, open_feed
from spine_async._engine.handlers.item_queue import ItemQueue
from spine_async._engine.handlers.map_report import ItemFailure, MapReport, base_context
from spine_async._engine.handlers.stored_items import map_progress, may_repeat
from spine_async._engine.run.loop import run_steps
from spine_async._engine.run.transition import replay
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.cursor import Cursor
from spine_async._engine.state.interrupts import Draining, RunAborted, RunInterrupt, StopRequested
from spine_async._engine.state.map_progress import MapProgress, StoredItem
from spine_async._engine.state.outcome import Outcome
from spine_async._engine.state.params import item_params
from spine_async._engine.state.progress_report import ProgressReport
from spine_async._engine.state.scope import Position, Scope, visit_of
from spine_async._engine.tasks import CANCELLATION, STRAY_CANCELLATION, is_scope_cancelled, is_stray_cancellation
from spine_async._model.context import WorkflowContext
from spine_async._model.context_access import for_item, params_of
from spine_async._model.document import NULL, Document, encode, join_object, split_object
from spine_async._model.failure import ErrorCategory, storable_text
from spine_async._model.record import EventRow, VisitRow
from spine_async._model.status import EventType, RunStatus
from spine_async._model.step import MapStep
from spine_async._model.step_result import StepResult
from spine_async.errors import InvalidParamsError, StepError

_log = logging.getLogger("spine_async")


async def run_map(runtime: Runtime, step: MapStep, context: WorkflowContext) -> StepResult:
    """Run the step's iterator for each item that is not finished yet.

    Returns:
        Output `{"results": [...], "succeeded": n, "failed": n, "errors": [{"index", "error", "category"}]}`.
    """
    visit, limit = visit_of(context), concurrency_of(step, context)
    try:
        progress = await map_progress(runtime, visit, step)
    except RunAborted as exc:
        await visit.interrupt(exc)
    visit.is_announced = visit.is_announced or (visit.run.is_woken and progress.last_index >= 0)
    visit.run.pending.announce_visit(visit)
    pool = _Pool(runtime, step, context, progress=progress, feed=await open_feed(step.source, context), limit=limit)
    await pool.run()
    return pool.result()


class _Pool:
    """The workers of one attempt of a map."""

    def __init__(
        self,
        runtime: Runtime,
        step: MapStep,
        context: WorkflowContext,
        *,
        progress: MapProgress,
        feed: Feed,
        limit: int,
    ) -> None:
        self._runtime = runtime
        self._visit = visit_of(context)
        self._step = step
        self._workflow = step.workflow
        self._context = context
        self._progress = progress
        self._feed = feed
        self._items = ItemQueue(runtime, progress, feed)
        self._report = MapReport(step, progress, feed)
        self._visit.tolerates_failure = self._report.tolerates_another
        self._visit.report = ProgressReport(read=self._report.progress, stored=self._report.progress())
        self._item_context = base_context(context, self._workflow, runtime.models(self._workflow))
        self._tasks = anyio.create_task_group()
        self._limit = limit
        self._is_single = limit == 1 or feed.total == 1
        self._workers = 0
        self._waiting_workers = 0
        self._counted_workers = 0
        self._newest: Commit | None = None
        self._interrupt: BaseException | None = None

    async def run(self) -> None:
        """Run all items; returns early if more items failed than the step tolerates."""
        try:
            await self._items.compare(self._last_known_index())
            await self._run_workers()
        except RunInterrupt as exc:
            self._interrupt = exc
        finally:
            # All workers have ended; a retry of the map starts new ones.
            self._visit.cancelled_mono = self._visit.map_ending = None
            if self._newest is not None:
                await self._newest.wait_shielded()  # nothing of the map may be in flight when the run continues or ends
            await self._close_feed()
        if isinstance(self._interrupt, Exception):
            raise self._interrupt
        if self._interrupt is not None:
            await self._visit.interrupt(self._interrupt)

    async def _run_workers(self) -> None:
        idleness = self._visit.run.idleness
        idleness.begin_task()  # until the workers count: the run is not idle meanwhile
        try:
            with idleness.waiting_for_tasks():
                async with self._tasks:
                    for _ in range(self._workers_needed()):
                        self._start_worker()
                    idleness.end_task()
        finally:
            for _ in range(self._counted_workers):  # those that were cancelled before they began
                idleness.end_task()
            self._counted_workers = 0

    def result(self) -> StepResult:
        """The result of the map."""
        result = self._report.result()
        self._visit.item_error = result.exception
        return result

    async def _close_feed(self) -> None:
        error = await self._feed.close()
        if error is not None and self._interrupt is not None:
            _log.warning(
                "run %s: closing the items of map %s raised %s",
                self._visit.run.run_id,
                self._visit.path,
                type(error).__name__,
                exc_info=error,
            )
        self._interrupt = self._interrupt or error

    def _last_known_index(self) -> int:
        """The largest index of an item with stored or pending rows; forgets items without any."""
        open_items, last = self._visit.scope.open_items, self._progress.last_index
        for scope in list(open_items.values()):
            index = scope.item_index or 0
            if scope.has_stored:
                last = max(last, index)
            else:
                del open_items[scope.path]
                self._progress.drop_digest(index)
        return last

    def _workers_needed(self) -> int:
        limit, total = self._limit, self._feed.total
        return 1 if total is None else min(limit, total)

    def _start_worker(self) -> None:
        self._workers += 1
        self._waiting_workers += 1
        self._counted_workers += 1
        self._visit.run.idleness.begin_task()
        self._tasks.start_soon(self._work, name=f"{self._visit.path} worker {self._workers - 1}")

    def _add_worker(self) -> None:
        """Start a worker that waits for the next item, if none waits and more are allowed."""
        if not self._waiting_workers and self._workers < self._limit:
            self._start_worker()

    async def _work(self) -> None:
        try:
            await self._take_items()
        except Draining as exc:  # each of the other workers raises it too when its step has ended
            self._interrupt = self._interrupt or exc
        except CANCELLATION:
            if is_scope_cancelled():
                raise
            # Nobody cancelled the map, but the task group would treat this as its own cancellation and end normally.
            self._abort(StepError(STRAY_CANCELLATION) if is_stray_cancellation() else Draining())
            raise
        except BaseException as exc:  # noqa: BLE001 - raised again by `run`
            self._abort(exc)
        finally:
            self._counted_workers -= 1
            self._visit.run.idleness.end_task()

    async def _take_items(self) -> None:
        previous: Commit | None = None
        while (entry := await self._next()) is not None:
            self._waiting_workers -= 1
            if self._feed.total is None:
                self._add_worker()
            commit = await self._run_item(*entry)
            if self._report.has_failed:
                self._cancel_items(self._report.result())
                return
            await _wait_for(previous)
            if commit is not None and self._is_single:
                await commit.wait()
            previous = commit
            self._waiting_workers += 1
        await _wait_for(previous)

    async def _next(self) -> tuple[int, Document] | None:
        if self._runtime.is_draining:
            raise Draining
        if self._tasks.cancel_scope.cancel_called:
            await anyio.lowlevel.checkpoint_if_cancelled()  # no item begins after one that ended the map
        return await self._items.next()

    def _abort(self, error: BaseException) -> None:
        # Raised after the task group has ended, so that it is not wrapped in an exception group.
        self._interrupt = self._interrupt or error
        self._cancel_items(error)

    def _cancel_items(self, ending: StepResult | BaseException) -> None:
        if self._visit.cancelled_mono is None:
            self._visit.cancelled_mono = self._runtime.clock.monotonic()
        if self._visit.map_ending is None or isinstance(ending, RunInterrupt):
            self._visit.map_ending = ending
        self._tasks.cancel_scope.cancel()

    async def _run_item(self, index: int, item: Document) -> Commit | None:
        """Run one item to its end; returns the commit that stores it, if there is something to store."""
        if index in self._progress.finished:
            return None
        try:
            scope = self._item_scope(index, item)
        except InvalidParamsError as exc:
            failure = ItemFailure(index, storable_text(f"item {index}: {exc}"), ErrorCategory.DATA_QUALITY)
            self._record_failure(failure, self._progress.item_path(index), exc)
            return None if self._report.has_failed else self._enqueue()
        if scope.cursor.step is not None:
            return self._finish_item(index, scope, await run_steps(self._runtime, scope))
        self._finish(index, scope)
        return None

    def _item_scope(self, index: int, item: Document) -> Scope:
        path = self._progress.item_path(index)
        open_items = self._visit.scope.open_items
        scope = open_items.get(path)
        if scope is None:
            stored = self._progress.stored.get(index)
            scope = self._new_scope(path, index, item) if stored is None else self._resumed(path, index, item, stored)
            open_items[path] = scope
        return scope

    def _new_scope(self, path: str, index: int, item: Document) -> Scope:
        """The scope of an item of which nothing is stored."""
        own = self._own_params(item, ())
        self._progress.keep_digest(index, item.text)
        waits: dict[str, str | None] = {}
        return Scope(  # positional: keywords take about 1 % of the time of an item
            self._visit.run,
            self._workflow,
            path,
            Cursor(self._workflow),
            for_item(self._item_context, own),
            waits,
            None,
            index,
            self._stored_params(item, own),
            self._visit,
        )

    def _resumed(self, path: str, index: int, item: Document, stored: StoredItem) -> Scope:
        """The scope of an item that has stored rows."""
        own = self._own_params(item, stored.rows)
        del self._progress.stored[index]  # not before the params are valid: another attempt continues after the rows
        position = Position(Cursor(self._workflow), for_item(self._item_context, own))
        replay(position, self._visit.run.run_id, stored.rows)
        return Scope(
            self._visit.run,
            self._workflow,
            path,
            position.cursor,
            position.context,
            position.waits,
            position.last_output,
            item_index=index,
            retries=position.retries,
            reported_path=position.reported_path,
            has_calls=position.has_calls,
            item_params=None if stored.has_params else self._stored_params(item, own),
            parent=self._visit,
            maps=stored.maps,
        )

    def _own_params(self, item: Document, rows: Iterable[VisitRow]) -> dict[str, Document]:
        """The item under its name, and the params that the iterator's model adds; a resume reads them from the rows."""
        workflow = self._workflow
        if workflow.params_model is None:
            return {self._step.item_param: item}
        stored = split_object(next((row.item_params for row in rows if row.item_params is not None), "{}"))
        stored.pop(self._step.item_param, None)
        named = self._visit.scope.validated_fields()
        own = {self._step.item_param: item}
        return item_params(workflow, params_of(self._item_context), stored, own, named=named)

    def _stored_params(self, item: Document, own: dict[str, Document]) -> str:
        """JSON object text of the params that the item's first row stores: the item, then those that the model adds."""
        name = self._step.item_param
        if self._workflow.params_model is None:
            return self._progress.item_params(item.text)
        return join_object({name: item, **{key: each for key, each in own.items() if key != name}}).text

    def _finish_item(self, index: int, scope: Scope, outcome: Outcome) -> Commit | None:
        if outcome.status is RunStatus.COMPLETED:
            self._finish(index, scope)
            return self._enqueue()
        if outcome.status is RunStatus.STOPPED:
            raise StopRequested(outcome.stop_reason or "")
        failure = ItemFailure(index, outcome.error or "", outcome.error_category or "INTERNAL")
        self._fail(failure, scope, outcome.exception)
        # If the map fails because of this item, the commit of the map's failure writes the item's events.
        return None if self._report.has_failed else self._enqueue()

    def _finish(self, index: int, scope: Scope) -> None:
        self._visit.scope.open_items.pop(scope.path, None)
        self._progress.finish(index, (scope.last_output or NULL).text)

    def _enqueue(self) -> Commit:
        commit = self._runtime.journal.enqueue(self._visit.run.pending)
        if commit is not self._newest:  # all workers share it
            self._newest = commit
            commit.add_error_callback(self._abort)
        return commit

    def _record_failure(self, failure: ItemFailure, path: str, exception: BaseException | None) -> None:
        self._report.add_failure(failure, exception)
        metadata = encode(failure.as_dict()).text
        now = self._visit.run.clock.now()
        event = EventRow(EventType.MAP_ITEM_FAILED, self._step.name, now, metadata, path)
        self._visit.run.pending.add_events(event)

    def _fail(self, failure: ItemFailure, scope: Scope, exception: BaseException | None) -> None:
        self._record_failure(failure, scope.path, exception)
        if not (scope.has_stored and may_repeat(self._runtime, self._visit)):
            del self._visit.scope.open_items[scope.path]  # no attempt will continue it
            if not scope.has_stored:
                self._progress.drop_digest(failure.index)


async def _wait_for(commit: Commit | None) -> None:
    """Wait for the commit of the previous item."""
    if commit is None or commit.is_set:
        await anyio.lowlevel.checkpoint_if_cancelled()  # a worker that never suspends could not be cancelled otherwise
    if commit is not None:
        await commit.wait()
