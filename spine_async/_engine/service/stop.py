"""Asking a run to stop, wherever it is executed."""

from __future__ import annotations

from spine_async._engine.runtime.runtime import Engine
from spine_async._engine.service.active_runs import Activity
from spine_async._engine.start.claim import claim_run
from spine_async._engine.start.opening import load
from spine_async._engine.state.cancellation import CancelReason
from spine_async._engine.state.interrupts import RAISING_STORE_ERRORS
from spine_async._engine.state.pending_writes import Ledger
from spine_async._engine.tasks import run_through
from spine_async._model.record import RunEnd
from spine_async._model.status import RunStatus
from spine_async.errors import LeaseLostError, RunBusyError, RunNotResumableError


async def stop_run(engine: Engine, activity: Activity, run_id: str, reason: str | None) -> None:
    """Interrupt the run where it is at work here; else leave word for its owner, or end it where there is none.

    Raises:
        RunNotFoundError: No such run is stored.
    """
    text = reason or CancelReason.USER.value
    if activity.interrupt(run_id, CancelReason.USER, text):
        return
    stored = await load(engine, run_id)
    if stored.status.is_final or not await run_through(engine.store.request_stop(run_id, text), "spine_async stop"):
        return
    try:
        claim = await claim_run(engine, run_id, None, unless_ended=True)
    except (RunBusyError, RunNotResumableError):
        return  # its owner is there and will find the word left for it
    ledger = Ledger(claim, emits=engine.config.emit_events)
    ledger.close(RunEnd(RunStatus.STOPPED, engine.clock.now(), stop_reason=text))
    try:
        with RAISING_STORE_ERRORS:
            await engine.journal.commit(ledger)
    except LeaseLostError:  # somebody took it up meanwhile, and is the one to stop it
        await stop_run(engine, activity, run_id, reason)
