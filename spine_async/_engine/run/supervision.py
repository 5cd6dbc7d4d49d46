"""A run's steps in a task of their own, and whoever waits for them.

The steps run in a task that belongs to the runner, so that no native cancellation of the caller ever lands in the
middle of them: the caller's is taken here, handed on as an interruption with its reason, and goes on once the run is
recorded. A step that does not end although it was cancelled is left behind after a grace period; the run is recorded
without it.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

import anyio

from spine_async._engine.run.loop import conclude, drive
from spine_async._engine.run.result import live_result
from spine_async._engine.runtime.runtime import Engine
from spine_async._engine.state.cancellation import CancelReason
from spine_async._engine.state.interrupts import RAISING_STORE_ERRORS, CommitFailed, Draining, StopRequested
from spine_async._engine.state.outcome import ScopeEnd
from spine_async._engine.state.scope import Run, Scope
from spine_async._engine.tasks import CANCELLATION, Task, attend_either, spawn
from spine_async._model.failure import ErrorCategory
from spine_async._model.record import RunEnd
from spine_async._model.status import RunStatus
from spine_async._model.workflow_result import WorkflowResult
from spine_async.errors import LeaseLostError

_LET_GO_WITHIN = 1.0  # seconds; a store that does not answer is not waited for

_log = logging.getLogger("spine_async")


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
        with RAISING_STORE_ERRORS:
            try:
                end = await supervise(engine, scope)
            except CommitFailed:
                await _let_lease_end(engine, run)
                raise
        span.ended(end.status, end.error_category)
    return live_result(scope, end)


async def _let_lease_end(engine: Engine, run: Run) -> None:
    """Nothing more can be committed from here: whoever resumes the run may have it at once."""
    renewal = spawn(engine.store.renew([run.ledger.claim], 0.0), f"spine_async let go of {run.run_id}")
    with anyio.move_on_after(_LET_GO_WITHIN, shield=True):
        await attend_either(renewal)
    renewal.cancel()
    renewal.add_done_callback(_forget)


async def supervise(engine: Engine, scope: Scope) -> RunEnd:
    """Run the steps of `scope` to the run's end, and record it.

    Raises:
        CommitFailed: The run could not be recorded, or belongs to somebody else now.

    Cancellation:
        Interrupts the run; raised once its end is recorded.
    """
    run = scope.run
    work = spawn(_brought_to_end(engine, scope), f"spine_async run {run.run_id}")
    work.add_done_callback(run.over.pass_on)
    try:
        await run.over.promise()
    except CANCELLATION:
        run.interruption.request(CancelReason.CANCELLED, engine.clock.monotonic())
        # The caller is owed its cancellation, and the run can be resumed either way. The event loop has been told
        # already of what ends the process.
        with suppress(CommitFailed, SystemExit, KeyboardInterrupt):
            await run.over.attend()
            await _outcome(engine, scope, work)
        raise
    return await _outcome(engine, scope, work)


async def _outcome(engine: Engine, scope: Scope, work: Task[RunEnd]) -> RunEnd:
    if not work.done():
        return await _leave_behind(engine, scope, work)
    if work.cancelled():  # the event loop is being torn down
        return await _recorded(engine, scope, ScopeEnd(RunStatus.STOPPED, reason=CancelReason.SHUTDOWN.value))
    error = work.exception()
    if error is not None and not isinstance(error, (Exception, CommitFailed)):  # SystemExit and the like
        await _recorded(engine, scope, ScopeEnd(RunStatus.STOPPED, reason=CancelReason.SHUTDOWN.value))
    return work.result()


async def _brought_to_end(engine: Engine, scope: Scope) -> RunEnd:
    """The run's own task."""
    run = scope.run
    end: ScopeEnd | None = None
    try:
        with anyio.move_on_after(engine.config.workflow_timeout) as limit:
            run.interruption.enclose(limit)
            if run.interruption.reason is None:
                await drive(engine, scope)
    except StopRequested as stop:
        end = ScopeEnd(RunStatus.STOPPED, reason=stop.reason)
    except Draining:
        end = ScopeEnd(RunStatus.STOPPED, reason=CancelReason.SHUTDOWN.value)
    if run.ledger.end is not None:
        return run.ledger.end
    return await _recorded(engine, scope, end or _interrupted(engine, scope))


async def _recorded(engine: Engine, scope: Scope, end: ScopeEnd) -> RunEnd:
    """The end of the run as it is stored; one that was recorded before stays."""
    ledger = scope.run.ledger
    if ledger.end is None:
        if scope.run.interruption.reason is CancelReason.LEASE_LOST:
            raise CommitFailed(LeaseLostError(scope.run.run_id))
        await conclude(engine, scope, end)
    if ledger.end is None:
        raise RuntimeError(f"run {scope.run.run_id!r} came to no end")
    return ledger.end


def _interrupted(engine: Engine, scope: Scope) -> ScopeEnd:
    interruption = scope.run.interruption
    if interruption.reason is not None:
        return ScopeEnd(RunStatus.STOPPED, reason=interruption.text)
    step = scope.cursor.step
    told = f"the workflow timed out after {engine.config.workflow_timeout:g} s"
    return ScopeEnd(RunStatus.FAILED, step.name if step else None, told, ErrorCategory.TIMEOUT)


async def _leave_behind(engine: Engine, scope: Scope, work: Task[RunEnd]) -> RunEnd:
    """Record the end of a run of which a step does not end."""
    run, stuck = scope.run, scope.run.hung
    if stuck is None:
        raise RuntimeError(f"run {run.run_id!r} is neither over nor stuck")
    _log.warning("run %s: %s; it is left behind and may still be at work", run.run_id, stuck.error or stuck.reason)
    work.add_done_callback(_forget)
    return await _recorded(engine, scope, stuck)


def _forget(work: Task[Any]) -> None:
    if not work.cancelled():
        work.exception()  # counts as seen; what a step left behind comes to changes nothing any more
