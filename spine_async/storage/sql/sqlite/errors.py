"""What goes wrong with SQLite, in the library's own words."""

from __future__ import annotations

import sqlite3

from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from spine_async.errors import CorruptRecordError, StoreError
from spine_async.storage.sql.driver.errors import Faults, unavailable

_SQLITE_HINTS = {
    sqlite3.SQLITE_CANTOPEN: "check that the folder exists, and that this process may read and write it",
    sqlite3.SQLITE_READONLY: "make the file and its folder writable for this process",
    sqlite3.SQLITE_PERM: "make the file and its folder writable for this process",
    sqlite3.SQLITE_BUSY: "another process has been writing for too long; find it, or use PostgreSQL for many writers",
    sqlite3.SQLITE_LOCKED: "another user of the same connection has a transaction open; give the store its own engine",
    sqlite3.SQLITE_FULL: "free some space on the disk",
    sqlite3.SQLITE_IOERR: "check the disk",
}
_SQLITE_BROKEN = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})
_SQLITE_PASSING = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})


def sqlite_faults(url: URL) -> Faults:
    """What SQLite and its folder complain about."""
    return Faults(url, (sqlite3.Error, SQLAlchemyError, OSError, ValueError), _sqlite_error)


def is_passing_on_sqlite(exc: Exception) -> bool:
    """Whether another try may go better: the file was locked, or somebody had closed the connection."""
    if isinstance(exc, ValueError):
        return _is_closed_connection(exc)
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF in _SQLITE_PASSING


def _sqlite_error(exc: Exception, name: str) -> StoreError | None:
    if isinstance(exc, ValueError) and not _is_closed_connection(exc):
        return None
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF  # the upper bits only say more of the same
    if code in _SQLITE_BROKEN:
        return CorruptRecordError(
            f"{name}: the file cannot be read as a SQLite database ({exc}); restore it from a backup, or move it away"
        )
    if isinstance(exc, sqlite3.IntegrityError):
        return StoreError(f"{name}: a record was refused ({exc})")
    if isinstance(exc, OSError):
        return unavailable(name, f"{exc.strerror or exc}", _SQLITE_HINTS[sqlite3.SQLITE_CANTOPEN])
    hint = _SQLITE_HINTS.get(code, "check that the file is a database of this library and that its disk is well")
    return unavailable(name, str(exc), hint)


def _is_closed_connection(exc: ValueError) -> bool:
    # aiosqlite says so with a plain ValueError.
    return bool(exc.args) and str(exc.args[0]).lower() in {"connection closed", "no active connection"}
