"""What goes wrong in drivers, in the library's own words.

Mapped once, here at the border. The texts of drivers are quoted only where they hold no values of rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from types import TracebackType

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from spine_async.errors import CorruptRecordError, StoreError, StoreUnavailableError
from spine_async.storage.sql.address import shown

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


class Faults:
    """A context that raises what a driver complains about as an error of ours, which names the database.

    One serves all calls: it keeps nothing between them, and each commit goes through it.

    Args:
        url: The database.
        kinds: The errors that the driver and what it stands on may raise.
        told: What to raise for the driver's own error and the name of the database; None leaves it as it is.
    """

    __slots__ = ("_kinds", "_told", "_url")

    def __init__(
        self, url: URL, kinds: tuple[type[Exception], ...], told: Callable[[Exception, str], StoreError | None]
    ) -> None:
        self._url = url
        self._kinds = kinds
        self._told = told

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or not isinstance(error, self._kinds):
            return
        cause = origin(error)
        told = self._told(cause, shown(self._url))
        if told is not None:
            raise told from cause


def sqlite_faults(url: URL) -> Faults:
    """What SQLite and its folder complain about."""
    return Faults(url, (sqlite3.Error, SQLAlchemyError, OSError, ValueError), _sqlite_error)


def is_passing_on_sqlite(exc: Exception) -> bool:
    """Whether another try may go better: the file was locked, or somebody had closed the connection."""
    if isinstance(exc, ValueError):
        return _is_closed_connection(exc)
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF in _SQLITE_PASSING


def origin(exc: Exception) -> Exception:
    """The driver's own error: SQLAlchemy's wrapper repeats the statement with all values."""
    cause: BaseException | None = exc.orig if isinstance(exc, DBAPIError) else exc
    # SQLAlchemy's own asyncpg adapter wraps once more.
    if isinstance(exc, DBAPIError) and cause is not None and isinstance(cause.__cause__, Exception):
        cause = cause.__cause__
    return cause if isinstance(cause, Exception) else exc


def unavailable(name: str, why: str, way_out: str) -> StoreUnavailableError:
    """The error with what a reader needs: which database, why, and what to do."""
    return StoreUnavailableError(f"{name}: {why}; {way_out}")


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
