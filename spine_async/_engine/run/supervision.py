"""Executes a run in a task of its own, and waits for it.

A native cancellation of the caller never reaches the run's steps directly. This module catches it, cancels the run with
a reason, and raises the cancellation again once the run's end is recorded. A stuck step is one that was cancelled and
does not end. After a grace period the run's end is recorded, and the stuck step is left running.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

import anyio

from spine_async._engine.run.loop import run_steps
from spine_async._engine.run.recording import commit_outcome
from spine_async._engine.run.result import live_result
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.cancellation import CancelReason
from spine_async._engine.state.interrupts import RAISING_ERRORS, CommitFailed, Draining, RunAborted, StopRequested
from spine_async._engine.state.outcome import SHUTDOWN, Outcome
from spine_async._engine.state.scope import Run, Scope
from spine_async._engine.tasks import CANCELLATION, Future, Task, new_future, resolve, spawn, wait_any
from spine_async._model.failure import ErrorCategory
from spine_async._model.record import RunEnd
from spine_async._model.status import RunStatus
from spine_async._model.workflow_result import WorkflowResult
from spine_async.errors import LeaseLostError, StoreError

_RELEASE_WITHIN = 1.0  # seconds to wait for the store; then the release continues in the background
_RELEASE_RETRY = 1.0  # seconds between two attempts

_log = logging.getLogger("spine_async")


async def execute_run(runtime: Runtime, scope: Scope) -> WorkflowResult:
    """Execute a run to its end and record it.

    Args:
        runtime: What all runs share.
        scope: The run's own scope, positioned at the step that comes next.

    Raises:
        LeaseLostError: Another owner claimed the run.
        StoreError: The store failed; the run stays as it was last committed and can be resumed.
        WorkflowChangedError: The items of a map, or its iterator, differ from what is stored; the run stays as it was.

    Cancellation:
        The run is recorded as stopped, then the cancellation is raised.
    """
    run = scope.run
    with runtime.observer.run(run.run_id, run.workflow.name, is_resumed=run.is_resumed) as span:
        with RAISING_ERRORS:
            try:
                end = await supervise(runtime, scope)
            except RunAborted:
                await _release(runtime, run)
                raise
        span.ended(end.status, end.error_category)
    return live_result(scope, end)


async def supervise(runtime: Runtime, scope: Scope) -> RunEnd:
    """Execute the steps of `scope` to the run's end, and record it.

    Raises:
        RunAborted: The run's end could not be recorded, or the run must not continue.

    Cancellation:
        Cancels the run. The cancellation is raised once the run's end is recorded.
    """
    run = scope.run
    work = spawn(_run_to_end(runtime, scope), f"spine_async run {run.run_id}")
    work.add_done_callback(run.done.callback)
    try:
        await run.done.future()
    except CANCELLATION:
        run.cancellation.request(CancelReason.CANCELLED, runtime.clock.monotonic())
        # Errors are suppressed: the caller must receive its cancellation, and the run can be resumed in any case. The
        # event loop has already received an exception that ends the process.
        with suppress(RunAborted, SystemExit, KeyboardInterrupt):
            await run.done.wait_shielded()
            await _recorded_end(runtime, scope, work)
        raise
    return await _recorded_end(runtime, scope, work)


async def _run_to_end(runtime: Runtime, scope: Scope) -> RunEnd:
    """The run's own task."""
    pending = scope.run.pending
    try:
        with anyio.move_on_after(runtime.config.workflow_timeout) as limit:
            scope.run.cancellation.attach(limit)
            if scope.run.cancellation.reason is None:
                # Commit before this scope is left, because leaving it raises if a handler did not close its own scope.
                return await commit_outcome(runtime, pending, await run_steps(runtime, scope))
    except StopRequested as stop:
        outcome = Outcome(RunStatus.STOPPED, stop_reason=stop.reason)
    except Draining:
        outcome = SHUTDOWN
    else:
        if pending.end is not None:
            return pending.end
        outcome = _cancelled_outcome(runtime, scope)
    return await commit_outcome(runtime, pending, outcome)


def _cancelled_outcome(runtime: Runtime, scope: Scope) -> Outcome:
    """The outcome of a run whose steps were cancelled.

    Raises:
        CommitFailed: The run was cancelled because it has another owner. Only that owner may record its end.
    """
    _refuse_if_lost(scope)
    cancellation = scope.run.cancellation
    if cancellation.reason is not None:
        return Outcome(RunStatus.STOPPED, stop_reason=cancellation.text)
    step = scope.cursor.step
    message = f"the workflow timed out after {runtime.config.workflow_timeout:g} s"
    return Outcome(RunStatus.FAILED, step.name if step else None, message, ErrorCategory.TIMEOUT)


async def _recorded_end(runtime: Runtime, scope: Scope, work: Task[RunEnd]) -> RunEnd:
    """The end of a run whose task has ended or that has a stuck step; records the end if the task did not."""
    if not work.done():
        return await _abandon_stuck_step(runtime, scope, work)
    is_cancelled = work.cancelled()  # the event loop is shutting down
    error = None if is_cancelled else work.exception()
    if is_cancelled or (error is not None and not isinstance(error, (Exception, RunAborted))):  # SystemExit etc.
        _refuse_if_lost(scope)
        end = await commit_outcome(runtime, scope.run.pending, SHUTDOWN)
        return end if is_cancelled else work.result()
    return work.result()


async def _abandon_stuck_step(runtime: Runtime, scope: Scope, work: Task[RunEnd]) -> RunEnd:
    """Record the end of a run with a stuck step, and abandon the step, which may still be running."""
    run, outcome = scope.run, scope.run.stuck_outcome
    if outcome is None:
        raise RuntimeError(f"run {run.run_id!r} has not ended, and none of its steps is stuck")
    reason = outcome.error or outcome.stop_reason
    _log.warning("run %s: %s; the step is abandoned and may still be running", run.run_id, reason)
    work.add_done_callback(_mark_retrieved)
    _refuse_if_lost(scope)
    for visit in run.pending.open_visits.values():
        visit.release_slot()
    try:
        return await commit_outcome(runtime, run.pending, outcome)
    finally:
        run.cancellation.request(CancelReason.SIBLING_FAILED, runtime.clock.monotonic())  # steps that are not stuck


def _refuse_if_lost(scope: Scope) -> None:
    run = scope.run
    if run.pending.end is None and run.cancellation.reason is CancelReason.LEASE_LOST:
        text = run.cancellation.text
        raise CommitFailed(LeaseLostError(run.run_id, None if text == CancelReason.LEASE_LOST else text))


async def _release(runtime: Runtime, run: Run) -> None:
    """Release a run that cannot be committed from here, so that another owner may claim it at once.

    If the store fails or does not answer, this is repeated in the background until the runner closes the store.
    """
    attempted: Future[None] = new_future()
    release = spawn(_release_when_reachable(runtime, run, attempted), f"spine_async release of {run.run_id}")
    runtime.releases.add(release)
    release.add_done_callback(runtime.releases.discard)
    release.add_done_callback(_mark_retrieved)
    with anyio.move_on_after(_RELEASE_WITHIN, shield=True):
        await wait_any(release, attempted)


async def _release_when_reachable(runtime: Runtime, run: Run, attempted: Future[None]) -> None:
    """Release the run; sets `attempted` when the first attempt has failed."""
    while True:
        try:
            await runtime.store.renew([run.pending.claim], 0.0)
        except StoreError:
            resolve([attempted])
            await anyio.sleep(_RELEASE_RETRY)
        else:
            return


def _mark_retrieved(work: Task[Any]) -> None:
    """Mark the exception of an abandoned task as retrieved, so that asyncio does not report it."""
    if not work.cancelled():
        work.exception()
