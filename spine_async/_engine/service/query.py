"""Operations on stored runs: reading runs and events, deleting runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import replace

from spine_async._engine.runtime.changes import Change
from spine_async._engine.runtime.plain_reads import count_runs
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.service.stop import child_ids
from spine_async._engine.start.ended_run import load_plain_result
from spine_async._engine.start.stored_run import load
from spine_async._engine.tasks import run_shielded
from spine_async._model.corruption_guard import CorruptionGuard
from spine_async._model.document import split_values
from spine_async._model.due import NewMessage
from spine_async._model.history import Event, RunRecord
from spine_async._model.large_text import LARGE_TEXT
from spine_async._model.naming import check_run_id
from spine_async._model.run_change import ended_message
from spine_async._model.run_filter import RunCursor, RunFilter
from spine_async._model.run_row import StoredRun
from spine_async._model.status import RunStatus
from spine_async._model.visit_row import EventRow
from spine_async.errors import CorruptRecordError, RunConflictError, RunNotFoundError
from spine_async.ports import DeleteIf

_PAGE = 500


async def run_record(runtime: Runtime, run_id: str, *, with_outputs: bool = True) -> RunRecord:
    """One stored run, with the outputs of a completed one unless they are not wanted.

    Raises:
        RunNotFoundError: The run is not stored.
    """
    stored = await load(runtime, run_id)
    with CorruptionGuard(run_id):
        is_large = len(stored.params) > LARGE_TEXT
        record = await runtime.run_on_thread(_as_record, stored) if is_large else _as_record(stored)
    if stored.status is not RunStatus.COMPLETED or not with_outputs:
        return record
    outputs = (await load_plain_result(runtime, stored)).context.outputs
    return replace(record, outputs=outputs)


async def run_records(runtime: Runtime, chosen: RunFilter) -> list[RunRecord]:
    """Stored runs that match the filter, in the order of the listing."""
    records = []
    for stored in await runtime.store.runs(chosen):
        with CorruptionGuard(stored.run_id):
            records.append(_as_record(stored))
    return records


async def run_counts(runtime: Runtime, chosen: RunFilter) -> dict[RunStatus, int]:
    """How many runs match the filter, for each status; the counting of a status stops at the limit."""
    found = await count_runs(runtime.store, chosen)
    return {status: found.get(status, 0) for status in RunStatus}


async def events(runtime: Runtime, run_id: str, after: int) -> AsyncGenerator[Event, None]:
    """The run's events with a number above `after`, in order."""
    await load(runtime, run_id)
    last = max(after, 0)
    while page := await runtime.store.events(run_id, last, _PAGE):
        for row in page:
            yield as_event(run_id, row)
        last = page[-1].seq


def as_event(run_id: str, row: EventRow) -> Event:
    """An event as users receive it, with values of its own."""
    with CorruptionGuard(run_id):
        metadata = split_values(row.metadata)
    return Event(run_id, row.seq, row.event_type, row.step_name, row.path, row.timestamp, metadata)


async def delete(runtime: Runtime, run_id: str, *, force: bool) -> None:
    """Remove a run, with the runs that its steps have started.

    If a step of another run waits for its end, that step fails.

    Raises:
        RunNotFoundError: The run is not stored.
        RunConflictError: It or one of its children has not ended, and `force` is not given.
    """
    check_run_id(run_id)
    found = None
    if force:
        with suppress(CorruptRecordError):
            found = await runtime.store.load(run_id)
    await run_shielded(_delete(runtime, run_id, force=force, found=found), "spine_async delete")


async def _delete(runtime: Runtime, run_id: str, *, force: bool, found: StoredRun | None) -> None:
    await _delete_with_children(runtime, run_id, force=force)
    if found is None or found.status.is_final or found.parent_run_id is None:
        return
    message = NewMessage(
        run_id=found.parent_run_id, name=ended_message(run_id), value="null", received_at=runtime.clock.now()
    )
    await runtime.due_runs.send(message)
    runtime.changes.notify(*Change)


async def _delete_with_children(runtime: Runtime, run_id: str, *, force: bool) -> None:
    children = await child_ids(runtime, run_id, is_under_way=False)
    if children and not force and not (await load(runtime, run_id)).status.is_final:
        children = []  # the deletion of the run itself is refused
    for child in children:
        with suppress(RunNotFoundError):
            await _delete_with_children(runtime, child, force=force)
    condition = DeleteIf.STORED if force else DeleteIf.ENDED
    if await runtime.store.delete([run_id], condition):
        return
    stored = await load(runtime, run_id)
    state = stored.status if not stored.status.is_final else "in use by another call"
    message = f"run {run_id!r} is {state} and cannot be deleted; wait until it has ended, stop() it, or pass force=True"
    raise RunConflictError(run_id, message)


def _as_record(stored: StoredRun) -> RunRecord:
    return RunRecord(
        run_id=stored.run_id,
        workflow_name=stored.workflow_name,
        workflow_version=stored.workflow_version,
        status=RunStatus(stored.status),
        params=split_values(stored.params) if stored.params else None,
        partition=split_values(stored.partition) if stored.partition is not None else None,
        total_steps=stored.total_steps,
        error_step=stored.error_step,
        error=stored.error,
        error_category=stored.error_category,
        stop_reason=stored.stop_reason,
        created_at=stored.created_at,
        started_at=stored.started_at,
        updated_at=stored.updated_at,
        completed_at=stored.completed_at,
        queue=stored.queue or None,
        key=stored.queue_key,
        priority=stored.priority,
        due_at=stored.due_at,
        parent_run_id=stored.parent_run_id,
        forked_from=stored.forked_from,
        owner=stored.owner,
        last_seq=stored.next_seq - 1,
        cursor=str(RunCursor(stored.created_at, stored.key)),
    )
