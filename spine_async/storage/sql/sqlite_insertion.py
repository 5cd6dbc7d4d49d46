"""Rows into SQLite's tables.

`sqlite3` looks for an adapter of each value that is not exactly a number, a text or bytes. A None or a bool therefore
takes ten times as long to bind as these, and a step's row, of which a third is None, twice as long to insert.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import lru_cache

from spine_async.storage.sql.rows import Row


@lru_cache
def insertion(into: str, columns: tuple[str, ...], otherwise: str = "") -> str:
    """The statement that inserts one row.

    Args:
        into: Its beginning: `INSERT INTO` and the table.
        columns: The columns that it has values for.
        otherwise: What follows the values, such as `ON CONFLICT …`.
    """
    names, marks = ", ".join(f'"{name}"' for name in columns), ", ".join("?" * len(columns))
    return f"{into} ({names}) VALUES ({marks}) {otherwise}"


class Insertion:
    """Inserts many rows into one table, without the columns that none of them has a value for.

    Args:
        into: `INSERT INTO` and the table. None of its columns has a default, so that what is left out is NULL.
        columns: The columns of the rows that will be given.
        otherwise: What follows the values.
    """

    def __init__(self, into: str, columns: Sequence[str], otherwise: str = "") -> None:
        self.into = into
        self._columns = columns
        self._otherwise = otherwise

    def insert(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> int:
        """Insert the rows; how many were."""
        if not rows:
            return 0
        columns = dict(zip(self._columns, zip(*rows, strict=True), strict=True))
        given = {name: _bindable(values) for name, values in columns.items() if _has_any(values)}
        text = insertion(self.into, tuple(given), self._otherwise)
        return connection.executemany(text, zip(*given.values(), strict=True)).rowcount


def _has_any(values: Row) -> bool:
    return values[0] is not None or values.count(None) < len(values)


def _bindable(values: Row) -> Row:
    return [+flag for flag in values] if type(values[0]) is bool else values  # type: ignore[operator]
