"""Makes a run that has failed or was stopped due again, so that a worker resumes it."""

from __future__ import annotations

from spine_async._engine.run.release import give_up
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.start.claim import claim_run
from spine_async._engine.start.continuation import commit_override, restarts
from spine_async._engine.start.replay import load_position
from spine_async._engine.start.run_scope import new_pending
from spine_async._engine.start.stored_run import first_event
from spine_async._engine.state.wall_clock import RunClock
from spine_async._model.fingerprint import has_unwinding
from spine_async._model.run_change import Release
from spine_async._model.run_claim import Claim
from spine_async._model.run_row import DueTime, StoredRun
from spine_async._model.workflow import Workflow
from spine_async.errors import StoreError


async def make_due_again(runtime: Runtime, workflow: Workflow, stored: StoredRun) -> None:
    """Make a run due that has failed or was stopped, as an explicit resume would continue it.

    Raises:
        RunBusyError: It is under way again.
        RunNotResumableError: It has completed, or its finished steps have been compensated.
        WorkflowChangedError: It has unwound, and the definition no longer fits its finished steps.
    """
    is_restart = has_unwinding(stored.fingerprint) and await _has_unwound(runtime, workflow, stored)
    claim = await claim_run(runtime, stored.run_id, None, unless_ended=False)
    try:
        await _store_resume(runtime, stored, claim, is_restart=is_restart)
    except StoreError:
        await give_up(runtime, claim, Release(due=DueTime(runtime.clock.now(), 0.0)))
        raise
    await give_up(runtime, claim, Release(due=DueTime(runtime.clock.now(), 0.0)))


async def _has_unwound(runtime: Runtime, workflow: Workflow, stored: StoredRun) -> bool:
    return restarts(stored, await load_position(runtime, workflow, stored, is_resumed=True))


async def _store_resume(runtime: Runtime, stored: StoredRun, claim: Claim, *, is_restart: bool) -> None:
    """Store the resume, so that the next owner does not take a crash for it, or repeat only the end of the run."""
    clock = RunClock(runtime.clock, stored.updated_at)
    pending = new_pending(runtime, stored, claim, clock)
    await commit_override(runtime, pending, {}, stored, first_event(stored, clock.now()), is_restart=is_restart)
