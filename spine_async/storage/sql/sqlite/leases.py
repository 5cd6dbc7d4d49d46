"""How runs of a SQLite database come to an owner and stay with it, as functions of a plain `sqlite3.Connection`.

Each is called within a write transaction. The clock is read in there, since getting in may have taken a while.
"""

# ruff: noqa: S608 (texts are put together from names in this package only)

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from spine_async._model.record import Busy, Claim, NewRun, Renewal
from spine_async.storage.derived_events import started_event
from spine_async.storage.sql.driver.claim_rule import HOLDING_COLUMNS, ClaimRequest, Free, holding, judge
from spine_async.storage.sql.schema.rows import NEW_RUN_COLUMNS, event_values, iso_moment, new_run_values, storable
from spine_async.storage.sql.sqlite.boot_clock import BootTime, boot_time
from spine_async.storage.sql.sqlite.insert import Insertion, insertion
from spine_async.storage.sql.sqlite.jobs import EVENTS, fetch, together

_COLUMNS = (*NEW_RUN_COLUMNS, "lease_boot", "lease_until")
_UNLESS_TAKEN = "ON CONFLICT (run_id) DO NOTHING"
_INSERT_RUN = insertion("core_workflow_runs", _COLUMNS, f"{_UNLESS_TAKEN} RETURNING id")
_RUNS_WITH_KEY = Insertion("core_workflow_runs", (*_COLUMNS, "id"), _UNLESS_TAKEN)
_LAST_KEY = (
    "SELECT max(COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'core_workflow_runs'), 0), "
    "COALESCE((SELECT max(id) FROM core_workflow_runs), 0))"
)
_MADE_BEFORE = "SELECT id FROM core_workflow_runs WHERE run_id = ? AND commit_id = ?"
_HOLDING = (
    f"SELECT {', '.join(HOLDING_COLUMNS)}, COALESCE(lease_boot = ? AND lease_until > ?, 0), lease_until "
    "FROM core_workflow_runs WHERE run_id = ?"
)
_CLAIM = (
    "UPDATE core_workflow_runs SET epoch = epoch + 1, owner = ?, lease_boot = ?, lease_until = ?, commit_id = ?, "
    "next_seq = next_seq + ?, updated_at = ?, claims_since_progress = "
    "CASE WHEN status IN ('running', 'waiting') THEN claims_since_progress + 1 ELSE 1 END, status = 'running', "
    "stop_requested = NULL, completed_at = NULL, error_step = NULL, error = NULL, error_category = NULL, "
    "stop_reason = NULL WHERE run_id = ? RETURNING id, epoch, next_seq"
)
_RENEW = (
    "UPDATE core_workflow_runs SET lease_boot = ?, lease_until = ? "
    "WHERE id = ? AND epoch = ? AND status IN ('running', 'waiting') RETURNING stop_requested"
)
_REQUEST_STOP = "UPDATE core_workflow_runs SET stop_requested = ? WHERE run_id = ? AND status IN ('running', 'waiting')"


def create(connection: sqlite3.Connection, runs: Sequence[NewRun]) -> list[Claim | None]:
    """Store new runs; None for each whose id is taken, unless the same creation has taken it before this call."""
    now, seen = boot_time(), set[str]()
    claims: list[Claim | None] = []
    if len(runs) > 1:
        first = int(str(fetch(connection, _LAST_KEY)[0][0])) + 1
        # Nearly always no id is taken, and two calls for all take half the time of two for each.
        if together(connection, lambda: _create_all(connection, runs, first, now)):
            return [_claim_of(run, key) for key, run in enumerate(runs, first)]
    for run in runs:
        claims.append(_create(connection, run, now) if run.run_id not in seen else None)
        seen.add(run.run_id)
    return claims


def claim(connection: sqlite3.Connection, asked: ClaimRequest) -> Claim | Busy | None:
    """Take the run over, where it may be."""
    now = boot_time()
    found = fetch(connection, _HOLDING, (now.boot, now.seconds, asked.run_id))
    held = holding(found[0][:-1], lease_until=_moment_of(found[0][-1], now)) if found else None
    verdict = judge(asked, held)
    return _take(connection, asked, now) if isinstance(verdict, Free) else verdict


def renew(connection: sqlite3.Connection, claims: Sequence[Claim], ttl: float) -> list[Renewal]:
    """Extend the leases of those that are still held."""
    now = boot_time()
    found = [fetch(connection, _RENEW, (now.boot, now.seconds + ttl, each.key, each.epoch)) for each in claims]
    return [Renewal(bool(rows), _text(rows[0][0]) if rows else None) for rows in found]


def request_stop(connection: sqlite3.Connection, run_id: str, reason: str) -> bool:
    """Leave word for the owner."""
    return connection.execute(_REQUEST_STOP, (storable(reason), run_id)).rowcount == 1


def _create_all(connection: sqlite3.Connection, runs: Sequence[NewRun], first: int, now: BootTime) -> bool:
    """Store all the runs, with keys counted from `first`; whether no id was taken."""
    rows = [(*_values(run, now), key) for key, run in enumerate(runs, first)]
    if _RUNS_WITH_KEY.insert(connection, rows) != len(rows):
        return False
    told = ((key, started_event(run)) for key, run in enumerate(runs, first) if run.records_events)
    EVENTS.insert(connection, [event_values(key, event, iso_moment) for key, event in told])
    return True


def _values(run: NewRun, now: BootTime) -> tuple[object, ...]:
    return (*new_run_values(run, iso_moment), now.boot, now.seconds + run.lease_ttl)


def _claim_of(run: NewRun, key: int) -> Claim:
    return Claim(run.run_id, key, epoch=1, next_seq=2 if run.records_events else 1)


def _create(connection: sqlite3.Connection, run: NewRun, now: BootTime) -> Claim | None:
    made = fetch(connection, _INSERT_RUN, _values(run, now))
    before = [] if made else fetch(connection, _MADE_BEFORE, (run.run_id, run.commit_id))
    if not made and not before:
        return None
    key = int(str((made or before)[0][0]))
    if made and run.records_events:
        EVENTS.insert(connection, [event_values(key, started_event(run), iso_moment)])
    return _claim_of(run, key)


def _take(connection: sqlite3.Connection, asked: ClaimRequest, now: BootTime) -> Claim:
    lease = (asked.owner, now.boot, now.seconds + asked.ttl, asked.token)
    taken = fetch(connection, _CLAIM, (*lease, asked.event is not None, iso_moment(asked.at), asked.run_id))
    key, epoch, next_seq = (int(str(value)) for value in taken[0])
    if asked.event is not None:
        values = event_values(key, asked.event, iso_moment)
        EVENTS.insert(connection, [(values[0], next_seq - 1, *values[2:])])
    return Claim(asked.run_id, key, epoch, next_seq)


def _moment_of(seconds: object, now: BootTime) -> datetime | None:
    """The boot clock's reading as a moment, or None where there is none."""
    if not isinstance(seconds, float):
        return None
    try:
        return datetime.now(UTC) + timedelta(seconds=seconds - now.seconds)
    except (OverflowError, ValueError):  # no lease of ours lasts so long
        return None


def _text(value: object) -> str | None:
    return None if value is None else str(value)
