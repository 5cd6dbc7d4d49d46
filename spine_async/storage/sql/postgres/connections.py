"""Connections to a PostgreSQL database, with time limits, retries and the library's errors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import asyncpg
from sqlalchemy import Dialect
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from spine_async.errors import StoreError
from spine_async.storage.sql.driver.connection import ConnectionPool, DriverHooks, Job, ResultT
from spine_async.storage.sql.driver.pool_size import CONNECTIONS_OF_RUNNER, capacity, is_exhausted
from spine_async.storage.sql.driver.sharing import foreign_loop
from spine_async.storage.sql.driver.time_limit import CREATION_SECONDS, UPGRADE_SECONDS, Call, TimeLimit
from spine_async.storage.sql.driver.url import redacted
from spine_async.storage.sql.driver.writer import WriterConnection
from spine_async.storage.sql.postgres import statements
from spine_async.storage.sql.postgres.errors import (
    is_rejected_statement,
    is_transient_on_postgres,
    postgres_error_mapper,
)
from spine_async.storage.sql.schema.migrations import is_current, raise_if_upgraded, statements_from, usable_version

if TYPE_CHECKING:
    Driver: TypeAlias = asyncpg.Connection[asyncpg.Record]


_CONNECT_GRACE = 1.0
"""Seconds that a cancelled connect may still take. Connecting takes milliseconds, unless the server is silent."""


class PostgresConnections:
    """One connection for writes, one for renewals, and those of the pool for reads."""

    dialect = "postgresql"
    is_bound_to_loop = True
    commits_out_of_process = True

    def __init__(self, engine: AsyncEngine, timeout: float) -> None:
        self._engine = engine
        self._limit = TimeLimit(redacted(engine.url), timeout)
        self._map_errors = postgres_error_mapper(engine.url)
        self._hooks: DriverHooks[Driver] = DriverHooks(
            is_usable=_is_usable,
            prepare=_no_op,
            restore=_no_op,
            accept=_accept,
            check_owner=_check_owner,
            abandon=AsyncConnection.close,
            connect_grace=_CONNECT_GRACE,
            abort=_abort,
        )
        self._pool = ConnectionPool(engine, self._hooks)
        self._writer = WriterConnection(self._pool, self._hooks)
        self._renewer = WriterConnection(self._pool, self._hooks)  # so that renewals never wait for a commit

    async def exists(self) -> bool:
        return True

    async def create_file(self) -> None:
        """Do nothing; the server manages the database's files."""

    async def version(self) -> int:
        with self._map_errors:  # without retries, so that a wrong URL is reported at once
            return await self._pool.read(_version_outside_transaction, self._limit.call("connect"))

    async def upgrade(self) -> None:
        if await self.version() == 0:
            call = Call("create the tables", self._limit, CREATION_SECONDS)
        else:
            call = Call("upgrade", self._limit, UPGRADE_SECONDS)
        await self._write_with_retries(lambda driver: _upgrade(driver, self._engine.dialect), call)

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
        self._pool.abort(with_idle=with_idle)

    async def _write_with_retries(self, job: Job[Driver, ResultT], call: Call) -> ResultT:
        return await self._with_retries(partial(self._writer.write, job), call)

    async def _read_with_retries(self, job: Job[Driver, ResultT], name: str) -> ResultT:
        """Run the job on a connection of the pool, so that it delays no commit."""
        return await self._with_retries(partial(self._read_once, job), self._limit.call(name))

    async def _read_once(self, job: Job[Driver, ResultT], call: Call) -> ResultT:
        if self._has_no_spare_connection() and is_exhausted(self._engine.pool):
            return await self._writer.write(job, call)
        return await self._pool.read(job, call)

    def _has_no_spare_connection(self) -> bool:
        """Whether commits, renewals and the listener may take all connections of the pool."""
        available = capacity(self._engine.pool)
        return available is not None and available <= CONNECTIONS_OF_RUNNER

    async def _with_retries(self, attempt: Callable[[Call], Awaitable[ResultT]], call: Call) -> ResultT:
        try:
            with self._map_errors:
                return await call.retry(attempt, is_transient_on_postgres)
        except StoreError as exc:
            if is_rejected_statement(exc.__cause__):
                await raise_if_upgraded(self.version)
            raise


async def _version(driver: Driver) -> int:
    if not await driver.fetchval(statements.EXISTS):
        return 0
    return usable_version(dict(await driver.fetchrow(statements.VERSION) or {}))


async def _version_outside_transaction(driver: Driver) -> int:
    """The schema version in one round trip; in a transaction the error of a missing table would abort it."""
    try:
        return usable_version(dict(await driver.fetchrow(statements.VERSION) or {}))
    except asyncpg.UndefinedTableError:
        return 0


async def _upgrade(driver: Driver, dialect: Dialect) -> None:
    # With a stricter default isolation, the snapshot would predate an upgrade that committed during the wait for the
    # lock.
    async with driver.transaction(isolation="read_committed"):
        # Of several processes that start together the first one upgrades; the others find the current version.
        await driver.execute(statements.LOCK)
        await driver.execute(statements.STAY_IN_SCHEMA)
        found = await _version(driver)
        if not is_current(found, auto_migrate=True):
            for statement in statements_from(found, dialect):
                await driver.execute(statement)


def _is_usable(driver: Driver) -> bool:
    return not driver.is_closed()


def _abort(driver: Driver) -> None:
    driver.terminate()


async def _accept(driver: Driver, info: object) -> bool:
    return True


def _check_owner(driver: Driver) -> None:
    loop = getattr(driver, "_loop", None)  # asyncpg has no public attribute for it
    if loop is not None and loop is not asyncio.get_running_loop():
        raise foreign_loop()


async def _no_op(driver: Driver) -> None:
    return None
