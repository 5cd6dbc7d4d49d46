"""Executes a map: runs a workflow for each item, in a pool of workers that share one feed of items.

A retry or a resume of the map compares its items with the stored ones, and runs only the remaining ones.
"""

from __future__ import annotations

import logging
from contextvars import copy_context

from spine_async._engine.commit.recorder import Commit
from spine_async._engine.handlers.concurrency import concurrency_of
from spine_async._engine.handlers.feed import Feed, open_feed
from spine_async._engine.handlers.inner_scope import new_scope, resumed_scope, stored_params
from spine_async._engine.handlers.item_queue import Item, ItemQueue
from spine_async._engine.handlers.map_report import ItemFailure, MapReport, base_context
from spine_async._engine.handlers.pool import Pool, is_completed
from spine_async._engine.handlers.stored_scopes import may_repeat, open_progress
from spine_async._engine.run.loop import run_steps
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.attempt_frame import visit_of
from spine_async._engine.state.map_progress import MapProgress
from spine_async._engine.state.nested_progress import StoredScope
from spine_async._engine.state.outcome import COMPLETED, Outcome
from spine_async._engine.state.params import item_params
from spine_async._engine.state.progress_report import ProgressReport
from spine_async._engine.state.scope import Scope
from spine_async._model.context import WorkflowContext
from spine_async._model.context_access import for_item, params_of
from spine_async._model.document import NULL, Document, encode, join_object, split_object
from spine_async._model.failure import ErrorCategory, storable_text
from spine_async._model.map_step import MapStep
from spine_async._model.status import EventType
from spine_async._model.step_result import StepResult
from spine_async._model.visit_row import EventRow
from spine_async.errors import InvalidParamsError

_log = logging.getLogger("spine_async")


async def run_map(runtime: Runtime, step: MapStep, context: WorkflowContext) -> StepResult:
    """Run the step's iterator for each item that is not finished yet.

    Returns:
        Output `{"results": [...], "succeeded": n, "failed": n, "errors": [{"index", "error", "category"}]}`.
    """
    limit = concurrency_of(step, context)
    progress = await open_progress(runtime, visit_of(context))
    assert isinstance(progress, MapProgress)  # noqa: S101 - that of a map
    feed = await open_feed(step.source, context)
    items = _Items(runtime, step, context, progress=progress, feed=feed, limit=limit)
    await items.run()
    return items.result()


class _Items(Pool[Item]):
    """The items of one attempt of a map."""

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
        self._feed = feed
        super().__init__(runtime, visit_of(context), limit)
        self._step = step
        self._workflow = step.item_workflow
        self._progress = progress
        keeps_values = self._workflow.params_model is not None
        self._items = ItemQueue(runtime, progress, feed, keeps_values=keeps_values)
        self._report = MapReport(step, progress, feed)
        self._visit.tolerates_failure = self._report.tolerates_another
        self._visit.report = ProgressReport(read=self._report.progress, stored=self._report.progress())
        self._item_context = base_context(context, self._workflow, runtime.models(self._workflow))

    def result(self) -> StepResult:
        """The result of the map."""
        result = self._report.result()
        self._visit.inner_error = result.exception
        return result

    def _total(self) -> int | None:
        return self._feed.total

    async def _next_entry(self) -> Item | None:
        return await self._items.next()

    def _ending(self) -> StepResult | None:
        # Without a call in the usual case, because each item passes here.
        return self._report.result() if self._report.failed and self._report.has_failed else None

    async def _prepare(self) -> None:
        await self._items.compare(self._last_known_index())

    async def _close(self) -> None:
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
        open_scopes, last = self._visit.scope.open_scopes, self._progress.last_index
        for scope in list(open_scopes.values()):
            index = scope.item_index or 0
            if scope.has_stored:
                last = max(last, index)
            else:
                del open_scopes[scope.path]
                self._progress.drop_digest(index)
        return last

    async def _run_entry(self, entry: Item) -> Commit | None:
        index = entry.index
        if index in self._progress.finished:
            return None
        try:
            scope = self._item_scope(entry)
        except InvalidParamsError as exc:
            failure = ItemFailure(index, storable_text(str(exc)), ErrorCategory.DATA_QUALITY)
            self._record_failure(failure, self._progress.scope_path(index), exc)
            return None if self._report.has_failed else self._enqueue()
        if scope.cursor.step is not None:
            return self._finish_item(index, scope, await run_steps(self._runtime, scope))
        self._finish(index, scope)
        return None

    def _item_scope(self, item: Item) -> Scope:
        index = item.index
        path = self._progress.scope_path(index)
        open_scopes = self._visit.scope.open_scopes
        scope = open_scopes.get(path)
        if scope is None:
            stored = self._progress.stored.get(index)
            scope = self._new_scope(path, item) if stored is None else self._resumed(path, item, stored)
            open_scopes[path] = scope
        return scope

    def _new_scope(self, path: str, item: Item) -> Scope:
        """The scope of an item of which nothing is stored."""
        own = self._own_params(item, None)
        self._progress.keep_digest(item.index, item.digest)
        context, params = for_item(self._item_context, own), self._stored_params(item.document, own)
        return new_scope(self._visit, self._workflow, path, context, params, item.index)

    def _resumed(self, path: str, item: Item, stored: StoredScope) -> Scope:
        """The scope of an item that has stored rows."""
        own = self._own_params(item, stored)
        # Not before the params are valid: another attempt continues after the rows.
        del self._progress.stored[item.index]
        context, params = for_item(self._item_context, own), self._stored_params(item.document, own)
        return resumed_scope(self._visit, self._workflow, path, context, stored, params=params, index=item.index)

    def _own_params(self, item: Item, stored: StoredScope | None) -> dict[str, Document]:
        """The item under its name, and the params that the iterator's model adds; a resume reads them from the rows."""
        workflow, name = self._workflow, self._step.item_param
        if workflow.params_model is None:
            return {name: item.document}
        earlier = split_object(stored_params(stored) or "{}")
        earlier.pop(name, None)
        named = self._visit.scope.validated_fields()
        own, values = {name: item.document}, {name: item.value}
        inherited = params_of(self._item_context)
        run = copy_context().run  # validators are user code, and the steps of the items must not see what they set
        return run(item_params, workflow, inherited, earlier, own, named=named, values=values)

    def _stored_params(self, item: Document, own: dict[str, Document]) -> str:
        """JSON object text of the params that the item's first row stores: the item, then those that the model adds."""
        name = self._step.item_param
        if self._workflow.params_model is None:
            return self._progress.item_params(item.text)
        return join_object({name: item, **{key: each for key, each in own.items() if key != name}}).text

    def _finish_item(self, index: int, scope: Scope, outcome: Outcome) -> Commit | None:
        if outcome is COMPLETED or is_completed(outcome):
            self._finish(index, scope)
            return self._enqueue()
        failure = ItemFailure(index, outcome.error or "", outcome.error_category or "INTERNAL")
        self._fail(failure, scope, outcome.exception)
        # If the map fails because of this item, the commit of the map's failure writes the item's events.
        return None if self._report.has_failed else self._enqueue()

    def _finish(self, index: int, scope: Scope) -> None:
        self._visit.scope.open_scopes.pop(scope.path, None)
        self._progress.finish(index, (scope.last_output or NULL).text)

    def _record_failure(self, failure: ItemFailure, path: str, exception: BaseException | None) -> None:
        self._report.add_failure(failure, exception)
        metadata = encode(failure.as_dict()).text
        now = self._visit.run.clock.now()
        event = EventRow(EventType.MAP_ITEM_FAILED, self._step.name, now, metadata, path)
        self._visit.run.pending.add_events(event)

    def _fail(self, failure: ItemFailure, scope: Scope, exception: BaseException | None) -> None:
        self._record_failure(failure, scope.path, exception)
        if not (scope.has_stored and may_repeat(self._runtime, self._visit)):
            self._close_scope(scope)
            if not scope.has_stored:
                self._progress.drop_digest(failure.index)
