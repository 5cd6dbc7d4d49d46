"""Bounds the size of the write-ahead log.

Theory of operation: SQLite copies the log into the database after each thousand pages, and then reuses the log from
its beginning, but only when nobody reads from the log. While readers overlap this never happens, and the log grows
without a bound. So a log that is large is truncated: the next commit waits for a short time, until the transactions
that read from the log have ended. If one of them reads for longer, the log may double before the next attempt.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress

LIMIT = 16 * 1024 * 1024
"""Bytes from which on the log is truncated; without overlapping readers it has about 4 MB."""

_PATIENCE_MS = 200  # the commits of this process wait meanwhile


class LogLimit:
    """Truncates the log of one file when it is large. Runs on the thread of the connection that writes."""

    __slots__ = ("next_size",)

    def __init__(self) -> None:
        self.next_size = LIMIT

    def truncate(self, connection: sqlite3.Connection, size: int) -> None:
        """Truncate the log, if its readers end soon.

        Args:
            connection: Outside of a transaction.
            size: Bytes of the log, at least `next_size`.
        """
        is_busy = True
        with suppress(sqlite3.Error):  # the commit before was made
            is_busy = bool(_truncate(connection))
        self.next_size = 2 * size if is_busy else LIMIT


def _truncate(connection: sqlite3.Connection) -> object:
    """Truncate the log; returns whether readers prevented it."""
    cursor = connection.cursor()
    cursor.row_factory = None
    (before,) = cursor.execute("PRAGMA busy_timeout").fetchone()
    cursor.execute(f"PRAGMA busy_timeout = {_PATIENCE_MS}")
    try:
        return cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    finally:
        cursor.execute(f"PRAGMA busy_timeout = {int(before)}")
