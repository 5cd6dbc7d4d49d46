"""Translates SQLite errors into the library's errors."""

from __future__ import annotations

import sqlite3

from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from spine_async.errors import CorruptRecordError, StoreError
from spine_async.storage.sql.driver.errors import ErrorMapper, unavailable

_HINTS = {
    sqlite3.SQLITE_CANTOPEN: "check that the folder exists, and that this process may read and write it",
    sqlite3.SQLITE_READONLY: "make the file and its folder writable for this process",
    sqlite3.SQLITE_PERM: "make the file and its folder writable for this process",
    sqlite3.SQLITE_BUSY: "another process has been writing for too long; find it, or use PostgreSQL for many writers",
    sqlite3.SQLITE_LOCKED: "other code has a transaction open on this connection; use a separate engine for the store",
    sqlite3.SQLITE_FULL: "free some space on the disk",
    sqlite3.SQLITE_IOERR: "check the disk",
}
# The written record is the cause. The database may accept other records.
_REFUSED = frozenset({sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE})
_CORRUPT = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})
_TRANSIENT = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})


def sqlite_error_mapper(url: URL) -> ErrorMapper:
    """Maps the errors of SQLite and of its file's folder."""
    return ErrorMapper(url, (sqlite3.Error, SQLAlchemyError, OSError, ValueError, OverflowError), _translate)


def is_transient_on_sqlite(exc: Exception) -> bool:
    """Whether a retry may succeed: the file was locked, or another user of the engine closed the connection."""
    if isinstance(exc, ValueError):
        return _is_closed_connection(exc)
    if isinstance(exc, TimeoutError):
        return True  # earlier jobs, or the pool, took too long
    return _primary_code(exc) in _TRANSIENT


def is_rejected_statement(exc: BaseException | None) -> bool:
    """Whether SQLite answered that the statement does not fit the tables or constraints."""
    return isinstance(exc, sqlite3.Error) and _primary_code(exc) in {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT}


def _translate(exc: Exception, name: str) -> StoreError | None:
    if isinstance(exc, ValueError) and not _is_closed_connection(exc):
        return None
    code = _primary_code(exc)
    if isinstance(exc, OverflowError) or code in _REFUSED:
        return StoreError(f"{name}: a value is too large for the database ({exc})")
    if code in _CORRUPT:
        return CorruptRecordError(
            f"{name}: the file cannot be read as a SQLite database ({exc}); restore it from a backup, or move it away"
        )
    if isinstance(exc, sqlite3.IntegrityError):
        return StoreError(f"{name}: a constraint rejected a row ({exc})")
    if isinstance(exc, TimeoutError):
        return unavailable(name, str(exc), _HINTS[sqlite3.SQLITE_BUSY])
    if isinstance(exc, OSError):
        return unavailable(name, f"{exc.strerror or exc}", _HINTS[sqlite3.SQLITE_CANTOPEN])
    hint = _HINTS.get(code, "check that the file is a database of this library and that the disk works")
    return unavailable(name, str(exc), hint)


def _primary_code(exc: Exception) -> int:
    """SQLite's primary result code; the upper bits of the extended code only refine it."""
    code: int = getattr(exc, "sqlite_errorcode", 0)
    return code & 0xFF


def _is_closed_connection(exc: ValueError) -> bool:
    # aiosqlite raises a plain ValueError when its connection is closed.
    return bool(exc.args) and str(exc.args[0]).lower() in {"connection closed", "no active connection"}
