"""Executes a run in a task of its own, and waits for it.

No native cancellation ever reaches the middle of the run's steps. Only an event loop that is shutting down cancels the
task that supervises a run; the run is released then, as in a shutdown. A step that does not end although it was
cancelled is left running after a grace period, and the run's end is recorded without it. If the run was to be released,
it is released only when its steps and threads have ended.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import timedelta

import anyio

from spine_async._engine.run.loop import run_steps
from spine_async._engine.run.recording import commit_end, commit_release
from spine_async._engine.run.release import REFUSED_FOR, give_up
from spine_async._engine.run.result import live_result
from spine_async._engine.run.unwinding import begin_unwinding, must_unwind, unwind
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.cancellation import CancelReason
from spine_async._engine.state.interrupts import (
    RAISING_ERRORS,
    CommitFailed,
    Draining,
    ResumeRefused,
    RunAborted,
    StopRequested,
    TaskCancelled,
)
from spine_async._engine.state.outcome import SHUTDOWN, Outcome
from spine_async._engine.state.run import Run
from spine_async._engine.state.scope import Scope
from spine_async._engine.step.once import RuntimeOnceCaller
from spine_async._engine.tasks import (
    CANCELLATION,
    Task,
    drop_cancellations_since,
    mark_retrieved,
    spawn,
    yield_to_loop,
)
from spine_async._model.failure import ErrorCategory
from spine_async._model.run_change import Release, RunEnd
from spine_async._model.run_row import DueTime
from spine_async._model.status import RunStatus
from spine_async._model.workflow_result import WorkflowResult
from spine_async._threads import run_threads
from spine_async.errors import LeaseLostError
from spine_async.ports import RunSpan

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
        The run is released, then the cancellation is raised.
    """
    run = scope.run
    with _span_of(runtime, run) as span:
        with RAISING_ERRORS:
            try:
                end = await supervise(runtime, scope)
            except RunAborted as exc:
                await give_up(runtime, run.pending.claim, _release_after(run, exc))
                raise
        span.ended(_reported_status(run, end), end.error_category)
    return live_result(scope, end)


def _span_of(runtime: Runtime, run: Run) -> RunSpan:
    """The span of the execution; it is stored with the first change, unless it was stored with the creation."""
    if run.span is not None:
        return run.span
    span = runtime.observer.run(
        run.run_id,
        run.workflow.name,
        is_resumed=run.is_resumed,
        continues=run.continues,
        is_claimed=run.is_claimed,
    )
    run.pending.traceparent = span.traceparent
    return span


def _reported_status(run: Run, end: RunEnd) -> str:
    """The status in the span: that of the end, unless the run was released and continues later."""
    release = run.pending.release
    if release is None and run.pending.end is not None:
        return end.status
    return "parked" if release is not None and release.status is RunStatus.WAITING else "released"


async def supervise(runtime: Runtime, scope: Scope) -> RunEnd:
    """Execute the steps of `scope` to the run's end, and record it.

    Raises:
        RunAborted: The run's end could not be recorded, or the run must not continue.

    Cancellation:
        Cancels the run, as a shutdown does; raised once it is released.
    """
    run = scope.run
    run.outbox_options, run.once_caller = runtime.outbox_options, RuntimeOnceCaller(runtime)
    work = spawn(_run_to_end(runtime, scope), f"spine_async run {run.run_id}")
    work.add_done_callback(run.done.callback)
    try:
        await run.done.future()
    except CANCELLATION:
        run.cancellation.is_of_loop = True
        run.cancellation.request(CancelReason.SHUTDOWN, runtime.clock.monotonic())
        # The run can be resumed in any case. An exception that ends the process has reached the event loop already.
        with suppress(RunAborted, SystemExit, KeyboardInterrupt):
            await run.done.wait_shielded()
            await _recorded_end(runtime, scope, work, counts=False)
        raise
    return await _recorded_end(runtime, scope, work, counts=True)


async def _run_to_end(runtime: Runtime, scope: Scope) -> RunEnd:
    """The run's own task."""
    run = scope.run
    run_threads.set(run.threads)
    if run.pending.kept is None and runtime.is_ephemeral and run.workflow.compensates:
        run.pending.kept = []
    if run.unwinding is None:
        if run.decided is None:
            end = await _execute_steps(runtime, scope)
        else:
            end = await _end_or_begin_unwinding(runtime, scope, run.decided)
        if end is not None:
            return end
    return await _unwind(runtime, scope)


async def _execute_steps(runtime: Runtime, scope: Scope) -> RunEnd | None:
    """Execute the steps, and record the end of the run or release it; None if it has to unwind before it ends."""
    limit = anyio.move_on_after(_time_left(runtime, scope.run))
    try:
        with limit:
            scope.run.cancellation.attach(limit)
            if scope.run.cancellation.reason is None:
                return await _end_or_begin_unwinding(runtime, scope, await run_steps(runtime, scope))
    except StopRequested as stop:
        outcome = Outcome(RunStatus.STOPPED, stop_reason=stop.reason)
    except Draining:
        return await _release_when_quiet(runtime, scope.run, SHUTDOWN)
    except (CANCELLATION, TaskCancelled):
        has_timed_out = limit.cancel_called and scope.run.cancellation.reason is None
        if not await _is_cancelled_by_step(runtime, scope.run, has_timed_out=has_timed_out):
            raise
        return await _end_cancelled(runtime, scope)
    else:
        return await _end_cancelled(runtime, scope)
    return await _end_or_begin_unwinding(runtime, scope, outcome)


async def _end_cancelled(runtime: Runtime, scope: Scope) -> RunEnd | None:
    """Record the end of a run whose steps were cancelled, or release it; None if it has to unwind before it ends."""
    if scope.run.pending.end is not None:
        return scope.run.pending.end
    if scope.run.unwinding is not None:
        return None
    if scope.run.cancellation.is_release:
        return await _release_when_quiet(runtime, scope.run, _given_up(scope.run))
    return await _end_or_begin_unwinding(runtime, scope, _cancelled_outcome(runtime, scope))


async def _is_cancelled_by_step(runtime: Runtime, run: Run, *, has_timed_out: bool) -> bool:
    """Whether a step has cancelled a task of the run, which stops the run unless it is being cancelled already.

    While the run times out, a step may replace the cancellation by one that the scope of the run does not recognise, as
    `asyncio.gather` does. An event loop that ends also cancels the task that supervises the run, which notes it within
    an iteration of the loop. Then the cancellation has to continue.
    """
    drop_cancellations_since(0)
    try:
        await yield_to_loop()
    except CANCELLATION:  # the step has cancelled the task twice, or the loop ends just now
        drop_cancellations_since(0)
        await yield_to_loop()
    if run.cancellation.is_of_loop:
        return False
    if has_timed_out:
        return True
    if run.cancellation.reason is None:
        _log.warning(
            "run %s is stopped: a step has cancelled its own task, or a step has left an asyncio.timeout or an "
            "asyncio.TaskGroup open, which did that later",
            run.run_id,
        )
    run.cancellation.request(CancelReason.CANCELLED, runtime.clock.monotonic())
    return run.cancellation.reason is not CancelReason.SHUTDOWN


async def _end_or_begin_unwinding(runtime: Runtime, scope: Scope, outcome: Outcome) -> RunEnd | None:
    """Record the end of the run; or store the outcome as intended, and return None, if it has to unwind before."""
    if not must_unwind(scope.run, outcome):
        return await commit_end(runtime, scope.run, outcome)
    await begin_unwinding(runtime, scope, outcome)
    return None


async def _unwind(runtime: Runtime, scope: Scope) -> RunEnd:
    """Execute the compensations and the cleanup steps, and record the end of the run; or release it."""
    run, unwinding = scope.run, scope.run.unwinding
    assert unwinding is not None  # noqa: S101 - the caller has begun it
    run.cancellation = run.cancellation.after_decision()
    try:
        with anyio.CancelScope() as limit:
            run.cancellation.attach(limit)
            return await commit_end(runtime, run, await unwind(runtime, scope, unwinding))
    except Draining:
        return await _release_when_quiet(runtime, run, SHUTDOWN)
    if run.pending.end is not None:
        return run.pending.end
    _refuse_if_lost(scope)
    return await _release_when_quiet(runtime, run, _given_up(run))


async def _release_when_quiet(runtime: Runtime, run: Run, outcome: Outcome) -> RunEnd:
    """Release the run when none of its threads is running; finished steps are committed before.

    If the threads do not end within `cancel_grace`, the run is left behind, and this continues in the background.

    Raises:
        CommitFailed: The run has another owner, or the store failed.
    """
    if run.threads.names:
        run.cancellation.request(CancelReason.SHUTDOWN, runtime.clock.monotonic())
        try:
            if run.pending.entry_count:
                await runtime.journal.commit(run.pending)
        finally:
            await run.threads.wait_ended()
    return await commit_release(runtime, run, outcome)


def _time_left(runtime: Runtime, run: Run) -> float | None:
    """Seconds until the workflow times out; None for no limit."""
    limit = runtime.config.workflow_timeout
    return None if limit is None else max(0.0, run.limited_from_mono + limit - runtime.clock.monotonic())


def _given_up(run: Run) -> Outcome:
    return Outcome(RunStatus.STOPPED, stop_reason=run.cancellation.text)


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


async def _recorded_end(runtime: Runtime, scope: Scope, work: Task[RunEnd], *, counts: bool) -> RunEnd:
    """The end of a run whose task has ended or that has a stuck step; records the end if the task did not.

    Args:
        runtime: What all runs share.
        scope: The run's own scope.
        work: The run's task.
        counts: Whether a task that was cancelled counts like the death of an owner. That of an event loop which ends
            does not count; otherwise a step has cancelled it while the run unwinds.
    """
    if not work.done():
        return await _abandon_stuck_step(runtime, scope, work)
    error = None if work.cancelled() else work.exception()
    is_cancelled = work.cancelled() or isinstance(error, TaskCancelled)
    if is_cancelled or (error is not None and not isinstance(error, (Exception, RunAborted))):  # SystemExit etc.
        _refuse_if_lost(scope)
        if is_cancelled and scope.run.threads.names:
            return SHUTDOWN.at(scope.run.clock.now())  # a step may still be running, so the run keeps its owner
        counts = not is_cancelled or (counts and not scope.run.cancellation.is_release)
        end = await commit_release(runtime, scope.run, SHUTDOWN, counts=counts)
        return end if is_cancelled else work.result()
    return work.result()


async def _abandon_stuck_step(runtime: Runtime, scope: Scope, work: Task[RunEnd]) -> RunEnd:
    """Record the end of a run with a stuck step, and abandon the step, which may still be running."""
    run, outcome = scope.run, scope.run.stuck_outcome
    if outcome is None:
        raise RuntimeError(f"run {run.run_id!r} has not ended, and none of its steps is stuck")
    reason = outcome.error or outcome.stop_reason
    _log.warning("run %s: %s; it is left behind and may still be running", run.run_id, reason)
    work.add_done_callback(mark_retrieved)
    _refuse_if_lost(scope)
    for visit in run.pending.open_visits.values():
        visit.release_slot()
    if must_unwind(run, outcome):  # its own task does that when the step has ended; until then the run keeps its owner
        run.left_task = work
        return outcome.at(run.clock.now())
    try:
        if run.cancellation.is_release:
            # A step or thread may still be running, so the run keeps its owner until that ends or the process is gone.
            run.left_task = work
            return outcome.at(run.clock.now())
        return await commit_end(runtime, run, outcome)
    finally:
        run.cancellation.request(CancelReason.SIBLING_FAILED, runtime.clock.monotonic())  # steps that are not stuck


def _refuse_if_lost(scope: Scope) -> None:
    run = scope.run
    if run.pending.end is None and run.cancellation.reason is CancelReason.LEASE_LOST:
        text = run.cancellation.text
        raise CommitFailed(LeaseLostError(run.run_id, None if text == CancelReason.LEASE_LOST else text))


def _release_after(run: Run, error: RunAborted) -> Release:
    """How to release a run whose execution was aborted. If a resume has failed, the run gets its previous end again."""
    is_refused, is_decided = isinstance(error, ResumeRefused), run.unwinding is not None
    if is_refused and not is_decided and run.previous_end is not None:
        return Release(status=run.previous_end.status, restored=run.previous_end)
    seconds = REFUSED_FOR if is_refused else 0.0
    return Release(due=DueTime(run.clock.now() + timedelta(seconds=seconds), seconds), ignores_stop=is_decided)
