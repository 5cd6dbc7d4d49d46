"""Executes a map: runs a workflow for each item, in a bounded pool of workers that share one feed of items.

A worker takes an item only when it is free, so there are never more tasks than `max_concurrency`, and no items are read
ahead. Each item is a scope of its own that adds to the run's pending writes. Finished items are committed one by one; a
retry or a resume of the map runs only the remaining ones.

While a finished item is being committed, its worker executes the next item, but begins no third one before the first is
stored. So commits do not delay the workers, and a crash repeats at most two items per worker. If there is only one
worker, it waits for each commit, so that each item of a sequential map is stored before the next one begins.
"""

from __future__ import annotations

import anyio
import anyio.lowlevel

from spine_async._engine.commit.journal import Commit
from spine_async._engine.handlers.feed import Feed, open_feed
from spine_async._engine.handlers.map_report import ItemFailure, MapReport, base_context, check_same_item
from spine_async._engine.run.loop import run_steps
from spine_async._engine.run.transition import replay
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.cursor import Cursor
from spine_async._engine.state.interrupts import Draining, RunInterrupt, StopRequested
from spine_async._engine.state.map_progress import MapProgress
from spine_async._engine.state.outcome import Outcome
from spine_async._engine.state.params import validated_item_params
from spine_async._engine.state.scope import Position, Scope, Visit, visit_of
from spine_async._engine.tasks import CANCELLATION, STRAY_CANCELLATION, is_scope_cancelled, is_stray_cancellation
from spine_async._model.context import WorkflowContext
from spine_async._model.context_access import for_item, params_of
from spine_async._model.document import NULL, Document, encode, join_object, split_object
from spine_async._model.failure import ErrorCategory, storable_text
from spine_async._model.record import EventRow, VisitRow
from spine_async._model.status import EventType, RunStatus
from spine_async._model.step import MapStep
from spine_async._model.step_result import StepResult
from spine_async.errors import InvalidParamsError, SerializationError, StepError


async def run_map(runtime: Runtime, step: MapStep, context: WorkflowContext) -> StepResult:
    """Run the step's iterator for each item that is not finished yet.

    Returns:
        Output `{"results": [...], "succeeded": n, "failed": n, "errors": [{"index", "error", "category"}]}`.
    """
    visit = visit_of(context)
    visit.run.pending.announce_visit(visit)
    progress = await _progress(runtime, visit, step)
    pool = _Pool(runtime, step, context, progress=progress, feed=await open_feed(step.source, context))
    await pool.run()
    return pool.result()


async def _progress(runtime: Runtime, visit: Visit, step: MapStep) -> MapProgress:
    scope, path = visit.scope, visit.path
    if path not in scope.maps:
        rows = scope.stored_below(path) if not scope.is_run else []
        if scope.is_run and visit.run.is_resumed:
            rows = await runtime.store.visits(visit.run.run_id, below=path)
        scope.maps[path] = MapProgress(path, collects=step.collect, rows=rows)
    return scope.maps[path]


class _Pool:
    """The workers of one attempt of a map."""

    def __init__(
        self, runtime: Runtime, step: MapStep, context: WorkflowContext, *, progress: MapProgress, feed: Feed
    ) -> None:
        self._runtime = runtime
        self._visit = visit_of(context)
        self._step = step
        self._context = context
        self._progress = progress
        self._feed = feed
        self._report = MapReport(step, progress, feed)
        self._visit.tolerates_failure = self._report.tolerates_another
        self._item_context = base_context(context, step.workflow, runtime.models(step.workflow))
        self._tasks = anyio.create_task_group()
        self._is_single = True
        self._newest: Commit | None = None
        self._interrupt: BaseException | None = None

    async def run(self) -> None:
        """Run all items; returns early if more items failed than the step tolerates."""
        try:
            async with self._tasks as tasks:
                count = self._workers_needed()
                self._is_single = count == 1
                for number in range(count):
                    tasks.start_soon(self._work, name=f"{self._visit.path} worker {number}")
        finally:
            self._visit.cancelled_mono = self._visit.map_ending = (
                None  # all workers have ended; a retry of the map starts new ones
            )
            if self._newest is not None:
                await self._newest.wait_shielded()  # nothing of the map may be in flight when the run continues or ends
            await self._feed.close()
        if isinstance(self._interrupt, Exception):
            raise self._interrupt
        if self._interrupt is not None:
            await self._visit.interrupt(self._interrupt)

    def result(self) -> StepResult:
        """The result of the map."""
        result = self._report.result()
        self._visit.item_error = result.exception
        return result

    def _workers_needed(self) -> int:
        limit, total = self._step.max_concurrency, self._feed.total
        return limit if total is None else min(limit, total)

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

    async def _take_items(self) -> None:
        previous: Commit | None = None
        while (entry := await self._next()) is not None:
            commit = await self._run_item(*entry)
            if self._report.has_failed:
                self._cancel_items(self._report.result())
                return
            await _wait_for(previous)
            if commit is not None and self._is_single:
                await commit.wait()
            previous = commit
        await _wait_for(previous)

    async def _next(self) -> tuple[int, object] | None:
        if self._runtime.is_draining:
            raise Draining
        if self._tasks.cancel_scope.cancel_called:
            await anyio.lowlevel.checkpoint_if_cancelled()  # no item begins after one that ended the map
        return await self._feed.next()

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

    async def _run_item(self, index: int, item: object) -> Commit | None:
        """Run one item to its end; returns the commit that stores it, if there is something to store."""
        try:
            encoded = encode(item)
        except SerializationError as exc:
            raise StepError(f"items[{index}] has no strict JSON form: {exc}") from None
        if index in self._progress.finished:
            return None
        try:
            scope = self._item_scope(index, encoded)
        except InvalidParamsError as exc:
            failure = ItemFailure(index, storable_text(f"item {index}: {exc}"), ErrorCategory.DATA_QUALITY)
            self._fail(failure, self._progress.item_path(index), exc)
            return None
        if scope.cursor.step is not None:
            return self._finish_item(index, scope, await run_steps(self._runtime, scope))
        self._finish(index, scope)
        return None

    def _item_scope(self, index: int, item: Document) -> Scope:
        path, outer = self._progress.item_path(index), self._visit.scope
        if path in outer.open_items:
            return outer.open_items[path]
        workflow, run = self._step.workflow, self._visit.run
        rows = self._progress.stored_rows(index)
        own = self._own_params(item, rows)
        position = Position(Cursor(workflow), for_item(self._item_context, own))
        if rows:
            check_same_item(self._step, index, item, rows)
            replay(position, run.run_id, rows)
        scope = Scope(
            run,
            workflow,
            path,
            position.cursor,
            position.context,
            position.waits,
            position.last_output,
            item_index=index,
            item_params=join_object({**own, self._step.item_param: item}).text,
            parent=self._visit,
            parent_progress=self._progress,
        )
        outer.open_items[path] = scope
        return scope

    def _own_params(self, item: Document, rows: list[VisitRow]) -> dict[str, Document]:
        """The item under its name, with what the iterator's `params_model` adds; a resume reads that from the rows."""
        workflow = self._step.workflow
        if workflow.params_model is None:
            return {self._step.item_param: item}
        stored = next((row.item_params for row in rows if row.item_params is not None), "{}")
        own = {**split_object(stored), self._step.item_param: item}
        return validated_item_params(workflow, params_of(self._item_context), own)

    def _finish_item(self, index: int, scope: Scope, outcome: Outcome) -> Commit | None:
        if outcome.status is RunStatus.COMPLETED:
            self._finish(index, scope)
            return self._enqueue()
        if outcome.status is RunStatus.STOPPED:
            raise StopRequested(outcome.stop_reason or "")
        # Its events are written with the next commit; nothing was finished that could be lost.
        failure = ItemFailure(index, outcome.error or "", outcome.error_category or "INTERNAL")
        self._fail(failure, scope.path, outcome.exception)
        return None

    def _finish(self, index: int, scope: Scope) -> None:
        self._visit.scope.open_items.pop(scope.path, None)
        self._progress.finish(index, (scope.last_output or NULL).text)

    def _enqueue(self) -> Commit:
        commit = self._runtime.journal.enqueue(self._visit.run.pending)
        if commit is not self._newest:  # all workers share it
            self._newest = commit
            commit.add_error_callback(self._abort)
        return commit

    def _fail(self, failure: ItemFailure, path: str, exception: BaseException | None) -> None:
        self._report.add_failure(failure, exception)
        metadata = encode(failure.as_dict()).text
        event = EventRow(EventType.MAP_ITEM_FAILED, self._step.name, self._visit.run.clock.now(), metadata, path)
        self._visit.run.pending.add_events(event)


async def _wait_for(commit: Commit | None) -> None:
    """Wait for the commit of the previous item."""
    if commit is None or commit.is_set:
        await anyio.lowlevel.checkpoint_if_cancelled()  # a worker that never suspends could not be cancelled otherwise
    if commit is not None:
        await commit.wait()
