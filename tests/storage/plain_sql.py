"""Plain SQL on a database, without the library."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg


def file_of(url: str) -> Path:
    """The file of a SQLite URL."""
    return Path(url.partition("///")[2])


def execute(url: str, sql: str) -> list[Any]:
    """Execute one statement; returns its rows."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(file_of(url), isolation_level=None)) as connection:
            return connection.execute(sql).fetchall()
    with psycopg.connect(url.replace("+asyncpg", ""), autocommit=True) as connection:
        found = connection.execute(sql)
        return found.fetchall() if found.description else []
