"""Opens a database at its first use and ensures its schema."""

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
from spine_async.storage.sql.driver.url import absolute_url, parse_url, redacted, sqlite_file
from spine_async.storage.sql.schema.migrations import is_current
from spine_async.storage.sql.schema.queries import Query
from spine_async.storage.sql.schema.rows import Row


class SqlDatabase(Protocol):
    """The operations of one kind of database."""

    dialect: str
    is_bound_to_loop: bool
    commits_out_of_process: bool

    async def exists(self) -> bool: ...
    async def create_file(self) -> None: ...
    async def version(self) -> int: ...
    async def upgrade(self) -> None: ...
    async def read(self, query: Query, values: Mapping[str, object]) -> list[Row]: ...
    async def create(self, runs: Sequence[NewRun]) -> list[Claim | None]: ...
    async def claim(self, request: ClaimRequest) -> Claim | Busy | None: ...
    async def renew(self, claims: Sequence[Claim], ttl: float) -> list[Renewal]: ...
    async def request_stop(self, run_id: str, reason: str) -> bool: ...
    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]: ...
    async def delete(self, run_id: str) -> bool: ...
    async def close(self) -> None: ...


class _DatabaseType(Protocol):
    @property
    def commits_out_of_process(self) -> bool: ...
    def __call__(self, engine: AsyncEngine, *, makes_folder: bool, durability: Durability) -> SqlDatabase: ...


class LazyDatabase:
    """Opens the database at its first use, and ensures that its schema is current.

    After a change of the event loop the database is opened again if its driver is bound to the loop.
    """

    def __init__(
        self,
        database: AsyncEngine | URL | str,
        *,
        auto_migrate: bool,
        owns_engine: bool,
        durability: Durability = "full",
    ) -> None:
        self._given_engine: AsyncEngine | None = None
        self._url: URL | None = None
        # The driver is imported here, so that a resume does not wait for the import.
        if isinstance(database, (str, URL)):
            self._url = parse_url(database)
            self._url.get_dialect().import_dbapi()
            self._database_type = _database_type(self._url.get_driver_name())
        else:
            self._given_engine = check_engine(database)
            self._database_type = _database_type(self._given_engine.dialect.driver)
        self._auto_migrate = auto_migrate
        self._durability = check_durability(durability)
        self._owns_engine = owns_engine or self._given_engine is None
        self._engine: AsyncEngine | None = None
        self._opened: SqlDatabase | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_current = False
        self._lock = anyio.Lock(fast_acquire=True)

    @property
    def location(self) -> str:
        """The database's kind and location without credentials."""
        url = self._given_engine.url if self._given_engine is not None else self._url
        if url is None:
            return "unknown database"
        path = sqlite_file(url)
        return redacted(url if path is None else url.set(database=str(path.absolute())))

    async def for_writing(self) -> SqlDatabase:
        """The database, which is created if it does not exist."""
        if self._opened is not None and self.is_ready:
            return self._opened
        async with self._lock:
            database = await self._open()
            if not self._is_current:
                await database.create_file()
                await self._ensure_schema(database)
        return database

    async def for_reading(self) -> SqlDatabase | None:
        """The database, or None if it does not exist."""
        if self._opened is not None and self.is_ready:
            return self._opened
        async with self._lock:
            database = await self._open()
            if not self._is_current:
                if not await database.exists():
                    return None
                await self._ensure_schema(database)
        return database

    async def upgrade(self) -> None:
        """Migrate the schema, also if `auto_migrate` is False."""
        async with self._lock:
            database = await self._open()
            await database.create_file()
            await database.upgrade()

    async def close(self) -> None:
        """Return all connections to the engine's pool, and dispose of the engine if it is owned."""
        database, self._opened = self._opened, None
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
        """Whether a commit runs in another process, such as a server."""
        return self._database_type.commits_out_of_process

    @property
    def is_ready(self) -> bool:
        """Whether the database is open in the running event loop and its schema is current."""
        return self._is_current and self._is_usable_in_loop()

    def _is_usable_in_loop(self) -> bool:
        """Whether the open database can be used in the running event loop."""
        if self._opened is None:
            return False
        return not self._opened.is_bound_to_loop or asyncio.get_running_loop() is self._loop

    async def _open(self) -> SqlDatabase:
        if self._opened is None or not self._is_usable_in_loop():
            engine = self._given_engine if self._given_engine is not None else await self._create_engine()
            self._engine, self._loop, self._is_current = engine, asyncio.get_running_loop(), False
            self._opened = self._database_type(engine, makes_folder=self._url is not None, durability=self._durability)
        return self._opened

    async def _create_engine(self) -> AsyncEngine:
        assert self._url is not None  # noqa: S101 (either an engine or a URL is given)
        self._url = url = await absolute_url(self._url)
        return await anyio.to_thread.run_sync(_create_engine, url)

    async def _ensure_schema(self, database: SqlDatabase) -> None:
        if not is_current(await database.version(), auto_migrate=self._auto_migrate):
            await database.upgrade()
        self._is_current = True


def check_engine(engine: object) -> AsyncEngine:
    """The argument if it is a supported engine.

    Raises:
        DefinitionError: It is not an `AsyncEngine` of a supported driver.
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


def _create_engine(url: URL) -> AsyncEngine:
    is_file = sqlite_file(url) is not None
    # Error messages must not contain values. SQLite readers wait for locks as long as writers do.
    return create_async_engine(url, hide_parameters=True, connect_args={"timeout": 30} if is_file else {})


def _database_type(driver: str) -> _DatabaseType:
    # Imported here, because only the driver of the chosen database needs to be installed.
    if driver == "aiosqlite":
        from spine_async.storage.sql.sqlite.database import SqliteDatabase  # noqa: PLC0415

        return SqliteDatabase
    from spine_async.storage.sql.postgres.database import PostgresDatabase  # noqa: PLC0415

    return PostgresDatabase
