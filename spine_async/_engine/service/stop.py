"""Stops a run, wherever it is executed."""

from __future__ import annotations

import logging
from contextlib import suppress

from spine_async._engine.run.recording import commit_outcome
from spine_async._engine.run.release import give_up
from spine_async._engine.runtime.changes import Change
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.service.active_runs import ActiveRuns
from spine_async._engine.start.claim import claim_run
from spine_async._engine.start.run_scope import new_pending
from spine_async._engine.start.stored_run import has_begun, load
from spine_async._engine.state.cancellation import CancelReason
from spine_async._engine.state.interrupts import RAISING_ERRORS
from spine_async._engine.state.outcome import Outcome
from spine_async._engine.state.wall_clock import RunClock
from spine_async._engine.tasks import run_shielded
from spine_async._model.fingerprint import has_unwinding
from spine_async._model.run_change import Release
from spine_async._model.run_filter import RunFilter
from spine_async._model.run_row import DueTime, StoredRun
from spine_async._model.status import RunStatus
from spine_async._model.stop_request import StopRequest
from spine_async.errors import LeaseLostError, RunBusyError, RunNotResumableError, StoreError

_log = logging.getLogger("spine_async")


async def stop_run(
    runtime: Runtime, active_runs: ActiveRuns, run_id: str, reason: str | None, *, compensates: bool = False
) -> bool:
    """Cancel the run if it is active here, and store the request for its owner; record the stop if it has none.

    The request is stored in any case, so that the next owner stops the run if this process dies before it has done so.

    A run without an owner that has compensations or cleanup steps to execute becomes due, so that a worker does that.

    Returns:
        Whether the run was under way.

    Raises:
        RunNotFoundError: No such run is stored.
    """
    text = reason or CancelReason.USER.value
    request = StopRequest(text, compensates)
    execution, was_asked = active_runs.find(run_id), False
    if execution is not None:
        execution.cancel(CancelReason.USER, text, compensates)
        if not execution.was_released:
            was_asked = await _store_request(runtime, run_id, request.text)
            await execution.opened.future()
            if execution.has_run and not execution.was_released:
                return True
        # It could not open the run, or was parking, or leaving the runner: the run is perhaps not executed any more.
        with suppress(Exception):
            await execution.result()
    stored = await load(runtime, run_id)
    if stored.status.is_final or not await run_shielded(
        runtime.store.request_stop(run_id, request.text), "spine_async stop"
    ):
        return was_asked
    return await run_shielded(_stop_unheld(runtime, active_runs, stored, request), "spine_async stop")


async def _stop_unheld(runtime: Runtime, active_runs: ActiveRuns, stored: StoredRun, request: StopRequest) -> bool:
    """Record the stop of a run if nobody holds it. Not to be cancelled: a claimed run would have no executor.

    Returns:
        True.
    """
    run_id, text, compensates = stored.run_id, request.reason, request.compensates
    try:
        claim = await claim_run(runtime, run_id, None, unless_ended=True)
    except RunNotResumableError:
        return True  # it has ended meanwhile
    except RunBusyError:
        if (await load(runtime, run_id)).epoch == stored.epoch:
            return True  # its owner finds the request
        # It was claimed since it was loaded, perhaps after the request was stored: this claim has cleared the request.
        return await stop_run(runtime, active_runs, run_id, text, compensates=compensates)
    execution = active_runs.find(run_id)
    if execution is not None:  # by a claim of this runner whose answer has arrived since
        execution.cancel(CancelReason.USER, text, compensates)
    try:
        if claim.next_seq != stored.next_seq:  # it was executed and parked between load and claim
            stored = await load(runtime, run_id)
        if has_begun(stored) and has_unwinding(stored.fingerprint):
            # The claim has cleared the request. It is stored again before the release: the next owner finds it.
            await run_shielded(runtime.store.request_stop(run_id, request.text), "spine_async stop")
            await give_up(runtime, claim, Release(due=DueTime(runtime.clock.now(), 0.0)))
            runtime.changes.notify(Change.WORK)
            return True
        pending = new_pending(runtime, stored, claim, RunClock(runtime.clock, stored.updated_at))
        with RAISING_ERRORS:
            outcome = Outcome(RunStatus.STOPPED, stop_reason=text)
            await commit_outcome(runtime, pending, outcome, stored.workflow_name, stored.started_at)
    except LeaseLostError:  # another call or runner has claimed it meanwhile, and is the one to stop it
        return await stop_run(runtime, active_runs, run_id, text, compensates=compensates)
    except StoreError:
        await give_up(runtime, claim, Release(due=DueTime(runtime.clock.now(), 0.0)))
        raise
    runtime.changes.notify(Change.STATE)
    for child in await child_ids(runtime, run_id, is_under_way=True):
        await stop_run(runtime, active_runs, child, text, compensates=compensates)
    return True


async def _store_request(runtime: Runtime, run_id: str, request: str) -> bool:
    """Store the request to stop a run that is being stopped here; returns whether it is stored."""
    try:
        return await run_shielded(runtime.store.request_stop(run_id, request), "spine_async stop")
    except StoreError as exc:
        _log.warning("run %s is being stopped, but the request could not be stored: %s", run_id, exc)
        return False


async def child_ids(runtime: Runtime, run_id: str, *, is_under_way: bool) -> list[str]:
    """Ids of the runs that steps of this run have started; `is_under_way`: only of those that have not ended."""
    chosen = RunFilter(
        parent_run_id=run_id, is_under_way=is_under_way, limit=MAX_CHILDREN, with_documents=False, skips_unreadable=True
    )
    return [each.run_id for each in await run_shielded(runtime.store.runs(chosen), "spine_async children")]


MAX_CHILDREN = 1_000_000
"""More than the children of any run."""
