"""Opens a database at its first use and ensures its schema."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, cast

import anyio
import anyio.to_thread
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

from spine_async._model.due import Delivery, DueRequest, DueRuns, NewMessage, Notice, RunState, Sweep
from spine_async._model.durability import Durability, check_durability
from spine_async._model.fork import ForkOutcome, NewFork
from spine_async._model.run_change import Release, RunChange
from spine_async._model.run_claim import Busy, Claim, NoRoom, Renewal
from spine_async._model.run_row import NewRun
from spine_async._model.schedule_state import NewSchedule, ScheduleChange, StoredSchedule
from spine_async.errors import SharingError, StoreError
from spine_async.ports import CommitOutcome, Listener, StepTransaction
from spine_async.storage.sql.driver.claim_rule import ClaimRequest
from spine_async.storage.sql.driver.errors import unavailable
from spine_async.storage.sql.driver.given_engine import check_engine
from spine_async.storage.sql.driver.sharing import bind_pool, forked
from spine_async.storage.sql.driver.sqlite_options import is_in_memory
from spine_async.storage.sql.driver.time_limit import DEFAULT_SECONDS
from spine_async.storage.sql.driver.url import (
    ACCEPTED,
    absolute_url,
    connect_arguments,
    parse_url,
    redacted,
    sqlite_file,
)
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
    async def claim(self, request: ClaimRequest) -> Claim | Busy | NoRoom | None: ...
    async def renew(self, claims: Sequence[Claim], ttl: float) -> list[Renewal]: ...
    async def request_stop(self, run_id: str, reason: str) -> bool: ...
    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]: ...
    async def delete(self, run_id: str, *, only_ended: bool) -> bool: ...
    async def delete_unused(self, run_ids: Sequence[str]) -> list[str]: ...
    async def claim_due(self, request: DueRequest) -> DueRuns: ...
    async def sweep(self, gone: Collection[str], lapsed: Collection[str], spared: Collection[str]) -> Sweep: ...
    async def unlisted_queues(self, listed: Collection[str]) -> list[str]: ...
    async def release_run(self, claim: Claim, release: Release) -> bool: ...
    async def send(self, message: NewMessage) -> Delivery: ...
    async def notices(self, claims: Sequence[Claim]) -> list[Notice]: ...
    async def states(self, run_ids: Sequence[str]) -> list[RunState]: ...
    async def listen(self, on_change: Callable[[], None]) -> Listener: ...
    async def create_within(self, connection: object, runs: Sequence[NewRun]) -> list[Claim | None]: ...
    async def read_within(self, connection: object, query: Query, values: Mapping[str, object]) -> list[Row]: ...
    async def send_within(self, connection: object, message: NewMessage) -> Delivery: ...
    async def fork(self, new: NewFork) -> ForkOutcome: ...
    async def transact(self, transaction: StepTransaction, seconds: float) -> CommitOutcome | None: ...

    async def register_schedules(self, schedules: Sequence[NewSchedule]) -> None: ...
    async def schedules(self, names: Collection[str] | None) -> list[StoredSchedule]: ...
    async def change_schedule(self, change: ScheduleChange) -> bool: ...
    async def close(self) -> None: ...
    def abort(self, *, with_idle: bool) -> None: ...


class _DatabaseType(Protocol):
    @property
    def commits_out_of_process(self) -> bool: ...
    def __call__(
        self, engine: AsyncEngine, *, makes_folder: bool, auto_migrate: bool, durability: Durability, timeout: float
    ) -> SqlDatabase: ...


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
        timeout: float = DEFAULT_SECONDS,
    ) -> None:
        self._given_engine: AsyncEngine | None = None
        self._url: URL | None = None
        # Imports the driver early, so that a later resume does not wait for the import.
        if isinstance(database, (str, URL)):
            self._url = parse_url(database)
            self._url.get_dialect().import_dbapi()
            self._database_type = _database_type(self._url.get_driver_name())
        else:
            self._given_engine = check_engine(database)
            self._database_type = _database_type(self._given_engine.dialect.driver)
        self._auto_migrate = auto_migrate
        self._durability = check_durability(durability)
        self._timeout = timeout
        self._is_upgrading = False
        self._owns_engine = owns_engine or self._given_engine is None
        self._engine: AsyncEngine | None = None
        self._opened: SqlDatabase | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
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

    @property
    def ready(self) -> SqlDatabase | None:
        """The database if it is open in the running event loop and its schema is current, else None."""
        return self._opened if self._opened is not None and self.is_ready else None

    async def for_writing(self) -> SqlDatabase:
        """The database, which is created if it does not exist."""
        if self._opened is not None and self.is_ready:
            return self._opened
        async with self._reserved():
            database = await self._open()
            if not self._is_current:
                await database.create_file()
                await self._ensure_schema(database)
        return database

    async def for_reading(self) -> SqlDatabase | None:
        """The database, or None if it does not exist."""
        if self._opened is not None and self.is_ready:
            return self._opened
        async with self._reserved():
            database = await self._open()
            if not self._is_current:
                if not await database.exists():
                    return None
                await self._ensure_schema(database)
        return database

    async def for_listening(self) -> SqlDatabase:
        """The database, which need not exist yet and is not created."""
        if self._opened is not None and self.is_ready:
            return self._opened
        async with self._reserved():
            return await self._open()

    async def for_caller(self) -> SqlDatabase:
        """The database, for a call in a transaction of the caller.

        On SQLite no other connection can create the tables during such a transaction; the call creates them in it.
        """
        if self._opened is not None and self.is_ready:
            return self._opened
        if self._database_type.commits_out_of_process:
            return await self.for_writing()
        async with self._reserved():
            return await self._open()

    async def check_caller(self) -> None:
        """Refuse a call that would wait for a transaction of its own task."""
        check = getattr(self._database_type, "check_caller", None)
        if check is not None:
            await check(self._given_engine.url if self._given_engine is not None else self._url)

    async def upgrade(self) -> None:
        """Migrate the schema, also if `auto_migrate` is False."""
        async with self._lock:
            database = await self._open()
            await database.create_file()
            await self._upgrade(database)

    async def close(self) -> None:
        """Return all connections to the engine's pool, and dispose of the engine if it is owned."""
        self._check_owner()
        database, self._opened = self._opened, None
        engine, self._engine = self._engine, None
        self._is_current = False
        if database is None or engine is None:
            return
        with anyio.move_on_after(self._timeout, shield=True) as limit:
            await self._close(database, engine)
        if limit.cancelled_caught:  # a silent server never answers
            database.abort(with_idle=self._owns_engine)
            with anyio.move_on_after(self._timeout, shield=True):
                await self._close(database, engine)

    async def _close(self, database: SqlDatabase, engine: AsyncEngine) -> None:
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
        self._check_owner()
        return self._is_current and self._is_usable_in_loop()

    @asynccontextmanager
    async def _reserved(self) -> AsyncIterator[None]:
        """Let one caller at a time open the database.

        Raises:
            StoreUnavailableError: Earlier callers did not end in time.
        """
        with anyio.move_on_after(self._timeout) as limit:
            await self._lock.acquire()
        if limit.cancelled_caught:
            if not self._is_upgrading:
                raise unavailable(self.location, f"not opened within {self._timeout:g} s", "other attempts did not end")
            await self._lock.acquire()  # a migration has no limit
        try:
            yield
        finally:
            self._lock.release()

    def _check_owner(self) -> None:
        """Refuse an open database that belongs to the parent process or to another running event loop."""
        if self._opened is None:
            return
        if self._pid != os.getpid():
            raise forked("the store", "close it before the fork, or start the process with the method 'spawn'")
        loop = self._loop
        if loop is not None and loop is not asyncio.get_running_loop() and loop.is_running():
            raise SharingError(
                "the store is open in another running event loop", "create a store and a runner for each event loop"
            )

    def _is_usable_in_loop(self) -> bool:
        """Whether the open database can be used in the running event loop."""
        if self._opened is None:
            return False
        return not self._opened.is_bound_to_loop or asyncio.get_running_loop() is self._loop

    async def _open(self) -> SqlDatabase:
        self._check_owner()
        if self._opened is None or not self._is_usable_in_loop():
            if self._given_engine is not None:
                bind_pool(self._given_engine)
            engine = self._given_engine if self._given_engine is not None else await self._create_engine()
            self._engine, self._loop, self._is_current = engine, asyncio.get_running_loop(), False
            self._pid = os.getpid()
            self._opened = self._database_type(
                engine,
                makes_folder=self._url is not None,
                auto_migrate=self._auto_migrate,
                durability=self._durability,
                timeout=self._timeout,
            )
        return self._opened

    async def _create_engine(self) -> AsyncEngine:
        assert self._url is not None  # noqa: S101 (either an engine or a URL is given)
        self._url = url = await absolute_url(self._url)
        return await anyio.to_thread.run_sync(_create_engine, url)

    async def _ensure_schema(self, database: SqlDatabase) -> None:
        if not is_current(await database.version(), auto_migrate=self._auto_migrate):
            await self._upgrade(database)
        self._is_current = True

    async def _upgrade(self, database: SqlDatabase) -> None:
        self._is_upgrading = True
        try:
            await database.upgrade()
        finally:
            self._is_upgrading = False


def _create_engine(url: URL) -> AsyncEngine:
    url, arguments = connect_arguments(url)
    options: dict[str, Any] = {"hide_parameters": True}  # error messages must not contain values
    if url.get_backend_name() == "sqlite":
        if is_in_memory(url):
            options["poolclass"] = StaticPool  # with another pool each connection would be a database of its own
    else:
        from spine_async.storage.sql.postgres.connect import engine_arguments  # noqa: PLC0415

        arguments = engine_arguments(arguments)
    try:
        return create_async_engine(url, connect_args=arguments, **options)
    except (ArgumentError, TypeError, ValueError) as exc:
        raise StoreError(f"{redacted(url)}: the database URL is not valid ({exc}); accepted are {ACCEPTED}") from None


def _database_type(driver: str) -> _DatabaseType:
    # Imported here, because only the driver of the chosen database needs to be installed.
    if driver == "aiosqlite":
        from spine_async.storage.sql.sqlite.database import SqliteDatabase  # noqa: PLC0415

        return SqliteDatabase
    from spine_async.storage.sql.postgres.database import PostgresDatabase  # noqa: PLC0415

    return cast("_DatabaseType", PostgresDatabase)
