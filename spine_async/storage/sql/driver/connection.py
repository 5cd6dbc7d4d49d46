"""Driver connections from the pool of a SQLAlchemy engine, for code that calls the driver directly."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import anyio
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import StaticPool

from spine_async.errors import SharingError, StoreError, StoreUnavailableError
from spine_async.storage.sql.driver.pool_size import CONNECTIONS_OF_RUNNER, has_idle, idle_connections, is_exhausted
from spine_async.storage.sql.driver.sharing import foreign_loop
from spine_async.storage.sql.driver.shielded import completed, run_to_completion, wait_until_done
from spine_async.storage.sql.driver.time_limit import Call
from spine_async.storage.sql.driver.url import redacted

DriverT = TypeVar("DriverT")
ResultT = TypeVar("ResultT")
Job = Callable[[DriverT], Awaitable[ResultT]]

_MAX_DEAD_CONNECTIONS = 100  # more than any pool holds
_CLOSE_WAIT = 1.0  # seconds

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
    nobody would close one that returns to the pool of an engine that was disposed of. `close` waits a short time for
    such calls, because the event loop may end just after it.
    """

    def __init__(self, engine: AsyncEngine, hooks: DriverHooks[DriverT]) -> None:
        self._engine = engine
        self._hooks = hooks
        self.is_in_memory = isinstance(engine.pool, StaticPool)
        """Whether the pool has a single connection to a database in memory, which exists only while it is open."""
        self._has_checked_idle = False
        self._is_closed = False
        self._connecting = 0
        self._returning: set[asyncio.Task[None]] = set()
        self._checked_out: dict[int, DriverT] = {}  # by the identity of the connection
        self._returned = asyncio.Event()

    async def close(self) -> None:
        """Return no connection to the pool any more, except that of a database in memory.

        Waits at most `_CLOSE_WAIT` seconds until calls that are in progress have discarded their connections.
        """
        self._is_closed = True
        self._returned = asyncio.Event()  # of this event loop
        here = asyncio.get_running_loop()
        with anyio.move_on_after(_CLOSE_WAIT):
            while True:
                self._returned.clear()
                if returning := {task for task in self._returning if task.get_loop() is here}:
                    await asyncio.wait(returning)
                elif self._connecting or self._checked_out:
                    await self._returned.wait()
                else:
                    break

    def abort(self, *, with_idle: bool) -> None:
        """End the connections in use at once, as far as the driver can; `with_idle` those in the pool too."""
        abort = self._hooks.abort
        if abort is not None:
            for driver in [*self._checked_out.values(), *(idle_connections(self._engine.pool) if with_idle else ())]:
                abort(driver)

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
        self._connecting += 1
        try:
            connection, driver = await self._usable_connection(call)
            self._checked_out[id(connection)] = driver
        finally:
            self._connecting -= 1
            self._returned.set()
        return connection, driver

    async def _usable_connection(self, call: Call) -> tuple[AsyncConnection, DriverT]:
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
        discards = self._is_closed
        returning = asyncio.create_task(
            self.discard(connection, release_in_memory=True) if discards else connection.close()
        )
        self._returning.add(returning)
        returning.add_done_callback(self._returning.discard)
        self._forget(connection)
        await completed(returning)

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
                try:
                    if release_in_memory or not self.is_in_memory:
                        await connection.close()
                finally:
                    self._forget(connection)

    def _forget(self, connection: AsyncConnection) -> None:
        self._checked_out.pop(id(connection), None)
        self._returned.set()

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
            await wait_until_done(connecting)
            if not connecting.cancelled() and connecting.exception() is None:
                await run_to_completion(self.discard(connecting.result(), release_in_memory=True))
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
            await wait_until_done(connecting, grace)
            if not connecting.done():  # the server does not answer
                connecting.cancel()
                await wait_until_done(connecting)
            if not connecting.cancelled() and connecting.exception() is None:
                await self.release(connecting.result())
            raise


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
