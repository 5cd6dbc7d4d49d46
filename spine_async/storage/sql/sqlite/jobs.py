"""Operations on a SQLite database as functions of a plain `sqlite3.Connection`.

Each function runs as one call on the connection's own thread. So neither a cancellation nor another user of the
connection can interrupt it between two statements.
"""

# ruff: noqa: S608 (statements are built from constants of this package only)

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from spine_async._model.durability import Durability
from spine_async.errors import StoreError
from spine_async.storage.sql.schema.migrations import usable_version
from spine_async.storage.sql.schema.rows import Row

ResultT = TypeVar("ResultT")
Pragmas = dict[str, object]

BUSY_SECONDS = 30.0
# FULL syncs the WAL at each commit. NORMAL syncs it only before a checkpoint, so a power failure may lose the last
# commits; the remaining ones are consistent and in order.
_SYNCHRONOUS: Mapping[Durability, str] = {"full": "FULL", "process": "NORMAL"}

# The plus keeps SQLite from using the index of the status, which is for listings.
_HAS_ENDED = "+status IN ('completed', 'failed', 'stopped')"
_DELETE = "DELETE FROM core_workflow_runs WHERE run_id = ? RETURNING id, run_id"
_DELETE_ENDED = f"DELETE FROM core_workflow_runs WHERE run_id = ? AND {_HAS_ENDED} RETURNING id, run_id"
_DELETE_UNUSED = (
    "DELETE FROM core_workflow_runs WHERE run_id IN (SELECT value FROM json_each(?)) "
    f"AND {_HAS_ENDED} AND NOT EXISTS (SELECT 1 FROM core_workflow_runs parent "
    "WHERE parent.run_id = core_workflow_runs.parent_run_id "
    "AND parent.status NOT IN ('completed', 'failed', 'stopped')) RETURNING id, run_id"
)
# The rows of the run are deleted explicitly: cascading requires a pragma that the connection's owner controls.
_DELETE_ROWS = tuple(
    f"DELETE FROM {table} WHERE run = ?"
    for table in ("core_workflow_steps", "core_workflow_event_log", "core_workflow_inbox")
)


def in_unsynced_transaction(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
    """Run `work` in one write transaction that a power failure may undo, so that it does not wait for the disk.

    The next transaction that is synced also syncs this one, which is before it in the WAL.
    """
    before = fetch(connection, "PRAGMA synchronous")[0][0]
    connection.execute("PRAGMA synchronous = NORMAL")
    try:
        return in_transaction(connection, work)
    finally:
        connection.execute(f"PRAGMA synchronous = {before}")


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


def delete(connection: sqlite3.Connection, run_id: str, *, only_ended: bool) -> bool:
    """Delete the run with its visits and events, unless it has not ended and `only_ended` is set.

    Args:
        connection: In a write transaction.
        run_id: The run.
        only_ended: Whether to keep a run that has not ended.
    """
    return bool(_delete(connection, _DELETE_ENDED if only_ended else _DELETE, run_id))


def delete_unused(connection: sqlite3.Connection, run_ids: Sequence[str]) -> list[str]:
    """Delete those of the runs that have ended, and whose parents have ended; returns their ids.

    Args:
        connection: In a write transaction.
        run_ids: The runs.
    """
    return _delete(connection, _DELETE_UNUSED, json.dumps(list(run_ids)))


def _delete(connection: sqlite3.Connection, statement: str, value: str) -> list[str]:
    deleted = fetch(connection, statement, (value,))
    keys = [(key,) for key, _ in deleted]
    for each in _DELETE_ROWS:
        connection.executemany(each, keys)
    return [str(run_id) for _, run_id in deleted]


def in_savepoint(connection: sqlite3.Connection, work: Callable[[], bool]) -> bool:
    """Run `work` in a savepoint and return its result; False rolls the savepoint back."""
    connection.execute("SAVEPOINT bulk")
    succeeded = work()
    connection.execute("RELEASE bulk" if succeeded else "ROLLBACK TO bulk")
    return succeeded


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
