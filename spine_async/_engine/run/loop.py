"""The steps of a scope one after the other: ask the cursor, bring the step to a result, settle it, commit, repeat."""

from __future__ import annotations

from typing import Any

from spine_async._engine.run.transition import settle
from spine_async._engine.runtime.runtime import Engine
from spine_async._engine.state.deadline import Limit
from spine_async._engine.state.interrupts import Draining, LeftBehind
from spine_async._engine.state.outcome import COMPLETED, ScopeEnd
from spine_async._engine.state.pending_writes import OpenVisit
from spine_async._engine.state.scope import Scope, Visit
from spine_async._engine.step.attempt import perform
from spine_async._engine.tasks import Task, current_task
from spine_async._model.failure import ErrorCategory
from spine_async._model.status import RunStatus
from spine_async._model.step import Step


async def drive(engine: Engine, scope: Scope) -> ScopeEnd:
    """Run the steps of a scope one after the other; how it ended.

    The last step of a map's item is settled, and left to the map to commit.

    Raises:
        CommitFailed: A step could not be committed.
        Draining: The runner is being left; no further step begins.
    """
    task, cursor, ledger = current_task(), scope.cursor, scope.run.ledger
    with Limit(engine.deadlines) as scope.limit:
        while (step := cursor.step) is not None:
            if cursor.visit > engine.config.max_step_visits:
                return await conclude(engine, scope, _too_many_visits(engine, step))
            if ledger.end is not None:
                raise LeftBehind
            if engine.is_draining:
                raise Draining
            visit = _enter(engine, scope, step)
            try:
                end = await _run_visit(engine, visit, task)
            except BaseException:
                ledger.abandon(visit.open)
                raise
            if end is not None:
                return end
    return await conclude(engine, scope, COMPLETED)


def _enter(engine: Engine, scope: Scope, step: Step) -> Visit:
    path = scope.child_path(scope.cursor.segment)
    visit = Visit(scope, step, OpenVisit(path, step.name, engine.clock.now(), engine.clock.monotonic()))
    scope.run.ledger.open(visit.open)
    return visit


async def _run_visit(engine: Engine, visit: Visit, task: Task[Any]) -> ScopeEnd | None:
    run, step = visit.run, visit.step
    ledger = run.ledger
    engine.at_work[task] = visit
    try:
        with engine.observer.step(run.run_id, visit.open.path, step) as span:
            accepted = await perform(engine, visit)
            if ledger.end is not None:
                raise LeftBehind
            elapsed_ms = round((engine.clock.monotonic() - visit.open.started_mono) * 1000, 3)
            span.settled(step, accepted.result, visit.attempts, elapsed_ms)
    finally:
        del engine.at_work[task]
    now = engine.clock.now()
    end = settle(visit, accepted, now, elapsed_ms)
    if end is not None:
        return await conclude(engine, visit.scope, end)
    if engine.commits_after(step):
        await engine.journal.commit(ledger)
    else:
        await engine.journal.put_off()
    return None


async def conclude(engine: Engine, scope: Scope, end: ScopeEnd) -> ScopeEnd:
    """Commit the end of a run with its final state; an item's end is its map's business."""
    if scope.is_run:
        scope.run.ledger.close(end.at(engine.clock.now()))
        await engine.journal.commit(scope.run.ledger)
    return end


def _too_many_visits(engine: Engine, step: Step) -> ScopeEnd:
    limit = engine.config.max_step_visits
    told = f"step {step.name!r} was visited {limit:,} times, which is max_step_visits; is there a loop without an end?"
    return ScopeEnd(RunStatus.FAILED, step.name, told, ErrorCategory.CONFIGURATION)
