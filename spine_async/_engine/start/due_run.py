"""How a run that a worker has claimed becomes executable."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta

from spine_async._engine.run.release import REFUSED_FOR, give_up
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.start.continuation import override_row
from spine_async._engine.start.replay import load_position
from spine_async._engine.start.request import prepared_params
from spine_async._engine.start.run_scope import new_pending, new_scope, scope_or_end
from spine_async._engine.start.stored_run import (
    definition_of,
    early_outcome,
    first_event,
    has_begun,
    is_incomplete,
    is_parked,
    is_poisoned,
    poison_outcome,
    with_definition,
)
from spine_async._engine.state.marker_row import RESUME_MARK
from spine_async._engine.state.outcome import Outcome
from spine_async._engine.state.pending_writes import PendingWrites
from spine_async._engine.state.position import Position
from spine_async._engine.state.scope import Scope
from spine_async._engine.state.wall_clock import RunClock
from spine_async._model.context_access import with_documents
from spine_async._model.due import DueRun
from spine_async._model.failure import ErrorCategory, storable_text
from spine_async._model.run_change import Release
from spine_async._model.run_row import DueTime, StoredRun
from spine_async._model.status import RunStatus
from spine_async._model.workflow import Workflow
from spine_async._model.workflow_result import WorkflowResult
from spine_async.errors import CorruptRecordError, InvalidParamsError, SerializationError, WorkflowChangedError

_RETRY_AFTER = 1.0  # seconds

_log = logging.getLogger("spine_async")


async def open_due_run(runtime: Runtime, workflow: Workflow, due: DueRun) -> Scope | WorkflowResult | None:
    """As `_open`; a run that cannot be opened is released, and is due again soon.

    Raises:
        StoreError: The run cannot be read, or the store failed.
    """
    try:
        return await _open(runtime, workflow, due)
    except Exception as exc:
        seconds = REFUSED_FOR if isinstance(exc, CorruptRecordError) else _RETRY_AFTER
        await _release(runtime, due, seconds)
        raise


async def _open(runtime: Runtime, workflow: Workflow, due: DueRun) -> Scope | WorkflowResult | None:
    """The scope of a claimed run, after its stored steps.

    Returns:
        The scope; the result of a run that is not executed any more: it was asked to stop, has expired, is a poison
        run, or has invalid params; None if the definition does not fit the run, which is released for a minute.
    """
    clock = RunClock(runtime.clock, due.run.updated_at)
    if due.due_in is not None and due.run.due_at is not None:
        clock.was_due(due.run.due_at, due.due_in)
    pending = new_pending(runtime, due.run, due.claim, clock)
    is_first = due.run.epoch == 0
    stored = replace(due.run, started_at=clock.now()) if is_first else due.run
    is_resumed = not is_first and not is_parked(stored)
    try:
        position = await load_position(runtime, workflow, stored, is_resumed=is_resumed)
    except WorkflowChangedError as exc:
        await _give_up(runtime, due, exc)
        return None
    if is_poisoned(runtime, stored):
        outcome: Outcome | None = poison_outcome(stored, position)
    else:
        outcome = early_outcome(stored, position, clock.now()) or _begin(runtime, workflow, stored, position, pending)
    scope = new_scope(workflow, stored, position, pending, is_resumed=is_resumed, is_claimed=True)
    return scope if outcome is None else await scope_or_end(runtime, scope, stored, position, outcome)


def _begin(
    runtime: Runtime, workflow: Workflow, stored: StoredRun, position: Position, pending: PendingWrites
) -> Outcome | None:
    """Add the event of the start or resume, and complete the params of a run that was enqueued without its workflow.

    Returns:
        The outcome of a run whose params do not fit its workflow, else None.
    """
    event = first_event(with_definition(stored, workflow), pending.clock.now())
    if is_incomplete(stored):
        pending.definition = definition_of(workflow)
        try:
            updates = prepared_params(runtime, workflow, stored.params)
        except (InvalidParamsError, SerializationError) as exc:
            return Outcome(RunStatus.FAILED, None, storable_text(str(exc)), ErrorCategory.CONFIGURATION)
        pending.add_marker(override_row(RESUME_MARK, pending.claim.epoch, updates, stored), event)
        position.context = with_documents(position.context, updates)
    elif stored.epoch > 0 and position.resumed_epoch == stored.epoch:
        return None  # it was made due again, with the event of the resume
    elif not has_begun(stored) or (stored.epoch > 0 and not is_parked(stored)):  # a fork has its event already
        pending.add_events(event)
    return None


async def _give_up(runtime: Runtime, due: DueRun, error: WorkflowChangedError) -> None:
    level = logging.DEBUG if due.run.run_id in runtime.refused else logging.WARNING
    runtime.refused.add(due.run.run_id)
    _log.log(level, "run %s is not executed here; it is tried again in %g s: %s", due.run.run_id, REFUSED_FOR, error)
    await _release(runtime, due, REFUSED_FOR)


async def _release(runtime: Runtime, due: DueRun, seconds: float) -> None:
    """Release a run that was not executed; it is due again after that time, also if it was asked to stop before."""
    status = due.run.status if due.run.status is RunStatus.WAITING else RunStatus.PENDING
    is_known = due.run.stop_requested is not None
    at = DueTime(runtime.clock.now() + timedelta(seconds=seconds), seconds)
    await give_up(runtime, due.claim, Release(status=status, due=at, ignores_stop=is_known))
