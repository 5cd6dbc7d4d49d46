"""Reads the progress that an earlier execution of a run stored for a visit."""

from __future__ import annotations

from spine_async._engine.runtime.plain_reads import last_event
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.interrupts import CommitFailed
from spine_async._engine.state.progress_report import ProgressReport, read_progress
from spine_async._engine.state.scope import Visit
from spine_async._engine.tasks import run_shielded
from spine_async._model.corruption_guard import CorruptionGuard
from spine_async._model.status import EventType
from spine_async.errors import SharingError, StoreError


async def load_progress(runtime: Runtime, visit: Visit) -> None:
    """Set the last progress of a visit that has stored some.

    Raises:
        CommitFailed: The store failed, or belongs to another event loop or process.
    """
    run_id = visit.run.run_id
    try:
        asked = last_event(runtime.store, run_id, EventType.STEP_PROGRESS, visit.path)
        event = await run_shielded(asked, "spine_async load progress")
        if event is not None:
            with CorruptionGuard(run_id):
                value = read_progress(event.metadata)
            visit.report = ProgressReport(value, stored=value)
    except (StoreError, SharingError) as exc:
        raise CommitFailed(exc) from None
