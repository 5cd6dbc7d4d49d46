"""Builders of records for the tests of the contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import TypedDict, Unpack

from spine_async._model.run_change import RunChange, RunEnd
from spine_async._model.run_claim import Claim
from spine_async._model.run_row import NewRun, StoredRun
from spine_async._model.status import RunStatus, StepStatus, StepType
from spine_async._model.visit_row import EventRow, VisitRow
from spine_async.ports import CommitOutcome, RunStore

EPOCH_START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


class VisitValues(TypedDict, total=False):
    """Fields of a visit that a test may set, other than path and numbers."""

    status: StepStatus
    step_type: StepType
    attempts: int
    duration_ms: float
    output: str | None
    output_size: int
    updates: str | None
    item_params: str | None
    quality: str | None
    error: str | None
    error_category: str | None
    records_events: bool
    started_seq: int | None
    item_seq: int | None
    item_index: int | None
    ends_item: bool


def moment(seconds: float) -> datetime:
    """The time `seconds` after `EPOCH_START`."""
    return EPOCH_START + timedelta(seconds=seconds)


def new_run(
    run_id: str = "run-1", *, workflow: str = "orders", at: float = 0.0, records_events: bool = True, ttl: float = 60.0
) -> NewRun:
    """A run to create, owned by `worker-1`."""
    return NewRun(
        run_id=run_id,
        workflow_name=workflow,
        workflow_version=3,
        fingerprint="f" * 32,
        params='{"day":"2026-01-02","limit":5}',
        params_hash="h" * 32,
        partition='{"symbol":"IBM"}',
        initial_outputs='{"load":{"rows":1}}',
        initial_quality="{}",
        start_from=None,
        total_steps=4,
        owner="worker-1",
        created_at=moment(at),
        records_events=records_events,
        metadata='{"asked_by":"tests"}',
        lease_ttl=ttl,
    )


def visit(path: str, seq: int, **values: Unpack[VisitValues]) -> VisitRow:
    """A finished visit whose end event has the number `seq`; scope and step name are derived from the path."""
    scope, _, segment = path.rpartition("/")
    row = VisitRow(
        path=path,
        step_name=segment.partition("#")[0],
        step_type=StepType.LAMBDA,
        status=StepStatus.COMPLETED,
        attempts=1,
        started_at=moment(seq),
        duration_ms=250.5,
        output='{"ok":true}',
        output_size=11,
        updates=None,
        quality=None,
        item_params=None,
        scope=scope,
        completed_at=moment(seq + 0.25),
        seq=seq,
    )
    return replace(row, **values)


def event(event_type: str, seq: int, *, step: str | None = None, metadata: str = "{}") -> EventRow:
    """An event with a row of its own and the number `seq`."""
    return EventRow(event_type, step, moment(seq), metadata, path=step, seq=seq)


def change(
    claim: Claim,
    visits: Sequence[VisitRow] = (),
    events: Sequence[EventRow] = (),
    *,
    next_seq: int | None = None,
    status: RunStatus = RunStatus.RUNNING,
    end: RunEnd | None = None,
) -> RunChange:
    """A change under `claim`; `next_seq` is derived from its rows unless it is given."""
    commit_id = token_hex(6)
    numbers = [number for row in visits for number in (row.seq, row.item_seq) if number is not None]
    numbers += [each.seq for each in events]
    return RunChange(
        run_id=claim.run_id,
        key=claim.key,
        epoch=claim.epoch,
        expected_seq=claim.next_seq,
        next_seq=next_seq if next_seq is not None else max(numbers, default=claim.next_seq - 1) + 1,
        commit_id=commit_id,
        visits=tuple(replace(row, epoch=claim.epoch, commit_id=commit_id) for row in visits),
        events=tuple(events),
        at=moment(claim.next_seq),
        status=status,
        end=end,
    )


async def created(store: RunStore, run: NewRun | None = None) -> Claim:
    """Create a run and return its claim."""
    (claim,) = await store.create([run or new_run()])
    assert claim is not None, "a run with a new id was refused"
    return claim


async def committed(store: RunStore, made: RunChange) -> RunChange:
    """Commit one change, which must not be refused, and return it."""
    assert await store.commit([made]) == [CommitOutcome.COMMITTED]
    return made


async def filled(store: RunStore) -> None:
    """Create six runs, r0 the oldest; even ones of `orders`, odd ones of `prices`; r0 failed, r1 completed."""
    runs = [new_run(f"r{n}", workflow="prices" if n % 2 else "orders", at=n) for n in (3, 1, 5, 0, 2, 4)]
    claims = {claim.run_id: claim for claim in await store.create(runs) if claim}
    await committed(store, change(claims["r0"], end=RunEnd(RunStatus.FAILED, moment(60), "s", "e", "INTERNAL")))
    await committed(store, change(claims["r1"], end=RunEnd(RunStatus.COMPLETED, moment(61))))


async def loaded(store: RunStore, run_id: str = "run-1") -> StoredRun:
    """The stored run, which must exist."""
    run = await store.load(run_id)
    assert run is not None, f"run {run_id!r} is not stored"
    return run


async def taken_over(
    store: RunStore, run_id: str = "run-1", owner: str = "worker-2", event: EventRow | None = None
) -> Claim:
    """Claim the run for `owner`, as if its current owner were known to be dead."""
    epoch = (await loaded(store, run_id)).epoch
    claim = await store.claim(run_id, owner, event, ttl=60, over_epoch=epoch)
    assert isinstance(claim, Claim), f"run {run_id!r} could not be claimed over epoch {epoch}: {claim}"
    return claim


def moved(claim: Claim, made: RunChange) -> Claim:
    """The claim after the change is committed."""
    return replace(claim, next_seq=made.next_seq)
