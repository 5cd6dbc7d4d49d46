"""Operations on a SQLite database as functions of a plain `sqlite3.Connection`.

Each function runs as one call on the connection's own thread. So neither a cancellation nor another user of the
connection can interrupt it between two statements.
"""

# ruff: noqa: S608 (statements are built from constants of this package only)

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TypeVar

from spine_async._model.durability import Durability
from spine_async._model.record import RunChange, RunEnd
from spine_async._model.status import RunStatus
from spine_async.errors import StoreError
from spine_async.ports import CommitOutcome
from spine_async.storage.sql.schema.migrations import usable_version
from spine_async.storage.sql.schema.rows import (
    EVENT_COLUMNS,
    VISIT_COLUMNS,
    Row,
    escaped_text,
    event_values,
    iso_timestamp,
    visit_values,
)
from spine_async.storage.sql.sqlite.insert import Inserter

ResultT = TypeVar("ResultT")
Pragmas = dict[str, object]

BUSY_SECONDS = 30.0
# FULL syncs the WAL at each commit. NORMAL syncs it only before a checkpoint, so a power failure may lose the last
# commits; the remaining ones are consistent and in order.
_SYNCHRONOUS: Mapping[Durability, str] = {"full": "FULL", "process": "NORMAL"}

EVENTS = Inserter("core_workflow_event_log", EVENT_COLUMNS)
VISITS = Inserter("core_workflow_steps", VISIT_COLUMNS)

_FENCE = "WHERE id = ? AND epoch = ? AND next_seq = ?"
_UNFINISHED_FENCE = f"{_FENCE} AND status IN ('running', 'waiting')"
_UPDATE = (
    "UPDATE core_workflow_runs SET next_seq = ?, updated_at = ?, commit_id = ?, "
    "claims_since_progress = CASE WHEN ? THEN 0 ELSE claims_since_progress END"
)
# An update of `status` also writes the index of unfinished runs: one more page, in addition to four.
_ADVANCE_RUNNING = f"{_UPDATE} {_FENCE} AND status = 'running'"
_ADVANCE = f"{_UPDATE}, status = ? {_UNFINISHED_FENCE}"
_END = (
    f"{_UPDATE}, status = ?, completed_at = ?, error_step = ?, error = ?, error_category = ?, stop_reason = ?, "
    f"owner = NULL, lease_until = NULL, lease_boot = NULL {_UNFINISHED_FENCE}"
)
_COMMITTED_EARLIER = "SELECT 1 FROM core_workflow_runs WHERE id = ? AND epoch = ? AND commit_id = ?"
_UNDER_WAY = "SELECT 1 FROM core_workflow_runs WHERE run_id = ? AND status IN ('running', 'waiting')"
# Children are deleted explicitly: cascading requires a pragma that the connection's owner controls.
_DELETE_CHILDREN = tuple(
    f"DELETE FROM {table} WHERE run = (SELECT id FROM core_workflow_runs WHERE run_id = ?)"
    for table in ("core_workflow_steps", "core_workflow_event_log")
)


def in_transaction(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
    """Run `work` in one write transaction; the connection's settings are unchanged afterwards."""
    level = connection.isolation_level
    connection.isolation_level = None  # otherwise sqlite3 begins a deferred transaction, which reads before it locks
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
    cursor.row_factory = None  # the owner of the engine may have set one
    return cursor.execute(sql, values).fetchall()


def version(connection: sqlite3.Connection) -> int:
    """Schema version of the database; 0 if the library's tables do not exist."""
    if not fetch(connection, "SELECT 1 FROM sqlite_master WHERE name = 'core_workflow_schema'"):
        return 0
    cursor = connection.cursor()
    cursor.row_factory = None
    row = cursor.execute("SELECT * FROM core_workflow_schema ORDER BY version DESC LIMIT 1").fetchone()
    names = [column[0] for column in cursor.description]
    return usable_version(dict(zip(names, row, strict=True))) if row else 0


def prepare(connection: sqlite3.Connection, durability: Durability, busy_seconds: float = BUSY_SECONDS) -> Pragmas:
    """Set the busy timeout, WAL and the durability; returns the previous settings."""
    before = {name: fetch(connection, f"PRAGMA {name}")[0][0] for name in ("busy_timeout", "synchronous")}
    set_busy_timeout(connection, busy_seconds)
    _use_wal(connection, min(BUSY_SECONDS, busy_seconds))
    connection.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[durability]}")
    return before


def restore(connection: sqlite3.Connection, before: Pragmas) -> None:
    """Restore the settings that `prepare` returned."""
    for name, value in before.items():
        connection.execute(f"PRAGMA {name} = {value}")


def commit(connection: sqlite3.Connection, changes: Sequence[RunChange]) -> list[CommitOutcome]:
    """Write each change that passes its fence.

    Args:
        connection: In a write transaction.
        changes: The changes. A change that an earlier attempt has committed is reported as committed.
    """
    passed = _advance_all(connection, changes)
    written = [change for change, has_passed in zip(changes, passed, strict=True) if has_passed]
    visits = [visit_values(change.key, visit, iso_timestamp, int) for change in written for visit in change.visits]
    events = [event_values(change.key, event, iso_timestamp) for change in written for event in change.events]
    VISITS.insert(connection, visits)
    EVENTS.insert(connection, events)
    return [
        CommitOutcome.COMMITTED if has_passed or _is_committed(connection, change) else CommitOutcome.FENCED
        for change, has_passed in zip(changes, passed, strict=True)
    ]


def delete(connection: sqlite3.Connection, run_id: str, *, only_ended: bool) -> bool:
    """Delete the run with its visits and events, unless it has not ended and `only_ended` is set.

    Args:
        connection: In a write transaction.
        run_id: The run.
        only_ended: Whether to keep a run that has not ended.
    """
    if only_ended and fetch(connection, _UNDER_WAY, (run_id,)):
        return False
    for statement in _DELETE_CHILDREN:
        connection.execute(statement, (run_id,))
    return connection.execute("DELETE FROM core_workflow_runs WHERE run_id = ?", (run_id,)).rowcount == 1


def in_savepoint(connection: sqlite3.Connection, work: Callable[[], bool]) -> bool:
    """Run `work` in a savepoint and return its result; False rolls the savepoint back."""
    connection.execute("SAVEPOINT bulk")
    succeeded = work()
    connection.execute("RELEASE bulk" if succeeded else "ROLLBACK TO bulk")
    return succeeded


def _advance_all(connection: sqlite3.Connection, changes: Sequence[RunChange]) -> list[bool]:
    """Update the runs of the changes; whether each change passed its fence."""
    if len(changes) > 1:
        unended = [change for change in changes if change.end is None]
        rows: dict[str, list[Row]] = {
            _ADVANCE_RUNNING: [_running_values(each) for each in unended if each.status is RunStatus.RUNNING],
            _ADVANCE: [_advance_values(each) for each in unended if each.status is not RunStatus.RUNNING],
            _END: [_end_values(each, each.end) for each in changes if each.end is not None],
        }
        # Nearly always all changes pass, and one call per statement takes half the time of one call per change.
        if in_savepoint(connection, lambda: all(_update_all(connection, *each) for each in rows.items())):
            return [True] * len(changes)
    return [_advance(connection, change) for change in changes]


def _update_all(connection: sqlite3.Connection, statement: str, rows: Sequence[Row]) -> bool:
    return not rows or connection.executemany(statement, rows).rowcount == len(rows)


def _advance(connection: sqlite3.Connection, change: RunChange) -> bool:
    """Update the run of the change; whether the change passed its fence."""
    if change.end is not None:
        return connection.execute(_END, _end_values(change, change.end)).rowcount == 1
    is_running = change.status is RunStatus.RUNNING
    if is_running and connection.execute(_ADVANCE_RUNNING, _running_values(change)).rowcount == 1:
        return True
    return connection.execute(_ADVANCE, _advance_values(change)).rowcount == 1


_commit_timestamp = lru_cache(maxsize=16)(iso_timestamp)  # most changes of a group have the same time


def _update_values(change: RunChange) -> Row:
    return (change.next_seq, _commit_timestamp(change.at), change.commit_id, int(change.makes_progress))


def _fence_values(change: RunChange) -> Row:
    return (change.key, change.epoch, change.expected_seq)


def _running_values(change: RunChange) -> Row:
    # In one tuple, because each step passes here.
    return (
        change.next_seq,
        _commit_timestamp(change.at),
        change.commit_id,
        int(change.makes_progress),
        change.key,
        change.epoch,
        change.expected_seq,
    )


def _advance_values(change: RunChange) -> Row:
    return (*_update_values(change), change.status.value, *_fence_values(change))


def _end_values(change: RunChange, end: RunEnd) -> Row:
    failure = (end.error_step, escaped_text(end.error), end.error_category, escaped_text(end.stop_reason))
    return (*_update_values(change), end.status.value, iso_timestamp(end.at), *failure, *_fence_values(change))


def _is_committed(connection: sqlite3.Connection, change: RunChange) -> bool:
    return bool(fetch(connection, _COMMITTED_EARLIER, (change.key, change.epoch, change.commit_id)))


def set_busy_timeout(connection: sqlite3.Connection, seconds: float) -> None:
    """Limit the wait for the locks of other connections."""
    connection.execute(f"PRAGMA busy_timeout = {max(1, int(min(BUSY_SECONDS, seconds) * 1000))}")


def _use_wal(connection: sqlite3.Connection, seconds: float) -> None:
    # The busy timeout does not apply to a change of the journal mode, so processes that start together retry it here.
    deadline = time.monotonic() + seconds
    mode = fetch(connection, "PRAGMA journal_mode")[0][0]
    while mode != "wal":
        try:
            mode = fetch(connection, "PRAGMA journal_mode = WAL")[0][0]
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            if mode != "wal":  # SQLite raises no error for a database that cannot use WAL
                raise StoreError(
                    f"SQLite cannot use a write-ahead log for this database, its journal mode remains {mode!r}; "
                    "remove options such as nolock or vfs, and use a file on a local disk"
                )
