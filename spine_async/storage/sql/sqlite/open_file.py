"""Detects that the file of an open database is removed or replaced.

SQLite continues to use a file that was removed or renamed. The data that it writes there is lost when the process ends.
So after each operation the file at the path is compared with the file that was opened.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import MutableMapping
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from spine_async.errors import StoreError, StoreUnavailableError

_Identity: TypeAlias = "tuple[int, int] | None"
"""Device and inode of a file; None if it does not exist."""

_IDENTITY = "spine_async.file"
_ACCEPTED_BY = "spine_async.accepted_by"


class OpenFile:
    """The file of a database, from its first connection until the store closes it.

    Its methods run on the threads of connections.

    Args:
        name: Name of the database for messages.
        has_one_connection: Whether all users of the engine share one connection, so that a database in memory can be
            used.

    Attributes:
        log_size: Bytes of the write-ahead log at the last `check_with_log`.
    """

    def __init__(self, name: str, *, has_one_connection: bool) -> None:
        self._name = name
        self._has_one_connection = has_one_connection
        self._path: str | None = None
        self._log: str | None = None
        self._identity: _Identity = None
        self._logs: WeakKeyDictionary[object, _Identity] = WeakKeyDictionary()  # by connection
        self._replaced: str | None = None
        self.log_size = 0

    def is_accepted(self, info: MutableMapping[Any, Any]) -> bool:
        """Whether `accept` has accepted the connection with this dictionary; reads no file."""
        return info.get(_ACCEPTED_BY) is self

    def accept(self, connection: sqlite3.Connection, info: MutableMapping[Any, Any]) -> bool:
        """Whether the connection is one to the file that is at the path now.

        Args:
            connection: A connection that was checked out.
            info: Keeps the identity of the connection's file as long as the connection exists.

        Raises:
            StoreError: The database is in memory, and other connections would not see it.
            StoreUnavailableError: The file was removed or replaced since the first connection.
        """
        path = str(connection.execute("PRAGMA database_list").fetchone()[2] or "")
        if not path:
            self._check_memory()
        else:
            current = _identity(path)
            if self._path is None and current == info.setdefault(_IDENTITY, current):
                self._path, self._log, self._identity = path, f"{path}-wal", current
            self.check()
            if info.setdefault(_IDENTITY, current) != current:
                return False
        info[_ACCEPTED_BY] = self
        return True

    def check_earlier(self) -> None:
        """Raise `StoreUnavailableError` if `check` has raised it; a new connection would create another file."""
        if self._replaced is not None:
            raise self._error(self._replaced)

    def check(self) -> None:
        """Raise `StoreUnavailableError` if the file was removed or replaced."""
        if self._replaced is not None:
            raise self._error(self._replaced)
        if self._path is not None and _identity(self._path) != self._identity:
            raise self._noticed(self._path)

    def begin_log(self, driver: object) -> None:
        """Forget the write-ahead log of a connection; the first connection to a file creates the log."""
        self._logs.pop(driver, None)

    def check_with_log(self, driver: object) -> None:
        """Like `check`, but also raises if the write-ahead log was removed or replaced since the first write."""
        self.check()
        if self._log is None:
            return
        try:
            status = os.stat(self._log)  # noqa: PTH116 (as in `_identity`)
        except FileNotFoundError:
            found = None
        else:
            found, self.log_size = (status.st_dev, status.st_ino), status.st_size
        known = self._logs.get(driver)
        if known is None:
            self._logs[driver] = found
        elif found != known:
            raise self._noticed(self._log)

    def _check_memory(self) -> None:
        if not self._has_one_connection:
            raise StoreError(
                f"{self._name}: the database is in memory, so each connection of the engine's pool would have data of "
                "its own; create the engine with poolclass=StaticPool, or use a file"
            )

    def _noticed(self, path: str) -> StoreUnavailableError:
        self._replaced = path
        return self._error(path)

    def _error(self, path: str) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"{self._name}: the file {path} was removed or replaced while it was open, so writes would be lost; "
            "leave the runner or restart the process to open the current file"
        )


def _identity(path: str) -> _Identity:
    try:
        found = os.stat(path)  # noqa: PTH116 (runs at each commit; a `Path` costs more than the call)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
