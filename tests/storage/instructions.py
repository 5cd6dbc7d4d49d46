"""Counts what a function costs SQLite, independently of the load of the host."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path


def instructions(file: Path, work: Callable[[sqlite3.Connection], None]) -> int:
    """Instructions of SQLite's virtual machine for work in a transaction, which is rolled back."""
    count = 0

    def counted() -> int:
        nonlocal count
        count += 10
        return 0

    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.set_progress_handler(counted, 10)
        work(connection)
        connection.set_progress_handler(None, 0)
        connection.execute("ROLLBACK")
    return count
