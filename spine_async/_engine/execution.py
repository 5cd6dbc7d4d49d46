"""One run from its start to its result: ask the cursor, bring the step to a result, settle it, commit, repeat."""

from __future__ import annotations

from contextlib import suppress

import anyio

from spine_async._engine.attempt import perform
from spine_async._engine.engine import Engine
from spine_async._engine.ledger import OpenVisit
from spine_async._engine.report import live_result
from spine_async._engine.scope import Scope, Visit
from spine_async._engine.settling import COMPLETED, ScopeEnd, settle
from spine_async._engine.signals import CommitFailed, StopRequested, raising_store_errors
from spine_async._model.failure import ErrorCategory
from spine_async._model.record import RunEnd
from spine_async._model.result import WorkflowResult
from spine_async._model.status import RunStatus
from spine_async._model.step import Step

CANCELLED = "cancelled"
"""Reason of a run that was stopped because whoever awaited it was cancelled."""


async def execute_run(engine: Engine, scope: Scope) -> WorkflowResult:
    """Bring a run to its end and record it.

    Args:
        engine: What all runs share.
        scope: The run's own scope, standing on the step that comes next.

    Raises:
        LeaseLostError: Another owner took the run over.
        StoreError: The store has a problem; the run stays as it was last committed and can be resumed.

    Cancellation:
        The run is recorded as stopped, then the cancellation goes on.
    """
    run = scope.run
    with engine.observer.run(run.run_id, run.workflow.name, is_resumed=run.is_resumed) as span:
        with raising_store_errors():
            end = await _brought_to_end(engine, scope)
        span.ended(end.status, end.error_category)
    return live_result(scope, end)


async def drive(engine: Engine, scope: Scope) -> ScopeEnd:
    """Run the steps of a scope one after the other; how it ended.

    Raises:
        CommitFailed: A step could not be committed.
    """
    while (step := scope.cursor.step) is not None:
        if scope.cursor.visit > engine.config.max_step_visits:
            return await _conclude(engine, scope, _too_many_visits(engine, step))
        visit = _enter(engine, scope, step)
        try:
            end = await _run_visit(engine, visit)
        except BaseException:
            scope.run.ledger.abandon(visit.open)
            raise
        if end is not None:
            return end
    return await _conclude(engine, scope, COMPLETED)


def _enter(engine: Engine, scope: Scope, step: Step) -> Visit:
    path = scope.child_path(scope.cursor.segment)
    visit = Visit(scope, step, OpenVisit(path, step.name, engine.clock.now(), engine.clock.monotonic()))
    scope.run.ledger.open(visit.open)
    return visit


async def _run_visit(engine: Engine, visit: Visit) -> ScopeEnd | None:
    with engine.observer.step(visit.run.run_id, visit.path, visit.step) as span:
        accepted = await perform(engine, visit)
        span.settled(accepted.result, visit.attempts)
    elapsed_ms = round((engine.clock.monotonic() - visit.open.started_mono) * 1000, 3)
    now = engine.clock.now()
    end = settle(visit, accepted, now, elapsed_ms)
    if end is not None:
        return await _conclude(engine, visit.scope, end)
    if engine.commits_after(visit.step):
        await engine.journal.commit(visit.run.ledger)
    return None


async def _conclude(engine: Engine, scope: Scope, end: ScopeEnd) -> ScopeEnd:
    """Commit the end of a scope: a run's with its final state, an item's with its last step."""
    ledger = scope.run.ledger
    if scope.is_run:
        ledger.close(end.at(engine.clock.now()))
    elif end.status is RunStatus.FAILED:
        return end  # what it has to tell goes with the next commit; nothing was finished that could be lost
    await engine.journal.commit(ledger)
    return end


async def _brought_to_end(engine: Engine, scope: Scope) -> RunEnd:
    ledger = scope.run.ledger
    limit = engine.config.workflow_timeout
    try:
        with anyio.move_on_after(limit):
            await drive(engine, scope)
        if ledger.end is None:
            await _conclude(engine, scope, _timed_out(scope, limit))
    except StopRequested as stop:
        await _conclude(engine, scope, ScopeEnd(RunStatus.STOPPED, reason=stop.reason))
    except anyio.get_cancelled_exc_class():
        if ledger.end is None:
            with suppress(CommitFailed):  # the caller is owed its cancellation, and the run can be resumed either way
                await _conclude(engine, scope, ScopeEnd(RunStatus.STOPPED, reason=CANCELLED))
        raise
    if ledger.end is None:
        raise RuntimeError(f"run {scope.run.run_id!r} came to no end")
    return ledger.end


def _timed_out(scope: Scope, limit: float | None) -> ScopeEnd:
    step = scope.cursor.step
    told = f"the workflow timed out after {limit:g} s"
    return ScopeEnd(RunStatus.FAILED, step.name if step else None, told, ErrorCategory.TIMEOUT)


def _too_many_visits(engine: Engine, step: Step) -> ScopeEnd:
    limit = engine.config.max_step_visits
    told = f"step {step.name!r} was visited {limit:,} times, which is max_step_visits; is there a loop without an end?"
    return ScopeEnd(RunStatus.FAILED, step.name, told, ErrorCategory.CONFIGURATION)
