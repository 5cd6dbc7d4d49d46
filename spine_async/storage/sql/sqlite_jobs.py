"""What is done to a SQLite database, as functions of a plain `sqlite3.Connection`.

Each runs as a whole on the connection's own thread, so that no cancellation and no other user of the connection can
come between its statements.
"""

# ruff: noqa: S608 (texts are put together from names in this package only)

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from spine_async._model.record import Claim, EventRow, NewRun, RunChange
from spine_async.ports import CommitOutcome
from spine_async.storage.expansion import started_event
from spine_async.storage.sql.rows import (
    EVENT_COLUMNS,
    NEW_RUN_COLUMNS,
    VISIT_COLUMNS,
    Row,
    event_values,
    iso_moment,
    new_run_values,
    storable,
    visit_values,
)

ResultT = TypeVar("ResultT")
Pragmas = dict[str, object]

BUSY_SECONDS = 30.0


def _insert(table: str, columns: Sequence[str]) -> str:
    names, marks = ", ".join(f'"{name}"' for name in columns), ", ".join("?" * len(columns))
    return f"INSERT INTO {table} ({names}) VALUES ({marks})"


_INSERT_RUN = f"{_insert('core_workflow_runs', NEW_RUN_COLUMNS)} ON CONFLICT (run_id) DO NOTHING RETURNING id"
_INSERT_VISIT = _insert("core_workflow_steps", VISIT_COLUMNS)
_INSERT_EVENT = _insert("core_workflow_event_log", EVENT_COLUMNS)

_CLAIM = (
    "UPDATE core_workflow_runs SET epoch = epoch + 1, owner = ?, status = 'running', next_seq = next_seq + ?, "
    "updated_at = ?, claims_since_progress = claims_since_progress + 1, stop_requested = 0, completed_at = NULL, "
    "error_step = NULL, error = NULL, error_category = NULL, stop_reason = NULL "
    "WHERE run_id = ? AND status <> 'completed' RETURNING id, epoch, next_seq"
)
_IN_FORCE = "WHERE id = ? AND epoch = ? AND next_seq = ? AND status IN ('running', 'waiting')"
_ADVANCE = (
    "UPDATE core_workflow_runs SET next_seq = ?, updated_at = ?, commit_id = ?, claims_since_progress = 0, status = ? "
    f"{_IN_FORCE}"
)
_END = (
    "UPDATE core_workflow_runs SET next_seq = ?, updated_at = ?, commit_id = ?, claims_since_progress = 0, status = ?, "
    "completed_at = ?, error_step = ?, error = ?, error_category = ?, stop_reason = ?, owner = NULL, "
    f"lease_until = NULL {_IN_FORCE}"
)
# Children are removed by name: cascading needs a setting that belongs to whoever owns the connection.
_DELETIONS = tuple(
    f"DELETE FROM {table} WHERE run = (SELECT id FROM core_workflow_runs WHERE run_id = ?)"
    for table in ("core_workflow_steps", "core_workflow_event_log")
)


def in_transaction(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
    """Do the work in one write transaction, leaving the connection as it was found."""
    level = connection.isolation_level
    connection.isolation_level = None  # or sqlite3 begins a transaction of its own, which reads before it locks
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = work(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return result
    finally:
        connection.isolation_level = level


def fetch(connection: sqlite3.Connection, sql: str, values: Sequence[object] = ()) -> list[Row]:
    """The rows of one query."""
    cursor = connection.cursor()
    cursor.row_factory = None  # whoever owns the engine may have set one
    return cursor.execute(sql, values).fetchall()


def version(connection: sqlite3.Connection) -> int:
    """Schema version of the database; 0 where our tables are missing."""
    if not fetch(connection, "SELECT 1 FROM sqlite_master WHERE name = 'core_workflow_schema'"):
        return 0
    found = fetch(connection, "SELECT max(version) FROM core_workflow_schema")[0][0]
    return int(str(found or 0))


def prepare(connection: sqlite3.Connection) -> Pragmas:
    """Make the connection durable and patient; gives the settings it had."""
    before = {name: fetch(connection, f"PRAGMA {name}")[0][0] for name in ("busy_timeout", "synchronous")}
    connection.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
    _use_wal(connection)
    connection.execute("PRAGMA synchronous = FULL")
    return before


def restore(connection: sqlite3.Connection, before: Pragmas) -> None:
    """Give the connection back the settings it had."""
    for name, value in before.items():
        connection.execute(f"PRAGMA {name} = {value}")


def create(connection: sqlite3.Connection, runs: Iterable[NewRun]) -> list[Claim | None]:
    """Store new runs; None for each whose id is taken."""
    return [_create(connection, run) for run in runs]


def claim(connection: sqlite3.Connection, run_id: str, owner: str, event: EventRow | None, at: str) -> Claim | None:
    """Take the run over, unless it has completed."""
    taken = fetch(connection, _CLAIM, (owner, event is not None, at, run_id))
    if not taken:
        return None
    key, epoch, next_seq = (int(str(value)) for value in taken[0])
    if event is not None:
        values = event_values(key, event, iso_moment)
        connection.execute(_INSERT_EVENT, (values[0], next_seq - 1, *values[2:]))
    return Claim(run_id, key, epoch, next_seq)


def commit(connection: sqlite3.Connection, changes: Sequence[RunChange]) -> list[CommitOutcome]:
    """Write each change whose run is still at the change's epoch and number."""
    held = [_advance(connection, change) for change in changes]
    kept = [change for change, is_held in zip(changes, held, strict=True) if is_held]
    visits = [visit_values(change.key, visit, iso_moment) for change in kept for visit in change.visits]
    events = [event_values(change.key, event, iso_moment) for change in kept for event in change.events]
    if visits:
        connection.executemany(_INSERT_VISIT, visits)
    if events:
        connection.executemany(_INSERT_EVENT, events)
    return [CommitOutcome.COMMITTED if is_held else CommitOutcome.FENCED for is_held in held]


def delete(connection: sqlite3.Connection, run_id: str) -> bool:
    """Remove the run with all it has."""
    for statement in _DELETIONS:
        connection.execute(statement, (run_id,))
    return connection.execute("DELETE FROM core_workflow_runs WHERE run_id = ?", (run_id,)).rowcount == 1


def _create(connection: sqlite3.Connection, run: NewRun) -> Claim | None:
    made = fetch(connection, _INSERT_RUN, new_run_values(run, iso_moment))
    if not made:
        return None
    key = int(str(made[0][0]))
    if run.emits:
        connection.execute(_INSERT_EVENT, event_values(key, started_event(run), iso_moment))
    return Claim(run.run_id, key, epoch=1, next_seq=2 if run.emits else 1)


def _advance(connection: sqlite3.Connection, change: RunChange) -> bool:
    """The fence: whether the run was still ours, and is now one change further."""
    at, end = iso_moment(change.at), change.end
    fence = (change.key, change.epoch, change.expected_seq)
    moved = (change.next_seq, at, change.commit_id)
    if end is None:
        return connection.execute(_ADVANCE, (*moved, change.status.value, *fence)).rowcount == 1
    told = (end.error_step, storable(end.error), end.error_category, storable(end.stop_reason))
    values = (*moved, end.status.value, iso_moment(end.at), *told, *fence)
    return connection.execute(_END, values).rowcount == 1


def _use_wal(connection: sqlite3.Connection) -> None:
    # Changing the mode does not wait for others as a transaction does, so processes starting together need patience.
    give_up_at = time.monotonic() + BUSY_SECONDS
    while fetch(connection, "PRAGMA journal_mode")[0][0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_at:
                raise
            time.sleep(0.01)
