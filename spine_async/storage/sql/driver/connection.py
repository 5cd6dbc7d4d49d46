"""Driver connections from the pool of a SQLAlchemy engine, for code that calls the driver directly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import anyio
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import QueuePool, StaticPool

from spine_async.storage.sql.driver.time_limit import Call

DriverT = TypeVar("DriverT")
ResultT = TypeVar("ResultT")
Job = Callable[[DriverT], Awaitable[ResultT]]

_MIN_CONNECTIONS = 3
_MAX_DEAD_CONNECTIONS = 100  # more than any pool holds


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverHooks(Generic[DriverT]):
    """The operations in which the drivers differ.

    Attributes:
        is_usable: Whether the connection is open.
        prepare: Prepares a connection for writing.
        restore: Undoes `prepare` before the connection returns to the pool.
        shields_connect: Whether a cancelled connect is completed and the new connection closed.
        abort: Ends the connection at once, which makes a running operation raise; None if operations limit themselves.
    """

    is_usable: Callable[[DriverT], bool]
    prepare: Job[DriverT, None]
    restore: Job[DriverT, None]
    shields_connect: bool = False
    abort: Callable[[DriverT], None] | None = None


class ConnectionPool(Generic[DriverT]):
    """Checks connections out of an engine's pool and discards broken ones."""

    def __init__(self, engine: AsyncEngine, hooks: DriverHooks[DriverT]) -> None:
        self._engine = engine
        self._hooks = hooks
        self.is_in_memory = isinstance(engine.pool, StaticPool)
        """Whether the pool's only connection is the database, so that it must never be closed."""

    async def read(self, job: Job[DriverT, ResultT], call: Call) -> ResultT:
        """Run the job on a pooled connection."""
        async with call.within():
            connection, driver = await self.checkout()
        try:
            result = await call.run(job, driver, self._hooks.abort)
        except BaseException:
            await self.discard(connection, release_in_memory=True)
            raise
        await _run_to_completion(connection.close())
        return result

    async def checkout(self) -> tuple[AsyncConnection, DriverT]:
        """A connection that is not known to be closed; after a server restart the pool holds closed ones."""
        for _ in range(_MAX_DEAD_CONNECTIONS):
            connection = await self._connect()
            try:
                driver: DriverT = (await connection.get_raw_connection()).driver_connection  # type: ignore[assignment]
            except BaseException:
                await self.discard(connection)
                raise
            if self._hooks.is_usable(driver):
                break
            await self.discard(connection)
        return connection, driver

    async def discard(self, connection: AsyncConnection, *, release_in_memory: bool = False) -> None:
        """Close the connection, which aborts its transaction.

        Args:
            connection: A connection that was checked out.
            release_in_memory: Whether the connection of a database in memory, which stays open, returns to the pool.
        """
        with anyio.CancelScope(shield=True):
            # `Task.cancel()` interrupts a shielded scope too; the connection must return to the pool even then.
            try:
                if not self.is_in_memory:
                    await connection.invalidate()
            finally:
                if release_in_memory or not self.is_in_memory:
                    await connection.close()

    async def _connect(self) -> AsyncConnection:
        if not self._hooks.shields_connect:
            return await self._engine.connect()
        # aiosqlite leaks the open file if its connect is cancelled. So the connect is completed and then undone.
        connecting = asyncio.create_task(_connect(self._engine))
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            await _wait_until_done(connecting)
            if not connecting.cancelled() and connecting.exception() is None:
                await _wait_until_done(asyncio.create_task(self.discard(connecting.result())))
            raise


class WriterConnection(Generic[DriverT]):
    """The connection on which all writes run, one at a time.

    It stays checked out between writes, because a checkout and a reset cost more than a commit. After an error it is
    discarded.
    """

    def __init__(self, pool: ConnectionPool[DriverT], hooks: DriverHooks[DriverT]) -> None:
        self._pool = pool
        self._hooks = hooks
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()
        self._waiting = 0
        self._current: tuple[AsyncConnection, DriverT] | None = None

    async def write(self, job: Job[DriverT, ResultT], call: Call) -> ResultT:
        """Run the job on the connection, after the jobs that were called before."""
        lock = await self._acquire(call)
        try:
            connection, driver = await self._checkout(call)
            try:
                return await call.run(job, driver, self._hooks.abort)
            except BaseException:
                await self._drop(connection)
                raise
        finally:
            lock.release()

    @asynccontextmanager
    async def reserved(self, call: Call) -> AsyncIterator[None]:
        """Let no job run inside the context, except the caller's.

        Raises:
            TimeoutError: Earlier jobs did not end in time.
        """
        lock = await self._acquire(call)
        try:
            yield
        finally:
            lock.release()

    async def close(self) -> None:
        """Return the connection to the pool."""
        async with self._lock_of_loop():
            current, self._current = self._current, None
            if current is None:
                return
            connection, driver = current
            with anyio.CancelScope(shield=True):
                try:
                    if self._hooks.is_usable(driver):
                        await self._hooks.restore(driver)
                    else:
                        await connection.invalidate()
                finally:
                    await connection.close()

    async def _acquire(self, call: Call) -> asyncio.Lock:
        """The lock, once no other job holds it or waits for it."""
        lock = self._lock_of_loop()
        if not lock.locked() and not self._waiting:
            await lock.acquire()  # at once, so it needs no timer
            return lock
        self._waiting += 1
        try:
            async with call.within():
                await lock.acquire()
        finally:
            self._waiting -= 1
        return lock

    def _lock_of_loop(self) -> asyncio.Lock:
        """The lock of the running event loop; the lock of a closed loop may never have been released."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._lock, self._waiting = loop, asyncio.Lock(), 0
        return self._lock

    async def _checkout(self, call: Call) -> tuple[AsyncConnection, DriverT]:
        if self._current is not None and self._hooks.is_usable(self._current[1]):
            return self._current
        if self._current is not None:
            await self._drop(self._current[0])
        async with call.within():
            connection, driver = await self._pool.checkout()
        try:
            await call.run(self._hooks.prepare, driver, self._hooks.abort)
        except BaseException:
            await self._pool.discard(connection)
            raise
        self._current = connection, driver
        return self._current

    async def _drop(self, connection: AsyncConnection) -> None:
        if not self._pool.is_in_memory:
            self._current = None
        await self._pool.discard(connection)


def has_room(engine: AsyncEngine) -> bool:
    """Whether the engine's pool has connections for commits, for renewals and for a reader at the same time."""
    pool = engine.pool
    if not isinstance(pool, QueuePool):
        return not isinstance(pool, StaticPool)
    return pool._max_overflow < 0 or pool.size() + pool._max_overflow >= _MIN_CONNECTIONS  # noqa: SLF001


async def _connect(engine: AsyncEngine) -> AsyncConnection:
    return await engine.connect()


async def _run_to_completion(work: Coroutine[Any, Any, None]) -> None:
    """Await the work to its end even if the caller is cancelled.

    The work runs in its own task, because `Task.cancel()` interrupts a shielded scope too.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await _wait_until_done(task)
        raise


async def _wait_until_done(task: asyncio.Task[Any]) -> None:
    """Wait for the task, ignoring cancellation of the wait."""
    with anyio.CancelScope(shield=True):
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait((task,))
