"""Driver connections from the pool of a SQLAlchemy engine, for code that calls the driver directly."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, MutableMapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import anyio
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import NullPool, StaticPool

from spine_async.errors import SharingError, StoreError, StoreUnavailableError
from spine_async.storage.sql.driver.pool_size import CONNECTIONS_OF_RUNNER, has_idle, idle_connections, is_exhausted
from spine_async.storage.sql.driver.time_limit import Call
from spine_async.storage.sql.driver.url import redacted

DriverT = TypeVar("DriverT")
ResultT = TypeVar("ResultT")
Job = Callable[[DriverT], Awaitable[ResultT]]

_MAX_DEAD_CONNECTIONS = 100  # more than any pool holds

_PLACE = "_spine_async_place"

POOL_WAIT = 10.0
"""Seconds to wait for a connection of a pool if other code holds all of them. Shorter than a lease."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverHooks(Generic[DriverT]):
    """The operations in which the drivers differ.

    Attributes:
        is_usable: Whether the connection is open.
        prepare: Prepares a connection for writing.
        restore: Undoes `prepare` before the connection returns to the pool.
        accept: Whether a connection that was checked out may be used; otherwise it is discarded. The second argument
            is the pool's dictionary of data about this connection.
        check_owner: Raises `SharingError` if the connection belongs to another event loop or process.
        abandon: Removes a connection of another event loop or process from use, without any I/O on it.
        connect_grace: Seconds that a cancelled connect may still take to end by itself.
        abort: Ends the connection at once, which makes a running operation raise; None if operations limit themselves.
    """

    is_usable: Callable[[DriverT], bool]
    prepare: Job[DriverT, None]
    restore: Job[DriverT, None]
    accept: Callable[[DriverT, MutableMapping[Any, Any]], Awaitable[bool]]
    check_owner: Callable[[DriverT], None]
    abandon: Callable[[AsyncConnection], Awaitable[None]]
    connect_grace: float
    abort: Callable[[DriverT], None] | None = None


class ConnectionPool(Generic[DriverT]):
    """Checks connections out of an engine's pool and discards broken ones.

    After `close`, which precedes the disposal of the engine, a call that is still in progress discards its connection:
    nobody would close one that returns to the pool of an engine that was disposed of.
    """

    def __init__(self, engine: AsyncEngine, hooks: DriverHooks[DriverT]) -> None:
        self._engine = engine
        self._hooks = hooks
        self.is_in_memory = isinstance(engine.pool, StaticPool)
        """Whether the pool has a single connection to a database in memory, which exists only while it is open."""
        self._has_checked_idle = False
        self._is_closed = False
        self._returning: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Return no connection to the pool any more, except that of a database in memory."""
        self._is_closed = True
        here = asyncio.get_running_loop()
        if returning := {task for task in self._returning if task.get_loop() is here}:
            await asyncio.wait(returning)

    async def read(self, job: Job[DriverT, ResultT], call: Call) -> ResultT:
        """Run the job on a pooled connection."""
        return await self.read_with_connection(lambda _, driver: job(driver), call)

    async def read_with_connection(
        self, job: Callable[[AsyncConnection, DriverT], Awaitable[ResultT]], call: Call
    ) -> ResultT:
        """Run a job that also needs the connection of SQLAlchemy."""
        connection, driver = await self.checkout(call)
        try:
            result = await call.run(partial(job, connection), driver, self._hooks.abort)
        except BaseException:
            await self.discard(connection, release_in_memory=True)
            raise
        await self.release(connection)
        return result

    async def checkout(self, call: Call) -> tuple[AsyncConnection, DriverT]:
        """Check out a connection; skips the closed ones, which the pool contains after a server restart.

        Raises:
            TimeoutError: The database did not accept a connection in time.
            StoreUnavailableError: No connection of the pool became free in time.
        """
        for _ in range(_MAX_DEAD_CONNECTIONS):
            connection = await self._connect_in_time(call)
            try:
                raw = await connection.get_raw_connection()
                driver: DriverT = raw.driver_connection  # type: ignore[assignment]
                self._hooks.check_owner(driver)
                if self._hooks.is_usable(driver) and await self._hooks.accept(driver, raw.info):
                    break
            except SharingError:
                await self._hooks.abandon(connection)
                raise
            except BaseException:
                await self.discard(connection, release_in_memory=True)
                raise
            await self.discard(connection)
        return connection, driver

    async def release(self, connection: AsyncConnection) -> None:
        """Return the connection to the pool, even if the caller is cancelled."""
        if self._is_closed:
            returning = asyncio.create_task(self.discard(connection, release_in_memory=True))
        else:
            returning = asyncio.create_task(connection.close())
            self._returning.add(returning)
            returning.add_done_callback(self._returning.discard)
        await _completed(returning)

    async def discard(self, connection: AsyncConnection, *, release_in_memory: bool = False) -> None:
        """Close the connection, which aborts its transaction.

        Args:
            connection: A connection that was checked out.
            release_in_memory: Whether to return a connection to the pool if it must stay open for a database in memory.
        """
        with anyio.CancelScope(shield=True):
            # `Task.cancel()` interrupts a shielded scope too; the connection must return to the pool even then.
            try:
                if not self.is_in_memory:
                    await connection.invalidate()
            finally:
                if release_in_memory or not self.is_in_memory:
                    await connection.close()

    async def _connect_in_time(self, call: Call) -> AsyncConnection:
        """A connection of the pool; does not wait long if other code has checked all connections out."""
        began_mono = time.monotonic()
        if not self._has_checked_idle:
            for driver in idle_connections(self._engine.pool):
                self._hooks.check_owner(driver)
            self._has_checked_idle = True
        try:
            if is_exhausted(self._engine.pool):
                return await self._wait_for_free(call)
            async with call.within():
                return await self._connect()
        except PoolTimeoutError as exc:
            raise _exhausted(self._engine, time.monotonic() - began_mono) from exc
        except TypeError as exc:
            raise _wrong_arguments(self._engine, exc) from exc
        except RuntimeError as exc:
            if not any(text in str(exc) for text in ("different loop", "different event loop", "loop is closed")):
                raise
            raise foreign_loop() from exc

    async def _wait_for_free(self, call: Call) -> AsyncConnection:
        seconds = min(POOL_WAIT, call.remaining_seconds())
        connecting = asyncio.create_task(_connect(self._engine))
        try:
            try:
                async with call.within(seconds):
                    await asyncio.wait((connecting,))
            except TimeoutError:
                raise _exhausted(self._engine, seconds) from None
            return connecting.result()
        except BaseException:
            connecting.cancel()
            await _wait_until_done(connecting)
            if not connecting.cancelled() and connecting.exception() is None:
                await _run_to_completion(self.discard(connecting.result(), release_in_memory=True))
            raise

    async def _connect(self) -> AsyncConnection:
        grace = self._hooks.connect_grace
        if grace < math.inf and has_idle(self._engine.pool):
            return await self._engine.connect()
        # If its connect is cancelled, aiosqlite leaks the open file, and asyncpg the error of its request for TLS. So
        # the connect is completed, and its connection returns to the pool.
        connecting = asyncio.create_task(_connect(self._engine))
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            await _wait_until_done(connecting, grace)
            if not connecting.done():  # the server does not answer
                connecting.cancel()
                await _wait_until_done(connecting)
            if not connecting.cancelled() and connecting.exception() is None:
                await self.release(connecting.result())
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
        self._is_closed = False

    @property
    def is_busy(self) -> bool:
        """Whether a job runs on the connection, or waits for it."""
        return self._waiting > 0 or self._lock.locked()

    async def write(self, job: Job[DriverT, ResultT], call: Call) -> ResultT:
        """Run the job on the connection, after all jobs that were submitted earlier."""
        # Each commit passes here, so nothing is called that it does not need.
        lock = self._lock_of_loop()
        if lock.locked() or self._waiting:
            await self._acquire(call)
        else:
            await lock.acquire()  # the lock is free, so no timer is needed
        try:
            current = self._current
            if current is None or not self._hooks.is_usable(current[1]):
                current = await self._checkout(call)
            connection, driver = current
            attempt = call.begin_attempt(driver, self._hooks.abort)
            try:
                return await job(driver)
            except BaseException as exc:
                attempt.finish()
                await self._drop(connection)
                attempt.raise_if_aborted(exc)
                raise
            finally:
                attempt.finish()
        finally:
            try:
                if self._is_closed:
                    await _run_to_completion(self._release())
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
        """Return the connection to the pool, after the jobs that were submitted earlier. Later jobs do not keep one."""
        self._is_closed = True
        async with self._lock_of_loop():
            await self._release()

    async def _release(self) -> None:
        """Return the connection to the pool as it was before `prepare`."""
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
                await self._pool.release(connection)

    async def _acquire(self, call: Call) -> asyncio.Lock:
        """The lock, once no other job holds it or waits for it."""
        lock = self._lock_of_loop()
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
        connection, driver = await self._pool.checkout(call)
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


def foreign_loop() -> SharingError:
    """The error for an engine whose connections belong to another event loop."""
    return SharingError(
        "db_engine holds connections of another event loop, which cannot be used in this one",
        "end each asyncio.run with `await engine.dispose()`, create an engine for each event loop, use "
        "poolclass=NullPool, or pass the runner a database URL instead of an engine",
    )


def forked(what: str, way_out: str) -> SharingError:
    """The error for an object that was open when the process forked, and that the child process uses."""
    return SharingError(f"{what} was opened by another process, of which this one is a fork", way_out)


def bind_pool(engine: AsyncEngine) -> None:
    """Bind the pool of a given engine to the running event loop, for as long as that loop runs.

    Raises:
        SharingError: Another running event loop uses the pool, whose locks work within one loop only.
    """
    if isinstance(engine.pool, NullPool):
        return
    here = (os.getpid(), asyncio.get_running_loop())
    places: dict[str, tuple[int, asyncio.AbstractEventLoop]] = vars(engine.pool)
    pid, loop = places.setdefault(_PLACE, here)  # atomic: of two threads, the second one gets the entry of the first
    if pid == here[0] and loop is not here[1] and loop.is_running():
        raise foreign_loop()
    places[_PLACE] = here


def _exhausted(engine: AsyncEngine, seconds: float) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"{redacted(engine.url)}: no connection of the engine's pool became free in {seconds:.3g} s "
        f"({engine.pool.status()}); a runner needs {CONNECTIONS_OF_RUNNER} connections in addition to those that "
        "other code holds; release sessions before you call the runner, enlarge the pool, or pass the runner an engine "
        "of its own or a database URL"
    )


def _wrong_arguments(engine: AsyncEngine, exc: TypeError) -> StoreError:
    return StoreError(
        f"{redacted(engine.url)}: the driver does not accept the options of the engine ({exc}); pass the runner the "
        "URL instead of an engine, or pass what the driver accepts in connect_args, such as "
        "connect_args={'server_settings': {'application_name': …}} for asyncpg"
    )


async def _connect(engine: AsyncEngine) -> AsyncConnection:
    return await engine.connect()


async def _run_to_completion(work: Coroutine[Any, Any, None]) -> None:
    """Await the work to its end even if the caller is cancelled.

    The work runs in its own task, because `Task.cancel()` interrupts a shielded scope too.
    """
    await _completed(asyncio.create_task(work))


async def _completed(task: asyncio.Task[None]) -> None:
    """Await the task to its end even if the caller is cancelled."""
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await _wait_until_done(task)
        raise


async def finish(work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """The result of the work, which is finished even if the caller is cancelled.

    Cancellation:
        Raised once the work is finished.
    """
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await _wait_until_done(task)
        if not task.cancelled():
            task.exception()  # marks it as retrieved
        raise


async def _wait_until_done(task: asyncio.Task[Any], seconds: float = math.inf) -> None:
    """Wait for the task, at most for so many seconds, ignoring cancellation of the wait."""
    until_mono = time.monotonic() + seconds
    with anyio.CancelScope(shield=True):
        while not task.done() and (left := until_mono - time.monotonic()) > 0:
            with suppress(asyncio.CancelledError):
                await asyncio.wait((task,), timeout=left if left < math.inf else None)
