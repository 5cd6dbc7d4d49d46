"""How runs of a PostgreSQL database come to an owner and stay with it, as functions of a driver's connection.

Those that make or take a run find what an earlier try of the same call left, by its mark.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import asyncpg

from spine_async._model.record import Busy, Claim, NewRun, Renewal
from spine_async.errors import StoreUnavailableError
from spine_async.storage.derived_events import started_event
from spine_async.storage.sql.driver.claim_rule import ClaimRequest, Free, holding, judge
from spine_async.storage.sql.postgres import statements
from spine_async.storage.sql.schema.rows import new_run_values, same_moment, storable

if TYPE_CHECKING:
    Driver: TypeAlias = asyncpg.Connection[asyncpg.Record]

_MOST_LOOKS = 20


async def create(driver: Driver, runs: Sequence[NewRun]) -> list[Claim | None]:
    """Store new runs; None for each whose id is taken, unless the same creation has taken it before this call."""
    first = {run.run_id: run for run in reversed(runs)}  # an id given twice is taken the second time
    rows = [(*new_run_values(run, same_moment), run.lease_ttl, _started(run)) for run in first.values()]
    made = await driver.fetch(statements.CREATE, rows)
    keys: dict[str, int] = {record["run_id"]: record["id"] for record in made}
    if len(keys) < len(first):
        marks = [run.commit_id for run in first.values()]
        before = await driver.fetch(statements.MADE_BEFORE, list(first), marks)
        keys.update((record["run_id"], record["id"]) for record in before)
    return [_claim(run, keys.pop(run.run_id, None)) for run in runs]


async def claim(driver: Driver, asked: ClaimRequest) -> Claim | Busy | None:
    """Take the run over, where it may be.

    Raises:
        StoreUnavailableError: It changed hands whenever it was looked at.
    """
    for _ in range(_MOST_LOOKS):
        row = await driver.fetchrow(statements.HOLDING, asked.run_id)
        held = holding(tuple(row)[:-1], lease_until=row["lease_until"]) if row is not None else None
        verdict = judge(asked, held)
        if not isinstance(verdict, Free):
            return verdict
        taken = await _take(driver, asked, verdict)
        if taken is not None:
            return taken
    raise StoreUnavailableError(f"run {asked.run_id!r} cannot be claimed: it changes hands all the time; try again")


async def renew(driver: Driver, claims: Sequence[Claim], ttl: float) -> list[Renewal]:
    """Extend the leases of those that are still held."""
    keys, epochs = [each.key for each in claims], [each.epoch for each in claims]
    records = await driver.fetch(statements.RENEW, keys, epochs, ttl)
    held = {(record["id"], record["epoch"]): record["stop_requested"] for record in records}
    return [Renewal((each.key, each.epoch) in held, held.get((each.key, each.epoch))) for each in claims]


async def request_stop(driver: Driver, run_id: str, reason: str) -> bool:
    """Leave word for the owner."""
    return await driver.fetchval(statements.REQUEST_STOP, run_id, storable(reason)) is not None


async def _take(driver: Driver, asked: ClaimRequest, free: Free) -> Claim | None:
    """The claim, or None where somebody else was faster."""
    event, told = asked.event, (None,) * 4
    if event is not None:
        told = (str(event.event_type), event.step_name, event.path, event.metadata)  # type: ignore[assignment]
    lease = (asked.ttl, asked.token, free.epoch, asked.over_epoch, free.status)
    taken = await driver.fetchrow(statements.CLAIM, asked.run_id, asked.owner, asked.at, *told, *lease)
    return Claim(asked.run_id, taken["id"], taken["epoch"], taken["next_seq"]) if taken is not None else None


def _started(run: NewRun) -> str | None:
    return started_event(run).metadata if run.records_events else None


def _claim(run: NewRun, key: int | None) -> Claim | None:
    return Claim(run.run_id, key, epoch=1, next_seq=2 if run.records_events else 1) if key is not None else None
