"""Opens a run for execution: creates it, or continues the stored one."""

from __future__ import annotations

from anyio import to_thread

from spine_async._engine.commit.creation import Creation
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.start.claim import NotClaimable, is_spared
from spine_async._engine.start.continuation import claim_and_replay
from spine_async._engine.start.ended_run import load_result
from spine_async._engine.start.owner import is_gone
from spine_async._engine.start.replay import first_position
from spine_async._engine.start.request import Request, prepare_run
from spine_async._engine.start.run_scope import new_pending, new_scope
from spine_async._engine.start.stored_run import check_same, is_due, load
from spine_async._engine.state.interrupts import RAISING_ERRORS
from spine_async._engine.state.scope import Scope
from spine_async._engine.state.wall_clock import RunClock
from spine_async._engine.tasks import CANCELLATION, run_shielded
from spine_async._model.large_text import LARGE_TEXT
from spine_async._model.run_change import Release
from spine_async._model.run_claim import Claim
from spine_async._model.run_row import DueTime, NewRun, StoredRun
from spine_async._model.workflow import Workflow
from spine_async._model.workflow_result import WorkflowResult
from spine_async.errors import RunBusyError, RunNotResumableError, WorkflowChangedError
from spine_async.ports import RunSpan


async def start_or_load(runtime: Runtime, request: Request) -> Scope | WorkflowResult:
    """Create the run and return its scope. If its id is already stored, return the scope or the result of that run.

    Raises:
        DefinitionError: The workflow has no name, or does not have the step to start from.
        InvalidParamsError: The params do not fit.
        SerializationError: A param has no strict JSON form.
        RunConflictError: The id belongs to a run of another workflow or with other params.
        NotClaimable: The run is held by another owner, is not due yet, or its queue has no room.

    Cancellation:
        A run that was created is released.
    """
    new = await prepare_run(runtime, request)
    # It begins here, so that it is stored with the run. If the run is not created, its context is never entered.
    span = runtime.observer.run(new.run_id, new.workflow_name, is_resumed=False)
    new.traceparent = span.traceparent
    creation = Creation(new)
    try:
        with RAISING_ERRORS:
            await runtime.journal.create(creation)
    except CANCELLATION:
        if creation.claim is not None:
            await _give_up_unopened(runtime, creation.claim)
        raise
    if creation.claim is None:
        return await _load_existing(runtime, request.workflow, creation.run)
    created = creation.run, creation.claim, span
    if creation.run.size <= LARGE_TEXT:
        return _created_scope(runtime, request.workflow, *created)
    return await runtime.run_on_thread(_created_scope, runtime, request.workflow, *created)


async def _give_up_unopened(runtime: Runtime, claim: Claim) -> None:
    """Release a run that nobody will execute, because the event loop is shutting down."""
    release = Release(due=DueTime(runtime.clock.now(), 0.0))
    await run_shielded(runtime.due_runs.release_run(claim, release), "spine_async release")


def _created_scope(runtime: Runtime, workflow: Workflow, new: NewRun, claim: Claim, span: RunSpan) -> Scope:
    stored = StoredRun.from_new(new)
    pending = new_pending(runtime, stored, claim, RunClock(runtime.clock, stored.started_at))
    position = first_position(runtime, workflow, stored, is_resumed=False)
    scope = new_scope(workflow, stored, position, pending, is_resumed=False)
    scope.run.span = span
    return scope


async def _load_existing(runtime: Runtime, workflow: Workflow, new: NewRun) -> Scope | WorkflowResult:
    stored = await load(runtime, new.run_id)
    check_same(new, stored)
    return await open_existing(runtime, workflow, stored)


async def open_existing(runtime: Runtime, workflow: Workflow, stored: StoredRun) -> Scope | WorkflowResult:
    """The scope of a stored run that is claimed, or the result of one that has ended.

    Raises:
        NotClaimable: Another owner holds it, it is not due yet, or its queue has no room.
        WorkflowChangedError: It may be claimed, and the definition does not fit its finished steps.
    """
    while not stored.status.is_final:
        if stored.workflow_version > workflow.version:  # a process with the newer definition executes it
            raise NotClaimable(stored.run_id)
        if stored.owner is None and not is_due(stored, runtime.clock.now()):
            raise NotClaimable(stored.run_id)
        try:
            return await claim_and_replay(runtime, workflow, stored, is_joining=True)
        except RunBusyError:
            raise NotClaimable(stored.run_id) from None
        except RunNotResumableError:  # it has ended since it was loaded
            stored = await load(runtime, stored.run_id)
        except WorkflowChangedError:
            stored = await load(runtime, stored.run_id)
            if stored.status.is_final:
                continue
            if await _is_held(runtime, stored):  # by a process whose definition fits
                raise NotClaimable(stored.run_id) from None
            raise
    return await load_result(runtime, workflow, stored)


async def _is_held(runtime: Runtime, stored: StoredRun) -> bool:
    """Whether an owner executes the run, or may still renew its lease."""
    if stored.owner is None:
        return False
    if stored.is_leased:
        return not await to_thread.run_sync(is_gone, stored.owner)
    return await is_spared(runtime, stored, spares_living=True)
