"""The table that the raw limits are measured on, and how rows get into it with nothing around the driver."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

from benchmarks.contestants.raw_places import AppendedFile, RedisList, Row

if TYPE_CHECKING:
    import asyncpg

_CREATE = "CREATE TABLE raw_steps (run integer NOT NULL, seq integer NOT NULL, output text, PRIMARY KEY (run, seq))"


class RawTable(Protocol):
    """Somewhere to put rows; each call is one durable commit."""

    async def insert(self, row: Row) -> None: ...

    async def insert_many(self, rows: Sequence[Row]) -> None: ...

    async def close(self) -> None: ...


async def open_table(backend: str, place: str) -> RawTable:
    """An empty table at the place."""
    if backend == "file":
        return AppendedFile(place)
    if backend == "redis":
        return await RedisList.opened(place)
    return await PostgresTable.opened(place) if backend == "postgres" else await SqliteTable.opened(place)


class SqliteTable:
    """sqlite3 in a worker thread, WAL, `synchronous=FULL`."""

    def __init__(self, place: str) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._place = place
        self._connection: sqlite3.Connection | None = None

    @classmethod
    async def opened(cls, place: str) -> SqliteTable:
        table = cls(place)
        await table._run(table._open)
        return table

    async def insert(self, row: Row) -> None:
        await self._run(self._insert, [row])

    async def insert_many(self, rows: Sequence[Row]) -> None:
        await self._run(self._insert, rows)

    async def close(self) -> None:
        assert self._connection is not None
        await self._run(self._connection.close)
        self._thread.shutdown()

    async def _run(self, function: object, *arguments: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)  # type: ignore[arg-type]

    def _open(self) -> None:
        self._connection = sqlite3.connect(self._place, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(_CREATE)

    def _insert(self, rows: Sequence[Row]) -> None:
        assert self._connection is not None
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("INSERT INTO raw_steps VALUES (?, ?, ?)", rows)
        self._connection.execute("COMMIT")


class PostgresTable:
    """asyncpg in autocommit, prepared statements; many rows go by `unnest`."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self._connection = connection

    @classmethod
    async def opened(cls, place: str) -> PostgresTable:
        import asyncpg  # noqa: PLC0415 - not needed for SQLite

        connection = await asyncpg.connect(place)
        await connection.execute(_CREATE)
        return cls(connection)

    async def insert(self, row: Row) -> None:
        await self._connection.fetch("INSERT INTO raw_steps VALUES ($1, $2, $3)", *row)

    async def insert_many(self, rows: Sequence[Row]) -> None:
        columns = list(zip(*rows, strict=True))
        await self._connection.fetch(
            "INSERT INTO raw_steps SELECT * FROM unnest($1::int[], $2::int[], $3::text[])", *columns
        )

    async def close(self) -> None:
        await self._connection.close()
