"""A step that awaits another run: it keeps nothing that the other run needs, or its wait is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from spine_async._engine.runtime.changes import Change
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.service.active_runs import ActiveRuns
from spine_async._engine.state.scope import Visit
from spine_async._engine.tasks import current_task, run_shielded
from spine_async.errors import QueueDeadlockError, RunBusyError


@asynccontextmanager
async def giving_way(runtime: Runtime, active_runs: ActiveRuns, visit: Visit, run_id: str) -> AsyncIterator[None]:
    """Inside, the step of a visit, which awaits another run, uses neither its slot nor the worker's capacity.

    Raises:
        RunBusyError: The step awaits its own run.
        QueueDeadlockError: The awaited run may need the slot of the queue that the run of the step holds.
    """
    if visit.run.run_id == run_id:
        raise RunBusyError(run_id, runtime.owner)
    await check_own_queue(runtime, run_id)
    execution, slot = active_runs.find(visit.run.run_id), visit.slot
    if slot is not None:
        slot.release()
    if execution is not None:
        execution.awaiting_steps += 1
        runtime.changes.notify(Change.WORK)
    try:
        yield
    finally:
        if execution is not None:
            execution.awaiting_steps -= 1
        if slot is not None:
            await slot.acquire()


async def check_own_queue(runtime: Runtime, run_id: str) -> None:
    """Refuse to let a step wait for a run for which its own run may leave no room in their queue.

    Raises:
        QueueDeadlockError: Both runs belong to a queue that limits how many runs are held.
    """
    visit = runtime.running_visits.get(current_task())
    limits = runtime.limits_of(visit.run.queue) if visit is not None else None
    if visit is None or limits is None or not limits.limits_held:
        return
    awaited = await run_shielded(runtime.store.load(run_id), "spine_async load")
    if awaited is None or awaited.status.is_final or awaited.queue != limits.name:
        return
    only_by_key = limits.concurrency is None and limits.per_process is None
    if not only_by_key or (awaited.queue_key is not None and awaited.queue_key == visit.run.queue_key):
        raise QueueDeadlockError(run_id, limits.name)
