"""Rows into SQLite's tables, without the columns that none of them has a value for."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from spine_async.storage.sql.sqlite_insertion import Insertion

COLUMNS = ("key", "flag", "text", "number")


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as opened:
        opened.execute("CREATE TABLE kept (key INTEGER PRIMARY KEY, flag INTEGER, text TEXT, number REAL)")
        yield opened


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [(1, True, "a", 1.5)],
        [(1, False, None, None)],
        [(1, True, None, None), (2, False, None, 0.5), (3, True, "", None)],
        [(each, each % 2 == 0, None, each / 2 if each == 999 else None) for each in range(1000)],
    ],
)
def test_what_is_inserted_is_there(connection: sqlite3.Connection, rows: list[tuple[object, ...]]) -> None:
    assert Insertion("INSERT INTO kept", COLUMNS).insert(connection, rows) == len(rows)
    assert connection.execute("SELECT * FROM kept ORDER BY key").fetchall() == rows


def test_columns_without_any_value_are_not_named(connection: sqlite3.Connection) -> None:
    said: list[str] = []
    connection.set_trace_callback(said.append)
    kept = Insertion("INSERT INTO kept", COLUMNS)
    kept.insert(connection, [(1, True, None, None), (2, False, None, None)])
    kept.insert(connection, [(3, True, None, None), (4, False, "a", None)])
    assert [text.partition(" VALUES")[0] for text in said] == [
        *['INSERT INTO kept ("key", "flag")'] * 2,
        *['INSERT INTO kept ("key", "flag", "text")'] * 2,
    ]


def test_what_was_there_before_is_not_counted(connection: sqlite3.Connection) -> None:
    kept = Insertion("INSERT INTO kept", COLUMNS, "ON CONFLICT (key) DO NOTHING")
    assert kept.insert(connection, [(1, True, "first", None)]) == 1
    assert kept.insert(connection, [(1, True, "second", None), (2, True, "third", None)]) == 1
    assert connection.execute("SELECT text FROM kept ORDER BY key").fetchall() == [("first",), ("third",)]


def test_rows_of_another_width_are_refused(connection: sqlite3.Connection) -> None:
    with pytest.raises(ValueError, match="zip"):
        Insertion("INSERT INTO kept", COLUMNS).insert(connection, [(1, True)])
