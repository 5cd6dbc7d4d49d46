"""Inserts rows into SQLite tables.

`sqlite3` searches for an adapter for each value whose type is not int, float, str or bytes. So it takes ten times as
long to bind a None or a bool. A third of the values of a visit are None, which would double the time of its insert. So
the statement leaves out columns without values.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import compress

from spine_async.storage.sql.schema.rows import Row

INSERT = "INSERT INTO"


def insert_statement(table: str, columns: Sequence[str], suffix: str = "") -> str:
    """The statement that inserts one row.

    Args:
        table: Name of the table.
        columns: Names of the columns with values.
        suffix: SQL after the values, such as `ON CONFLICT …`.
    """
    names, placeholders = ", ".join(f'"{name}"' for name in columns), ", ".join("?" * len(columns))
    return f"{INSERT} {table} ({names}) VALUES ({placeholders}) {suffix}"


class Inserter:
    """Inserts rows into one table and leaves out the columns that are None in all rows of a call.

    Args:
        table: Name of the table. Its columns with a default are never None; others that are omitted are NULL.
        columns: Names of the columns of the rows.
        suffix: SQL after the values.
    """

    def __init__(self, table: str, columns: Sequence[str], suffix: str = "") -> None:
        self._table = table
        self._columns = columns
        self._suffix = suffix
        self._statements: dict[tuple[bool, ...], str] = {}

    def insert(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> int:
        """Insert rows and return their number. Flags must be 0 or 1 instead of a bool."""
        if len(rows) == 1:
            row = rows[0]
            used = tuple([value is not None for value in row])
            return connection.execute(self._statement(used), tuple(compress(row, used))).rowcount
        if not rows:
            return 0
        columns = list(zip(*rows, strict=True))
        used = tuple([_has_value(column) for column in columns])
        return connection.executemany(self._statement(used), zip(*compress(columns, used), strict=True)).rowcount

    def _statement(self, used: tuple[bool, ...]) -> str:
        statement = self._statements.get(used)
        if statement is None:
            names = [name for name, is_used in zip(self._columns, used, strict=True) if is_used]
            statement = self._statements[used] = insert_statement(self._table, names, self._suffix)
        return statement


def _has_value(column: Row) -> bool:
    return column[0] is not None or column.count(None) < len(column)
