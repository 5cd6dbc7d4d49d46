"""Creation, claims, lease renewals and stop requests as functions of an asyncpg connection.

Creations and claims store a random token. With this token a retry recognises the result of an earlier attempt.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

import asyncpg

from spine_async._model.run_claim import Busy, Claim, Renewal
from spine_async._model.run_row import DueTime, NewRun
from spine_async.errors import StoreUnavailableError
from spine_async.storage.boot_clock import BootTime
from spine_async.storage.derived_events import started_event
from spine_async.storage.sql.driver.claim_rule import Claimable, ClaimRequest, LeaseState, decide, lease_state
from spine_async.storage.sql.postgres import statements
from spine_async.storage.sql.postgres.clock import boot_now
from spine_async.storage.sql.schema.due_columns import HELD, DueColumns, due_columns
from spine_async.storage.sql.schema.rows import escaped_text, new_run_values, unchanged_timestamp

if TYPE_CHECKING:
    Driver: TypeAlias = asyncpg.Connection[asyncpg.Record]

_MAX_CLAIM_ATTEMPTS = 20


async def create(driver: Driver, runs: Sequence[NewRun], *, is_within: bool = False) -> list[Claim | None] | None:
    """Store new runs; None for a stored id, unless an earlier attempt of the same creation has stored it.

    Returns:
        None if an open transaction decides whether one of the ids is taken.
    """
    by_id = {run.run_id: run for run in reversed(runs)}  # of two runs with one id the first is stored
    # Ordered by id, so that two processes that create the same runs wait for each other in the same order.
    ordered = sorted(by_id.values(), key=lambda run: run.run_id)
    now = await boot_now() if any(not run.is_held for run in ordered) else None
    rows = [
        (*new_run_values(run, unchanged_timestamp, bool, _due(run, now)), run.lease_ttl, _started(run))
        for run in ordered
    ]
    try:
        created = await driver.fetch(_create_statement(ordered, is_within=is_within), rows)
    except asyncpg.LockNotAvailableError:
        return None
    keys: dict[str, int] = {record["run_id"]: record["id"] for record in created}
    if len(keys) < len(by_id):
        tokens = [run.commit_id for run in by_id.values()]
        earlier = await driver.fetch(statements.CREATED_EARLIER, list(by_id), tokens)
        keys.update((record["run_id"], record["id"]) for record in earlier)
    return [_first_claim(run, keys.pop(run.run_id, None)) for run in runs]


async def claim(driver: Driver, request: ClaimRequest) -> Claim | Busy | None:
    """Claim the run if `claim_rule` allows it.

    Raises:
        StoreUnavailableError: Other claims changed the run between each read and the following update.
    """
    for _ in range(_MAX_CLAIM_ATTEMPTS):
        decision = decide(request, await read_state(driver, request.run_id))
        if not isinstance(decision, Claimable):
            return decision
        claimed = await _write_claim(driver, request, decision)
        if claimed is not None:
            return claimed
    raise StoreUnavailableError(f"run {request.run_id!r} cannot be claimed: its owner keeps changing; try again")


async def read_state(driver: Driver, run_id: str) -> LeaseState | None:
    """What `claim_rule` needs to know of the run; None if it is not stored."""
    row = await driver.fetchrow(statements.LEASE_STATE, run_id)
    return lease_state(tuple(row)[:-1], lease_until=row["leased_until"]) if row is not None else None


async def renew(driver: Driver, claims: Sequence[Claim], ttl: float) -> list[Renewal]:
    """Extend the leases of the claims that are still current.

    Locked rows come last: after all others are renewed, the second statement waits for them for a short time. It does
    not see what the other transaction has committed meanwhile, a claim for example; the third statement does.
    """
    renewals = await _renew(driver, statements.RENEW_UNLOCKED, claims, ttl)
    for statement in (statements.RENEW, statements.RENEW_UNLOCKED):
        locked = [index for index, each in enumerate(renewals) if each.is_held and not each.is_extended]
        if not locked:
            break
        try:
            again = await _renew(driver, statement, [claims[index] for index in locked], ttl)
        except asyncpg.LockNotAvailableError:
            continue
        for index, renewal in zip(locked, again, strict=True):
            renewals[index] = renewal
    return renewals


async def request_stop(driver: Driver, run_id: str, reason: str) -> bool:
    """Store a stop request for the run's owner."""
    return await driver.fetchval(statements.REQUEST_STOP, run_id, escaped_text(reason)) is not None


async def _renew(driver: Driver, statement: str, claims: Sequence[Claim], ttl: float) -> list[Renewal]:
    keys, epochs = [each.key for each in claims], [each.epoch for each in claims]
    records = await driver.fetch(statement, keys, epochs, ttl)
    held = {
        (record["id"], record["epoch"]): Renewal(
            is_held=True, stop_reason=record["stop_requested"], is_extended=record["is_extended"]
        )
        for record in records
    }
    return [held.get((each.key, each.epoch)) or Renewal(is_held=False) for each in claims]


async def _write_claim(driver: Driver, request: ClaimRequest, seen: Claimable) -> Claim | None:
    """Claim the run; returns None if the run has changed since `seen` was read."""
    event = request.event
    columns = (None,) * 4 if event is None else (str(event.event_type), event.step_name, event.path, event.metadata)
    lease = (request.ttl, request.token, seen.epoch, request.over_epoch, seen.status)
    record = await driver.fetchrow(statements.CLAIM, request.run_id, request.owner, request.at, *columns, *lease)
    if record is None:
        return None
    return Claim(run_id=request.run_id, key=record["id"], epoch=record["epoch"], next_seq=record["next_seq"])


def _create_statement(runs: Sequence[NewRun], *, is_within: bool) -> str:
    if any(run.queue_key is not None and not run.is_held for run in runs):
        return statements.CREATE_WITH_TURNS_WITHIN if is_within else statements.CREATE_WITH_TURNS
    return statements.CREATE_WITHIN if is_within else statements.CREATE


def _due(run: NewRun, now: BootTime | None) -> DueColumns:
    if now is None or run.is_held:
        return HELD
    due = run.due or DueTime(run.created_at, 0.0)
    return due_columns(due, datetime.now(UTC), now.boot, now.seconds, was_started=False)


def _started(run: NewRun) -> str | None:
    return started_event(run).metadata if run.next_seq > 1 else None


def _first_claim(run: NewRun, key: int | None) -> Claim | None:
    if key is None:
        return None
    return Claim(run_id=run.run_id, key=key, epoch=int(run.is_held), next_seq=run.next_seq)
