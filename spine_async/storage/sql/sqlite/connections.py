"""The connections to a SQLite database through aiosqlite."""

from __future__ import annotations

import math
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import aiosqlite
import anyio.to_thread
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from spine_async._model.durability import Durability
from spine_async.errors import StoreError
from spine_async.storage.sql.driver.connection import ConnectionPool, DriverHooks
from spine_async.storage.sql.driver.sharing import forked_engine
from spine_async.storage.sql.driver.sqlite_options import may_create
from spine_async.storage.sql.driver.time_limit import DEFAULT_SECONDS, Call, TimeLimit
from spine_async.storage.sql.driver.url import redacted, sqlite_file
from spine_async.storage.sql.driver.writer import WriterConnection
from spine_async.storage.sql.schema.migrations import raise_if_upgraded
from spine_async.storage.sql.sqlite import jobs
from spine_async.storage.sql.sqlite.errors import is_rejected_statement, is_transient_on_sqlite, sqlite_error_mapper
from spine_async.storage.sql.sqlite.log_limit import LogLimit
from spine_async.storage.sql.sqlite.open_file import OpenFile
from spine_async.storage.sql.sqlite.private_file import create_file, file_exists
from spine_async.storage.sql.sqlite.watch import OwnCommits

ResultT = TypeVar("ResultT")
SqliteJob = Callable[[sqlite3.Connection], ResultT]

_MIN_SQLITE = (3, 38)  # the view of checkpoints needs the operator `->`, which keeps the exact JSON text


class SqliteConnections:
    """The connections to one file, and jobs on their own threads."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        makes_folder: bool,
        durability: Durability,
        timeout: float = DEFAULT_SECONDS,
    ) -> None:
        self._engine = engine
        self._limit = TimeLimit(redacted(engine.url), timeout)
        self._makes_folder = makes_folder
        self._durability = durability
        self._file = sqlite_file(engine.url)
        self._map_errors = sqlite_error_mapper(engine.url)
        self._saved_pragmas: WeakKeyDictionary[aiosqlite.Connection, jobs.Pragmas] = WeakKeyDictionary()
        hooks = DriverHooks(
            is_usable=_is_usable,
            prepare=self._prepare,
            restore=self._restore,
            accept=self._accept,
            check_owner=_check_owner,
            abandon=self._abandon,
            connect_grace=math.inf,
        )
        self._abandoned: list[object] = []
        self._own_commits = OwnCommits()
        self._pool = ConnectionPool(engine, hooks)
        self._log_limit = LogLimit()
        self._open_file = OpenFile(redacted(engine.url), has_one_connection=self._pool.is_in_memory)
        self._writer = WriterConnection(self._pool, hooks)
        # The database has one writer at a time. A connection of its own lets a renewal give up early and try again
        # while the writer waits for the lock of another process.
        self._renewer = self._writer if self._pool.is_in_memory else WriterConnection(self._pool, hooks)

    async def exists(self) -> bool:
        """Whether the database file exists; does not create it."""
        with self._map_errors:
            return self._file is None or await anyio.to_thread.run_sync(file_exists, self._file)

    async def create_file(self) -> None:
        """Create the database file, and its folder if `makes_folder` is set."""
        _check_library(sqlite3.sqlite_version_info)
        if self._file is not None:
            is_created = may_create(self._engine.url.query)
            with self._map_errors:
                await anyio.to_thread.run_sync(create_file, self._file, self._makes_folder and is_created, is_created)

    async def version(self) -> int:
        """The schema version; 0 if there are no tables."""
        with self._map_errors:
            return await self._read(jobs.version, self._limit.call("connect"))

    async def close(self) -> None:
        with self._map_errors:
            try:
                await self._writer.close()
            finally:
                try:
                    await self._renewer.close()
                finally:
                    await self._pool.close()

    def abort(self, *, with_idle: bool) -> None:
        """Do nothing; there is no server that may be silent."""

    async def _read(self, job: SqliteJob[ResultT], call: Call) -> ResultT:
        def checked(connection: sqlite3.Connection) -> ResultT:
            result = job(connection)
            self._open_file.check()
            return result

        self._open_file.check_earlier()
        return await self._pool.read(lambda driver: run_on_thread(driver, checked), call)

    # Each commit passes the following functions. Functions that only pass on a coroutine are therefore no coroutine
    # functions: each of those takes time when the commit begins, and again when it ends.

    async def _read_with_retries(self, job: SqliteJob[ResultT], name: str) -> ResultT:
        return await self._with_retries(partial(self._read, job), self._limit.call(name))

    async def _look_with_retries(self, job: SqliteJob[ResultT], name: str) -> ResultT:
        """Like `_read_with_retries`, for the regular reads of services.

        They use the connection of the renewals while it is free: it stays checked out, and a checkout costs more than
        the read.
        """
        attempt = self._read if self._renewer is self._writer or self._renewer.is_busy else self._look
        return await self._with_retries(partial(attempt, job), self._limit.call(name))

    def _look(self, job: SqliteJob[ResultT], call: Call) -> Coroutine[Any, Any, ResultT]:
        def checked(connection: sqlite3.Connection) -> ResultT:
            result = job(connection)
            self._open_file.check()
            return result

        self._open_file.check_earlier()
        return self._renewer.write(lambda driver: run_on_thread(driver, checked), call)

    def _write_with_retries(self, job: SqliteJob[ResultT], name: str) -> Coroutine[Any, Any, ResultT]:
        return self._with_retries(partial(self._transact, job), self._limit.call(name))

    def _write_unsynced(self, job: SqliteJob[ResultT], name: str) -> Coroutine[Any, Any, ResultT]:
        """As `_write_with_retries`, for a change that may be lost in a power failure without harm."""
        return self._with_retries(partial(self._transact_unsynced, job), self._limit.call(name))

    async def _with_retries(self, attempt: Callable[[Call], Awaitable[ResultT]], call: Call) -> ResultT:
        try:
            return await call.retry(attempt, is_transient_on_sqlite)
        except Exception:  # noqa: BLE001 - raised again
            try:
                with self._map_errors:
                    raise
            except StoreError as exc:
                if is_rejected_statement(exc.__cause__):
                    await raise_if_upgraded(self.version)
                raise

    async def _write(self, job: SqliteJob[ResultT], call: Call) -> ResultT:
        with self._map_errors:
            return await self._transact(job, call)

    def _transact(self, job: SqliteJob[ResultT], call: Call) -> Coroutine[Any, Any, ResultT]:
        return self._checked_write(self._writer, job, call)

    def _transact_unsynced(self, job: SqliteJob[ResultT], call: Call) -> Coroutine[Any, Any, ResultT]:
        return self._checked_write(self._writer, job, call, is_synced=False)

    async def _renew(self, job: SqliteJob[ResultT], call: Call) -> ResultT:
        """Run the job on the renewals' connection.

        SQLite's lock is not fair: commits that follow each other closely would keep a second connection waiting. So
        the renewal takes its turn among the commits of this process, unless it would have to wait too long.
        """
        async with AsyncExitStack() as stack:
            with suppress(TimeoutError):
                await stack.enter_async_context(self._writer.reserved(call))
            busy_seconds = call.attempt_seconds()
            return await self._checked_write(self._renewer, job, call, busy_seconds)

    def _checked_write(
        self,
        writer: WriterConnection[aiosqlite.Connection],
        job: SqliteJob[ResultT],
        call: Call,
        busy_seconds: float | None = None,
        *,
        is_synced: bool = True,
    ) -> Coroutine[Any, Any, ResultT]:
        """Run the job in a transaction of `writer`, and check that the file is still the one that was opened.

        Args:
            writer: The connection.
            job: What to run.
            call: The call that it is part of.
            busy_seconds: Limit of the wait for the locks of other connections, unless it is the connection's usual one.
            is_synced: Whether the commit waits for the disk, if the durability asks for it.
        """
        transact = jobs.in_transaction if is_synced else jobs.in_unsynced_transaction
        own, is_main = self._own_commits, writer is self._writer

        def checked(driver: aiosqlite.Connection) -> Awaitable[ResultT]:
            def work(connection: sqlite3.Connection) -> ResultT:
                if busy_seconds is not None:
                    jobs.set_busy_timeout(connection, busy_seconds)
                own.add()
                result = transact(connection, job)
                if is_main:
                    own.end(connection)
                else:
                    own.add()
                # After the commit, so that what is acknowledged is in the file.
                self._open_file.check_with_log(driver)
                if is_main and self._open_file.log_size >= self._log_limit.next_size:
                    self._log_limit.truncate(connection, self._open_file.log_size)
                return result

            return run_on_thread(driver, work)

        self._open_file.check_earlier()
        return writer.write(checked, call)

    async def _driver_of(self, connection: AsyncConnection) -> aiosqlite.Connection:
        """The driver's connection of a caller, which must not be used in a fork."""
        driver = (await connection.get_raw_connection()).driver_connection
        assert isinstance(driver, aiosqlite.Connection)  # noqa: S101 (narrows the type: the engine uses aiosqlite)
        _check_owner(driver)
        return driver

    async def _accept(self, driver: aiosqlite.Connection, info: MutableMapping[Any, Any]) -> bool:
        if self._open_file.is_accepted(info):
            return True
        return await run_on_thread(driver, partial(self._open_file.accept, info=info))

    async def _abandon(self, connection: AsyncConnection) -> None:
        # The reference keeps the connection open: SQLite must not close a connection of the parent process.
        raw = await connection.get_raw_connection()
        self._abandoned.append(raw)
        raw.detach()

    async def _prepare(self, driver: aiosqlite.Connection) -> None:
        self._open_file.begin_log(driver)
        # A database in memory has no file to protect, and its only connection may belong to other users of the engine.
        if not self._pool.is_in_memory:
            job = partial(jobs.prepare, durability=self._durability, busy_seconds=self._limit.seconds / 2)
            self._saved_pragmas[driver] = await run_on_thread(driver, job)

    async def _restore(self, driver: aiosqlite.Connection) -> None:
        saved = self._saved_pragmas.pop(driver, {})
        await run_on_thread(driver, partial(jobs.restore, before=saved))


def _check_library(found: tuple[int, ...]) -> None:
    if found < _MIN_SQLITE:
        required, has = (".".join(str(part) for part in version) for version in (_MIN_SQLITE, found))
        raise StoreError(
            f"SQLite {required} or later is required, but this Python has {has}; use a newer Python, or PostgreSQL"
        )


def run_on_thread(driver: aiosqlite.Connection, job: SqliteJob[ResultT]) -> Awaitable[ResultT]:
    """Run the job on the connection's thread.

    aiosqlite's public methods run single statements. A cancellation between two of them would leave the transaction
    open; one function on the thread cannot be interrupted.
    """
    running: Awaitable[ResultT] = driver._execute(job, driver._conn)  # type: ignore[no-untyped-call]  # noqa: SLF001
    return running


def _check_owner(driver: aiosqlite.Connection) -> None:
    # A fork copies the connection, but not its thread.
    thread = getattr(driver, "_thread", driver)  # before aiosqlite 0.22 the connection itself is the thread
    if _is_usable(driver) and isinstance(thread, threading.Thread) and not thread.is_alive():
        raise forked_engine()


def _is_usable(driver: aiosqlite.Connection) -> bool:
    return driver._connection is not None  # noqa: SLF001 (aiosqlite has no public attribute for it)
