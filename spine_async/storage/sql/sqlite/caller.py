"""Runs functions in a transaction of the caller, as functions of its plain `sqlite3.Connection`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from spine_async.errors import DefinitionError
from spine_async.storage.sql.schema.tables import VERSION
from spine_async.storage.sql.sqlite import jobs

ResultT = TypeVar("ResultT")

_NO_TRANSACTION = "connection is in no transaction; begin one with BEGIN IMMEDIATE"
_NO_LOCK = (
    "the transaction of connection does not hold the write lock, so it might fail after other work was done; begin it "
    "with BEGIN IMMEDIATE"
)
_NO_TABLES = (
    "the tables of this library do not exist in the database yet, or are of another version; call upgrade_schema(), or "
    "use the runner once, before you begin the transaction"
)
_PROBE = "UPDATE core_workflow_schema SET version = version WHERE 0"


def within_caller(
    connection: sqlite3.Connection,
    file: Path,
    work: Callable[[sqlite3.Connection], ResultT],
    creation: Sequence[str] | None,
) -> ResultT:
    """Run `work` in the open transaction of the connection; if it fails, the transaction is as before.

    Args:
        connection: The connection of the caller.
        file: The database.
        work: What is done in the transaction.
        creation: The statements that create the tables where there are none; None if that is not allowed. They are
            part of the transaction too: no other connection could execute them while it holds the write lock.

    Raises:
        DefinitionError: The connection belongs to another file, or its transaction does not hold the write lock; or the
            tables do not exist and must not be created, or are of another version.
    """
    _check_file(connection, file)
    if not connection.in_transaction:
        raise DefinitionError(_NO_TRANSACTION)
    found = jobs.version(connection)
    if found != VERSION and (found or creation is None):
        raise DefinitionError(_NO_TABLES)
    missing = () if found else creation or ()
    _check_lock(connection, file, missing[0] if missing else _PROBE)
    connection.execute("SAVEPOINT spine_async_within")
    try:
        for statement in missing:
            connection.execute(statement)
        result = work(connection)
    except BaseException:
        connection.execute("ROLLBACK TO spine_async_within")
        connection.execute("RELEASE spine_async_within")
        raise
    connection.execute("RELEASE spine_async_within")
    return result


def holds_lock(connection: sqlite3.Connection, file: Path) -> bool:
    """Whether the connection, which is in a transaction, holds the write lock of this file."""
    try:
        _check_file(connection, file)
    except DefinitionError:
        return False
    # Without tables nobody else writes to them, so that the lock belongs to this connection.
    return not _can_lock(file) and (jobs.version(connection) == 0 or _can_write(connection))


def _check_file(connection: sqlite3.Connection, file: Path) -> None:
    cursor = connection.cursor()
    cursor.row_factory = None
    found = str(next(row[2] for row in cursor.execute("PRAGMA database_list").fetchall() if row[1] == "main") or "")
    if not found or not file.exists() or not Path(found).samefile(file):
        place = found or "a database in memory"
        raise DefinitionError(f"connection belongs to another database: {place}; the runs are stored in {file}")


def _check_lock(connection: sqlite3.Connection, file: Path, statement: str) -> None:
    """Find out whether the connection holds the write lock of the file; Python has no function for it.

    Args:
        connection: The connection, which is in a transaction.
        file: The database.
        statement: A statement that writes; it is executed and undone.
    """
    if _can_lock(file) or not _can_write(connection, statement):
        raise DefinitionError(_NO_LOCK)


def _can_lock(file: Path) -> bool:
    """Whether another connection gets the lock, so that nobody holds it."""
    uri = f"{file.absolute().as_uri()}?mode=rw"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=0)) as other:
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        other.execute("ROLLBACK")
        return True


def _can_write(connection: sqlite3.Connection, statement: str = _PROBE) -> bool:
    """Whether the connection writes without waiting, so that no other one holds the lock."""
    cursor = connection.cursor()
    cursor.row_factory = None
    before = int(cursor.execute("PRAGMA busy_timeout").fetchone()[0])
    connection.execute("PRAGMA busy_timeout = 0")
    connection.execute("SAVEPOINT spine_async_probe")
    try:
        connection.execute(statement)
    except sqlite3.OperationalError:
        return False
    finally:
        connection.execute("ROLLBACK TO spine_async_probe")
        connection.execute("RELEASE spine_async_probe")
        connection.execute(f"PRAGMA busy_timeout = {before}")
    return True
