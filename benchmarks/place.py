"""Databases for measurements: a new one for each. They are durable: a commit is on the disk when it returns."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import psycopg

from tests.servers import postgres, redis
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

_SIZE = """
SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
"""
_DURABLE = ("fsync", "synchronous_commit", "full_page_writes")


class NotDurableError(Exception):
    """The given PostgreSQL server has durability settings switched off."""


class Place:
    """One database.

    Attributes:
        name: Path of the SQLite file or of the folder, libpq URL of the PostgreSQL database, URL of the Redis server,
            or empty.
    """

    def __init__(self, backend: str, name: str) -> None:
        self.backend = backend
        self.name = name

    def size(self) -> int:
        """Bytes of its files, or of its tables and their indexes; 0 where that is not known."""
        if self.backend == "sqlite":
            with closing(sqlite3.connect(self.name)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return Path(self.name).stat().st_size
        if self.backend == "postgres":
            with psycopg.connect(self.name, autocommit=True) as connection:
                row = connection.execute(_SIZE).fetchone()
            return int(row[0]) if row else 0
        if self.backend == "file":
            return sum(each.stat().st_size for each in Path(self.name).rglob("*") if each.is_file())
        return 0


class Places:
    """Creates databases. Starts a server when it is first needed and stops it on exit."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="bench-", dir=folder))
        self._server: PostgresServer | None = None
        self._redis: RedisServer | None = None

    @contextmanager
    def fresh(self, backend: str) -> Iterator[Place]:
        """An empty database that is deleted afterwards."""
        if backend == "sqlite":
            yield self._sqlite()
        elif backend == "postgres":
            server = self.server
            dsn = server.create_database()
            _checkpoint(dsn)
            try:
                yield Place(backend, dsn)
            finally:
                server.drop_database(dsn)
        elif backend == "redis":
            if self._redis is None:
                self._redis = redis.launch(is_durable=True)
            yield Place(backend, f"{self._redis.url}?prefix={uuid4().hex}")
        elif backend == "file":
            yield Place(backend, str(self._folder / uuid4().hex))
        else:
            yield Place(backend, "")

    @property
    def server(self) -> PostgresServer:
        """The PostgreSQL server, with its own durability settings."""
        if self._server is None:
            self._server = postgres.launch(is_durable=True)
            _check_durable(self._server)
        return self._server

    def postgres_version(self) -> str | None:
        """Version of the server, or None if none was started."""
        return _setting(self._server.dsn, "server_version") if self._server else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.stop()
        if self._redis is not None:
            self._redis.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _sqlite(self) -> Place:
        # The journal mode is stored in the file, so all contestants use WAL; `synchronous` is FULL by default.
        path = self._folder / f"{uuid4().hex}.db"
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
        return Place("sqlite", str(path))


def _checkpoint(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CHECKPOINT")


def _check_durable(server: PostgresServer) -> None:
    off = [name for name in _DURABLE if _setting(server.dsn, name) != "on"]
    if off:
        raise NotDurableError(f"the server has {', '.join(off)} off; the measurements need PostgreSQL's defaults")


def _setting(dsn: str, name: str) -> str:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
    return str(row[0]) if row else ""
