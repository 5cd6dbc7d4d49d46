"""Queries: stored runs, checkpoints and events; deletion of runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.start.opening import load
from spine_async._engine.tasks import run_shielded
from spine_async._model.corruption_guard import CorruptionGuard
from spine_async._model.document import Document, JsonValue, split_object, split_values
from spine_async._model.history import Checkpoint, Event, RunRecord
from spine_async._model.naming import check_run_id
from spine_async._model.record import RunFilter, StoredRun, VisitRow
from spine_async._model.status import RunStatus, StepStatus
from spine_async.errors import RunConflictError

_PAGE = 500


async def run_record(runtime: Runtime, run_id: str) -> RunRecord:
    """One stored run.

    Raises:
        RunNotFoundError: There is none of this id.
    """
    stored = await load(runtime, run_id)
    with CorruptionGuard(run_id):
        return _as_record(stored)


async def run_records(runtime: Runtime, chosen: RunFilter) -> list[RunRecord]:
    """Stored runs that match the filter, newest first."""
    records = []
    for stored in await runtime.store.runs(chosen):
        with CorruptionGuard(stored.run_id):
            records.append(_as_record(stored))
    return records


async def checkpoints(runtime: Runtime, run_id: str) -> list[Checkpoint]:
    """The run's finished step visits outside of map items, in order, each with the context after it."""
    stored = await load(runtime, run_id)
    rows = await runtime.store.visits(run_id)
    with CorruptionGuard(run_id):
        return list(_checkpoints(stored, rows))


async def events(runtime: Runtime, run_id: str, after: int) -> AsyncIterator[Event]:
    """The run's events with a number above `after`, in order."""
    await load(runtime, run_id)
    last = after
    while page := await runtime.store.events(run_id, last, _PAGE):
        for row in page:
            with CorruptionGuard(run_id):
                metadata = split_values(row.metadata)
            yield Event(run_id, row.seq, row.event_type, row.step_name, row.path, row.timestamp, metadata)
        last = page[-1].seq


async def delete(runtime: Runtime, run_id: str, *, force: bool) -> None:
    """Remove a run.

    Raises:
        RunNotFoundError: There is none of this id.
        RunConflictError: It has not ended, and `force` is not given.
    """
    if await run_shielded(runtime.store.delete(check_run_id(run_id), only_ended=not force), "spine_async delete"):
        return
    stored = await load(runtime, run_id)
    state = stored.status if not stored.status.is_final else "in use by another call"
    message = f"run {run_id!r} is {state}, not ended; resume it to its end, or delete it with force=True"
    raise RunConflictError(run_id, message)


def _as_record(stored: StoredRun) -> RunRecord:
    return RunRecord(
        run_id=stored.run_id,
        workflow_name=stored.workflow_name,
        workflow_version=stored.workflow_version,
        status=RunStatus(stored.status),
        params=split_values(stored.params),
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
    )


def _checkpoints(stored: StoredRun, rows: Iterable[VisitRow]) -> Iterator[Checkpoint]:
    snapshot = _Snapshot(stored)
    for row in rows:
        snapshot.add(row)
        if row.status in (StepStatus.COMPLETED, StepStatus.SKIPPED):
            yield snapshot.checkpoint(row)


class _Snapshot:
    """The stored form of the context after each visit in turn."""

    def __init__(self, stored: StoredRun) -> None:
        self._stored = stored
        self._params = split_object(stored.params)
        self._outputs = split_object(stored.initial_outputs)
        self._quality = split_object(stored.initial_quality)

    def add(self, row: VisitRow) -> None:
        if row.status is StepStatus.WAITING:
            return
        if row.updates is not None:
            self._params.update(split_object(row.updates))
        if row.output is not None:
            self._outputs[row.step_name] = Document(row.output)
        if row.quality is not None:
            self._quality[row.step_name] = Document(row.quality)

    def checkpoint(self, row: VisitRow) -> Checkpoint:
        partition: JsonValue = None
        if self._stored.partition is not None:
            partition = Document(self._stored.partition).value()
        return Checkpoint(
            run_id=self._stored.run_id,
            workflow_name=self._stored.workflow_name,
            step_name=row.step_name,
            path=row.path,
            seq=row.seq,
            step_type=row.step_type,
            created_at=row.completed_at,
            context_snapshot={
                "params": _values(self._params),
                "outputs": _values(self._outputs),
                "quality": _values(self._quality),
                "partition": partition,
            },
        )


def _values(documents: dict[str, Document]) -> dict[str, JsonValue]:
    return {key: each.value() for key, each in documents.items()}
