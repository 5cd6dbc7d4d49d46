"""Rows into SQLite's tables.

`sqlite3` looks for an adapter of each value that is not exactly a number, a text or bytes. So a None or a bool takes
ten times as long to bind as these, and a step's row, of which a third is None, took twice as long to insert.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import compress

from spine_async.storage.sql.schema.rows import Row

INSERT = "INSERT INTO"


def insertion(table: str, columns: Sequence[str], otherwise: str = "") -> str:
    """The statement that inserts one row.

    Args:
        table: The table's name.
        columns: The columns that it has values for.
        otherwise: What follows the values, such as `ON CONFLICT …`.
    """
    names, marks = ", ".join(f'"{name}"' for name in columns), ", ".join("?" * len(columns))
    return f"{INSERT} {table} ({names}) VALUES ({marks}) {otherwise}"


class Insertion:
    """Inserts rows into one table, without the columns that none of them has a value for.

    Args:
        table: Its name. None of its columns has a default, so that what is left out is NULL.
        columns: The columns of the rows that will be given.
        otherwise: What follows the values.
    """

    def __init__(self, table: str, columns: Sequence[str], otherwise: str = "") -> None:
        self._table = table
        self._columns = columns
        self._otherwise = otherwise
        self._texts: dict[tuple[bool, ...], str] = {}

    def insert(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> int:
        """Insert the rows, flags as 0 and 1; how many were."""
        if len(rows) == 1:
            row = rows[0]
            given = tuple([value is not None for value in row])
            return connection.execute(self._text(given), tuple(compress(row, given))).rowcount
        if not rows:
            return 0
        columns = list(zip(*rows, strict=True))
        given = tuple([_has_any(values) for values in columns])
        return connection.executemany(self._text(given), zip(*compress(columns, given), strict=True)).rowcount

    def _text(self, given: tuple[bool, ...]) -> str:
        text = self._texts.get(given)
        if text is None:
            names = [name for name, is_given in zip(self._columns, given, strict=True) if is_given]
            text = self._texts[given] = insertion(self._table, names, self._otherwise)
        return text


def _has_any(values: Row) -> bool:
    return values[0] is not None or values.count(None) < len(values)
