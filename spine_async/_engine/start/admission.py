"""Opening a run whole: who is cancelled meanwhile leaves no run behind that is owned and executed by nobody."""

from __future__ import annotations

from collections.abc import Coroutine
from contextlib import suppress

from spine_async._engine.runtime.runtime import Engine
from spine_async._engine.state.cancellation import CancelReason
from spine_async._engine.state.interrupts import CommitFailed
from spine_async._engine.state.scope import Scope
from spine_async._engine.tasks import CANCELLATION, outlast, spawn
from spine_async._model.record import RunEnd
from spine_async._model.status import RunStatus
from spine_async._model.workflow_result import WorkflowResult


async def admit(engine: Engine, opening: Coroutine[object, object, Scope | WorkflowResult]) -> Scope | WorkflowResult:
    """What `opening` gives.

    Cancellation:
        Raised once the opening is over; a run that it created or claimed is recorded as stopped before that.
    """
    task = spawn(opening, "spine_async open")
    try:
        return await outlast(task)
    except CANCELLATION:
        opened = task.result() if not task.cancelled() and task.exception() is None else None
        if isinstance(opened, Scope):
            await stop_unstarted(engine, opened)
        raise


async def stop_unstarted(engine: Engine, opened: Scope) -> None:
    """Record a run as stopped whose caller was cancelled before its execution began."""
    ledger = opened.run.ledger
    ledger.close(RunEnd(RunStatus.STOPPED, engine.clock.now(), stop_reason=CancelReason.CANCELLED.value))
    with suppress(CommitFailed):  # the caller is owed its cancellation, and the run can be resumed either way
        await engine.journal.commit(ledger)
