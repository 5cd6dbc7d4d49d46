"""Copies of a parked run, written through the store in groups: a tenth of the time that parking each run takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

from spine_async._model.run_change import Release, RunChange
from spine_async._model.run_claim import Claim
from spine_async._model.run_row import NewRun, StoredRun
from spine_async._model.status import RunStatus
from spine_async._model.visit_row import EventRow
from spine_async.ports import CommitOutcome, RunStore

_GROUP = 500
_OWNER = "benchmark"


async def copy_parked(store: RunStore, run_id: str, count: int) -> list[str]:
    """Store copies of a parked run; returns their ids."""
    run = await store.load(run_id)
    if run is None:
        raise ValueError(f"run {run_id} is not stored")
    events = await store.events(run_id, 1, 100)  # all after `workflow_started`, which the creation stores
    ids = [str(uuid4()) for _ in range(count)]
    for first in range(0, count, _GROUP):
        await _copy(store, run, events, ids[first : first + _GROUP])
    return ids


async def _copy(store: RunStore, run: StoredRun, events: Sequence[EventRow], ids: Sequence[str]) -> None:
    claims = await store.create([_new(run, each) for each in ids])
    outcomes = await store.commit([_parking(run, events, claim) for claim in claims if claim is not None])
    if outcomes != [CommitOutcome.COMMITTED] * len(ids):
        raise ValueError("copies of a parked run were not stored")


def _new(run: StoredRun, run_id: str) -> NewRun:
    return NewRun(
        run_id=run_id,
        workflow_name=run.workflow_name,
        workflow_version=run.workflow_version,
        fingerprint=run.fingerprint,
        params=run.params,
        params_hash=run.params_hash,
        request_hash=run.request_hash,
        partition=run.partition,
        initial_outputs=run.initial_outputs,
        initial_quality=run.initial_quality,
        start_from=run.start_from,
        total_steps=run.total_steps,
        owner=_OWNER,
        created_at=datetime.now(UTC),
        queue=run.queue,
        started_by=run.started_by,
    )


def _parking(run: StoredRun, events: Sequence[EventRow], claim: Claim) -> RunChange:
    """The change with which an owner parks the run."""
    return RunChange(
        run_id=claim.run_id,
        key=claim.key,
        epoch=claim.epoch,
        expected_seq=claim.next_seq,
        next_seq=run.next_seq,
        commit_id="parked",
        visits=(),
        events=tuple(replace(each) for each in events),
        at=datetime.now(UTC),
        status=RunStatus.WAITING,
        release=Release(status=RunStatus.WAITING, awaits_messages=True),
    )
