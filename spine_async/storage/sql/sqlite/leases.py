"""Creation, claims, lease renewals and stop requests as functions of a plain `sqlite3.Connection`.

Each function is called in a write transaction. It reads the clock itself, because the wait for the transaction may have
been long.
"""

# ruff: noqa: S608 (statements are built from constants of this package only)

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from spine_async._model.run_claim import Busy, Claim, NoRoom, Renewal
from spine_async._model.run_row import DueTime, NewRun
from spine_async.storage.boot_clock import BootTime, boot_time
from spine_async.storage.derived_events import started_event
from spine_async.storage.sql.driver.claim_rule import (
    LEASE_STATE_COLUMNS,
    Claimable,
    ClaimRequest,
    decide,
    lease_state,
)
from spine_async.storage.sql.schema.due_columns import HELD, due_columns, turn_at
from spine_async.storage.sql.schema.rows import (
    NEW_RUN_COLUMNS,
    escaped_text,
    event_values,
    iso_timestamp,
    new_run_values,
)
from spine_async.storage.sql.sqlite.changes import EVENTS, IS_HELD
from spine_async.storage.sql.sqlite.insert import Inserter, insert_statement
from spine_async.storage.sql.sqlite.jobs import fetch, in_savepoint
from spine_async.storage.sql.sqlite.queues import record_first_claims, room_of
from spine_async.storage.sql.sqlite.turns import Turns

UNDER_WAY = "status IN ('pending', 'running', 'waiting')"
NOT_DUE = "due_at = NULL, due_boot = NULL, due_seconds = NULL, ready = 0, turn = NULL"
CLAIMS_AFTER = (
    "CASE WHEN status IN ('completed', 'failed', 'stopped') THEN 1 "
    "WHEN owner IS NOT NULL AND status = 'running' THEN claims_since_progress + 1 ELSE claims_since_progress END"
)
"""Value of `claims_since_progress` after a claim. A run without an owner, or one that waits, did not kill its owner."""

_COLUMNS = (*NEW_RUN_COLUMNS, "lease_boot", "leased_until")
_UNLESS_STORED = "ON CONFLICT (run_id) DO NOTHING"
_INSERT_RUN = insert_statement("core_workflow_runs", _COLUMNS, f"{_UNLESS_STORED} RETURNING id")
_RUNS_WITH_KEY = Inserter("core_workflow_runs", (*_COLUMNS, "id"), _UNLESS_STORED)
_LAST_KEY = (
    "SELECT max(COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'core_workflow_runs'), 0), "
    "COALESCE((SELECT max(id) FROM core_workflow_runs), 0))"
)
_CREATED_EARLIER = "SELECT id FROM core_workflow_runs WHERE run_id = ? AND commit_id = ?"
_LEASE_STATE = (
    f"SELECT {', '.join(LEASE_STATE_COLUMNS)}, COALESCE(lease_boot = ? AND leased_until > ?, 0), leased_until "
    "FROM core_workflow_runs WHERE run_id = ?"
)
_SLOT = "SELECT queue_key, owner, owner IS NOT NULL AND NOT ready, epoch = 0 FROM core_workflow_runs WHERE run_id = ?"
_CLAIM = (
    "UPDATE core_workflow_runs SET epoch = epoch + 1, owner = ?, lease_boot = ?, leased_until = ?, commit_id = ?, "
    "started_at = CASE epoch WHEN 0 THEN ? ELSE started_at END, "
    "next_seq = next_seq + ?, updated_at = ?, claims_since_progress = "
    f"{CLAIMS_AFTER}, status = 'running', {NOT_DUE}, stop_requested = NULL, completed_at = NULL, error_step = NULL, "
    "error = NULL, error_category = NULL, stop_reason = NULL WHERE run_id = ? RETURNING id, epoch, next_seq"
)
_RENEW = (
    "UPDATE core_workflow_runs SET lease_boot = ?, leased_until = ?, ready = 0 "
    f"WHERE id = ? AND epoch = ? AND {IS_HELD} RETURNING stop_requested"
)
_EXPIRE = (
    "UPDATE core_workflow_runs SET owner = NULL, lease_boot = NULL, leased_until = NULL, due_at = ?, ready = 1, "
    f"turn = ? WHERE id = ? AND epoch = ? AND {IS_HELD} RETURNING stop_requested"
)
_REQUEST_STOP = f"UPDATE core_workflow_runs SET stop_requested = ? WHERE run_id = ? AND {UNDER_WAY}"


def create(connection: sqlite3.Connection, runs: Sequence[NewRun]) -> list[Claim | None]:
    """Store new runs; returns None for an id that exists, unless an earlier attempt of this creation stored it."""
    now, turns, seen = boot_time(), Turns(connection), set[str]()
    claims: list[Claim | None] = []
    if len(runs) > 1:
        first_key = int(str(fetch(connection, _LAST_KEY)[0][0])) + 1
        # Nearly always all ids are new, and two calls for all runs take half the time of two calls per run.
        if in_savepoint(connection, lambda: _create_all(connection, runs, first_key, now, turns)):
            return [_first_claim(run, key) for key, run in enumerate(runs, first_key)]
    for run in runs:
        claims.append(_create(connection, run, now, turns) if run.run_id not in seen else None)
        seen.add(run.run_id)
    return claims


def claim(connection: sqlite3.Connection, request: ClaimRequest) -> Claim | Busy | NoRoom | None:
    """Claim the run if `claim_rule` and the limits of its queue allow it."""
    now = boot_time()
    rows = fetch(connection, _LEASE_STATE, (now.boot, now.seconds, request.run_id))
    state = lease_state(rows[0][:-1], lease_until=_timestamp(rows[0][-1], now)) if rows else None
    decision = decide(request, state)
    if not isinstance(decision, Claimable):
        return decision
    if request.limits is not None:
        queue_key, owner, is_held, is_new = fetch(connection, _SLOT, (request.run_id,))[0]
        key = None if queue_key is None else str(queue_key)
        besides = (key, owner == request.owner) if is_held else None
        room = room_of(connection, request.limits, request.owner, now, besides=besides)
        if not room.take(key, is_new=bool(is_new)):
            return NoRoom(room.room_in)
        record_first_claims(connection, request.limits, int(bool(is_new)), now)
    return _write_claim(connection, request, now)


def renew(connection: sqlite3.Connection, claims: Sequence[Claim], ttl: float) -> list[Renewal]:
    """Extend the leases of the claims that are still current; if `ttl` is 0, release their runs."""
    now = boot_time()
    if ttl == 0:
        at = datetime.now(UTC)
        statement, values = _EXPIRE, (iso_timestamp(at), turn_at(at, was_started=True))
    else:
        statement, values = _RENEW, (now.boot, now.seconds + ttl)
    renewed = [fetch(connection, statement, (*values, each.key, each.epoch)) for each in claims]
    return [Renewal(is_held=bool(rows), stop_reason=_text(rows[0][0]) if rows else None) for rows in renewed]


def request_stop(connection: sqlite3.Connection, run_id: str, reason: str) -> bool:
    """Store a stop request for the run's owner."""
    return connection.execute(_REQUEST_STOP, (escaped_text(reason), run_id)).rowcount == 1


def _create_all(
    connection: sqlite3.Connection, runs: Sequence[NewRun], first_key: int, now: BootTime, turns: Turns
) -> bool:
    """Store all runs with consecutive keys; whether all ids were new."""
    rows = [(*_values(run, now, turns), key) for key, run in enumerate(runs, first_key)]
    if _RUNS_WITH_KEY.insert(connection, rows) != len(rows):
        return False
    events = ((key, started_event(run)) for key, run in enumerate(runs, first_key) if run.next_seq > 1)
    EVENTS.insert(connection, [event_values(key, event, iso_timestamp) for key, event in events])
    return True


def _create(connection: sqlite3.Connection, run: NewRun, now: BootTime, turns: Turns) -> Claim | None:
    inserted = fetch(connection, _INSERT_RUN, _values(run, now, turns))
    rows = inserted or fetch(connection, _CREATED_EARLIER, (run.run_id, run.commit_id))
    if not rows:
        return None
    key = int(str(rows[0][0]))
    if inserted and run.next_seq > 1:
        EVENTS.insert(connection, [event_values(key, started_event(run), iso_timestamp)])
    return _first_claim(run, key)


def _values(run: NewRun, now: BootTime, turns: Turns) -> tuple[object, ...]:
    if run.is_held:
        return (*new_run_values(run, iso_timestamp, int, HELD), now.boot, now.seconds + run.lease_ttl)
    due = run.due or DueTime(run.created_at, 0.0)
    columns = due_columns(due, datetime.now(UTC), now.boot, now.seconds, was_started=False)
    if run.queue_key is not None and columns.is_ready and columns.turn is not None:
        columns = replace(columns, turn=turns.take(run.queue, run.queue_key, run.priority, columns.turn))
    return (*new_run_values(run, iso_timestamp, int, columns), None, None)


def _first_claim(run: NewRun, key: int) -> Claim:
    return Claim(run_id=run.run_id, key=key, epoch=int(run.is_held), next_seq=run.next_seq)


def _write_claim(connection: sqlite3.Connection, request: ClaimRequest, now: BootTime) -> Claim:
    lease = (request.owner, now.boot, now.seconds + request.ttl, request.token)
    at = iso_timestamp(request.at)
    update = (at, request.event is not None, at, request.run_id)
    key, epoch, next_seq = (int(str(value)) for value in fetch(connection, _CLAIM, (*lease, *update))[0])
    if request.event is not None:
        values = event_values(key, request.event, iso_timestamp)
        EVENTS.insert(connection, [(values[0], next_seq - 1, *values[2:])])
    return Claim(run_id=request.run_id, key=key, epoch=epoch, next_seq=next_seq)


def _timestamp(seconds: object, now: BootTime) -> datetime | None:
    """A reading of the boot clock as a timestamp, or None if there is none."""
    if not isinstance(seconds, float):
        return None
    try:
        return datetime.now(UTC) + timedelta(seconds=seconds - now.seconds)
    except (OverflowError, ValueError):  # the value was not written by this library
        return None


def _text(value: object) -> str | None:
    return None if value is None else str(value)
