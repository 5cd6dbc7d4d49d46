"""Opening a database when it is first used, with the schema that it must have."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

import anyio
import anyio.to_thread
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from spine_async._model.durability import Durability, check_durability
from spine_async._model.record import Busy, Claim, NewRun, Renewal, RunChange
from spine_async.errors import DefinitionError
from spine_async.ports import CommitOutcome
from spine_async.storage.sql.driver.claim_rule import ClaimRequest
from spine_async.storage.sql.driver.url import absolute_url, parse_url, sqlite_file
from spine_async.storage.sql.schema.migrations import is_current
from spine_async.storage.sql.schema.queries import Query
from spine_async.storage.sql.schema.rows import Row


class SqlDatabase(Protocol):
    """What the store needs of one kind of database."""

    dialect: str
    is_bound_to_loop: bool
    commits_out_of_process: bool

    async def exists(self) -> bool: ...
    async def make_place(self) -> None: ...
    async def version(self) -> int: ...
    async def upgrade(self) -> None: ...
    async def read(self, query: Query, values: Mapping[str, object]) -> list[Row]: ...
    async def create(self, runs: Sequence[NewRun]) -> list[Claim | None]: ...
    async def claim(self, asked: ClaimRequest) -> Claim | Busy | None: ...
    async def renew(self, claims: Sequence[Claim], ttl: float) -> list[Renewal]: ...
    async def request_stop(self, run_id: str, reason: str) -> bool: ...
    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]: ...
    async def delete(self, run_id: str) -> bool: ...
    async def close(self) -> None: ...


class _DatabaseKind(Protocol):
    @property
    def commits_out_of_process(self) -> bool: ...
    def __call__(self, engine: AsyncEngine, *, makes_folder: bool, durability: Durability) -> SqlDatabase: ...


class DatabaseAccess:
    """Gives the database to those who read and those who write, open and with a schema that fits."""

    def __init__(
        self,
        database: AsyncEngine | URL | str,
        *,
        auto_migrate: bool,
        owns_engine: bool,
        durability: Durability = "full",
    ) -> None:
        self._given: AsyncEngine | None = None
        self._url: URL | None = None
        # What has to be imported is imported now, so that a resume does not wait for it.
        if isinstance(database, (str, URL)):
            self._url = parse_url(database)
            self._url.get_dialect().import_dbapi()
            self._kind = _database_kind(self._url.get_driver_name())
        else:
            self._given = check_engine(database)
            self._kind = _database_kind(self._given.dialect.driver)
        self._auto_migrate = auto_migrate
        self._durability = check_durability(durability)
        self._owns_engine = owns_engine or self._given is None
        self._engine: AsyncEngine | None = None
        self._database: SqlDatabase | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_current = False
        self._lock = anyio.Lock(fast_acquire=True)

    async def for_writing(self) -> SqlDatabase:
        """The database, made where there is none."""
        if self._database is not None and self.is_ready:
            return self._database
        async with self._lock:
            database = await self._opened()
            if not self._is_current:
                await database.make_place()
                await self._bring_up_to_date(database)
        return database

    async def for_reading(self) -> SqlDatabase | None:
        """The database, or None where there is none: reading makes none."""
        if self._database is not None and self.is_ready:
            return self._database
        async with self._lock:
            database = await self._opened()
            if not self._is_current:
                if not await database.exists():
                    return None
                await self._bring_up_to_date(database)
        return database

    async def upgrade(self) -> None:
        """Bring the schema up to date, whatever `auto_migrate` says."""
        async with self._lock:
            database = await self._opened()
            await database.make_place()
            await database.upgrade()

    async def close(self) -> None:
        """Give all connections back, and the engine up where it is ours."""
        database, self._database = self._database, None
        engine, self._engine = self._engine, None
        self._is_current = False
        if database is None or engine is None:
            return
        with anyio.CancelScope(shield=True):
            try:
                await database.close()
            finally:
                if self._owns_engine:
                    await engine.dispose()

    @property
    def commits_out_of_process(self) -> bool:
        """Whether the database has a processor other than this process's."""
        return self._kind.commits_out_of_process

    @property
    def is_ready(self) -> bool:
        """Whether the database is open, with a schema that fits, and can be used in the running event loop."""
        return self._is_current and self._is_here()

    def _is_here(self) -> bool:
        """Whether what is open can be used in the running event loop."""
        database = self._database
        if database is None:
            return False
        return not database.is_bound_to_loop or asyncio.get_running_loop() is self._loop

    async def _opened(self) -> SqlDatabase:
        if self._database is None or not self._is_here():
            engine = self._given if self._given is not None else await self._made_engine()
            self._engine, self._loop, self._is_current = engine, asyncio.get_running_loop(), False
            self._database = self._kind(engine, makes_folder=self._url is not None, durability=self._durability)
        return self._database

    async def _made_engine(self) -> AsyncEngine:
        assert self._url is not None  # noqa: S101 (there is an engine or a URL)
        self._url = url = await absolute_url(self._url)
        return await anyio.to_thread.run_sync(_made_engine, url)

    async def _bring_up_to_date(self, database: SqlDatabase) -> None:
        if not is_current(await database.version(), auto_migrate=self._auto_migrate):
            await database.upgrade()
        self._is_current = True


def check_engine(engine: object) -> AsyncEngine:
    """The engine, if it is one that can be used.

    Raises:
        DefinitionError: It is not.
    """
    wanted = (
        "an AsyncEngine: create_async_engine('sqlite+aiosqlite:///…') or create_async_engine('postgresql+asyncpg://…')"
    )
    if not isinstance(engine, AsyncEngine):
        kind = type(engine)
        hint = "a synchronous Engine" if kind.__module__.startswith("sqlalchemy.") else f"of type {kind.__name__}"
        raise DefinitionError(f"db_engine is {hint}; it must be {wanted}")
    if engine.dialect.driver not in {"aiosqlite", "asyncpg"}:
        raise DefinitionError(f"db_engine uses {engine.dialect.name}+{engine.dialect.driver}; it must be {wanted}")
    return engine


def _made_engine(url: URL) -> AsyncEngine:
    is_file = sqlite_file(url) is not None
    # No values in error texts; and SQLite readers wait as long as writers do.
    return create_async_engine(url, hide_parameters=True, connect_args={"timeout": 30} if is_file else {})


def _database_kind(driver: str) -> _DatabaseKind:
    # Imported here, since each needs its driver and only one of them is there to be used.
    if driver == "aiosqlite":
        from spine_async.storage.sql.sqlite.database import SqliteDatabase  # noqa: PLC0415

        return SqliteDatabase
    from spine_async.storage.sql.postgres.database import PostgresDatabase  # noqa: PLC0415

    return PostgresDatabase
