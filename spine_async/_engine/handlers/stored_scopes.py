"""Reads the rows that an earlier execution stored inside a step, page by page, into the progress of the step.

Between two pages the event loop executes other tasks. Memory holds one page of rows, and the rows of unfinished scopes.
"""

from __future__ import annotations

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.interrupts import CommitFailed, ResumeRefused, RunAborted
from spine_async._engine.state.nested_progress import AnyProgress
from spine_async._engine.state.scope import Visit
from spine_async._engine.state.step_progress import new_progress
from spine_async._engine.tasks import run_shielded
from spine_async._model.corruption_guard import CorruptionGuard
from spine_async._model.visit_filter import VisitFilter
from spine_async.errors import SharingError, StoreError, WorkflowChangedError

_PAGE = 256
"""Rows per page; decoding a page takes a few milliseconds on the event loop."""


async def open_progress(runtime: Runtime, visit: Visit) -> AnyProgress:
    """Progress of the step that `visit` executes: of its earlier attempts, or of an earlier execution of the run.

    If the definition does not fit the stored rows, or if the store fails, this ends the execution of the step. Adds the
    `step_started` event of the step.
    """
    try:
        progress = await _progress(runtime, visit)
    except RunAborted as exc:
        await visit.interrupt(exc)
    visit.is_announced = visit.is_announced or (visit.run.is_woken and progress.has_rows)
    visit.run.pending.announce_visit(visit)
    return progress


def may_repeat(runtime: Runtime, visit: Visit) -> bool:
    """Whether the step may be executed once more in this execution of the run, by itself or inside another step."""
    outer: Visit | None = visit
    while outer is not None:
        if runtime.may_repeat(outer.step):
            return True
        outer = outer.scope.parent
    return False


async def _progress(runtime: Runtime, visit: Visit) -> AnyProgress:
    """The progress.

    Raises:
        ResumeRefused: The definition does not fit the stored rows.
        CommitFailed: The store failed, or belongs to another event loop or process.
    """
    scope, run = visit.scope, visit.run
    progress = scope.nested.get(visit.path)
    if progress is None:
        is_resumed = scope.is_run and visit.path == run.resumed_path
        keeps_digests = is_resumed or may_repeat(runtime, visit)
        progress = new_progress(run.run_id, visit.path, visit.step, keeps_digests=keeps_digests)
        if is_resumed:
            await _load(runtime, visit, progress)
        scope.nested[visit.path] = progress
    return progress


async def _load(runtime: Runtime, visit: Visit, progress: AnyProgress) -> None:
    run_id, after = visit.run.run_id, 0
    try:
        while True:
            page = runtime.store.visits(run_id, VisitFilter(inside=visit.path, after=after, limit=_PAGE))
            rows = await run_shielded(page, "spine_async load items")
            with CorruptionGuard(run_id):
                for row in rows:
                    progress.add(row)
            if len(rows) < _PAGE:
                break
            after = rows[-1].seq
        progress.check_ends()
    except WorkflowChangedError as exc:
        raise ResumeRefused(exc) from None
    except (StoreError, SharingError) as exc:
        raise CommitFailed(exc) from None
