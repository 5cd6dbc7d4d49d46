"""Insertion of rows into SQLite's tables; leaves out columns without any value."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from spine_async.storage.sql.sqlite.insert import Inserter

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
        [(1, 1, "a", 1.5)],
        [(1, 0, None, None)],
        [(1, 1, None, None), (2, 0, None, 0.5), (3, None, "", None)],
        [(each, 1, None, each / 2 if each == 999 else None) for each in range(1000)],
    ],
)
def test_what_is_inserted_is_there(connection: sqlite3.Connection, rows: list[tuple[object, ...]]) -> None:
    assert Inserter("kept", COLUMNS).insert(connection, rows) == len(rows)
    assert connection.execute("SELECT * FROM kept ORDER BY key").fetchall() == rows


def test_columns_without_any_value_are_not_named(connection: sqlite3.Connection) -> None:
    said: list[str] = []
    connection.set_trace_callback(said.append)
    kept = Inserter("kept", COLUMNS)
    kept.insert(connection, [(1, 1, None, None), (2, 0, None, None)])
    kept.insert(connection, [(3, 1, None, None), (4, 0, "a", None)])
    assert [text.partition(" VALUES")[0] for text in said] == [
        *['INSERT INTO kept ("key", "flag")'] * 2,
        *['INSERT INTO kept ("key", "flag", "text")'] * 2,
    ]


def test_what_was_there_before_is_not_counted(connection: sqlite3.Connection) -> None:
    kept = Inserter("kept", COLUMNS, "ON CONFLICT (key) DO NOTHING")
    assert kept.insert(connection, [(1, 1, "first", None)]) == 1
    assert kept.insert(connection, [(1, 1, "second", None), (2, 1, "third", None)]) == 1
    assert connection.execute("SELECT text FROM kept ORDER BY key").fetchall() == [("first",), ("third",)]


@pytest.mark.parametrize("rows", [[(1, 1)], [(1, 1), (2, 1)], [(1, 1, "a", 1.0), (2, 1)]])
def test_rows_of_another_width_are_refused(connection: sqlite3.Connection, rows: list[tuple[object, ...]]) -> None:
    with pytest.raises(ValueError, match=r"zip|longer|shorter"):
        Inserter("kept", COLUMNS).insert(connection, rows)
