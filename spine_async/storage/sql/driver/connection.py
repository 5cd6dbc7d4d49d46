"""Connections of an engine's pool, lent to jobs that speak to the driver itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import anyio
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import StaticPool

DriverT = TypeVar("DriverT")
ResultT = TypeVar("ResultT")
Job = Callable[[DriverT], Awaitable[ResultT]]

_STALE_LIMIT = 100  # more dead connections than any pool keeps


@dataclass(frozen=True, slots=True)
class DriverHabits(Generic[DriverT]):
    """What is peculiar to a driver.

    Attributes:
        is_usable: Whether the connection is still open.
        prepare: Makes a connection ready for writing.
        restore: Undoes that, before the pool has the connection back.
        opens_at_once: Whether opening takes no time that could be worth cancelling.
    """

    is_usable: Callable[[DriverT], bool]
    prepare: Job[DriverT, None]
    restore: Job[DriverT, None]
    opens_at_once: bool = False


class Lender(Generic[DriverT]):
    """Lends connections: one that is kept for writing, and others for reading.

    The writing connection stays checked out between commits, since taking it from the pool and resetting it would cost
    more than the commit. Whoever writes next waits for a lock. A connection that something went wrong on is dropped.
    """

    def __init__(self, engine: AsyncEngine, habits: DriverHabits[DriverT]) -> None:
        self._engine = engine
        self._habits = habits
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()
        self._kept: tuple[AsyncConnection, DriverT] | None = None
        # The one connection of a database in memory is the database: it is never thrown away.
        self._is_irreplaceable = isinstance(engine.pool, StaticPool)

    async def write(self, job: Job[DriverT, ResultT]) -> ResultT:
        """Run the job on the connection that is kept for writing."""
        async with self._turn():
            connection, driver = await self._writer()
            try:
                return await job(driver)
            except BaseException:
                await self._give_up(connection)
                raise

    async def read(self, job: Job[DriverT, ResultT]) -> ResultT:
        """Run the job on a connection of the pool."""
        connection, driver = await self._checked_out()
        try:
            result = await job(driver)
        except BaseException:
            await self._discard(connection, is_final=True)
            raise
        await _through(connection.close())
        return result

    async def close(self) -> None:
        """Give the writing connection back to the pool."""
        async with self._turn():
            kept, self._kept = self._kept, None
            if kept is None:
                return
            connection, driver = kept
            with anyio.CancelScope(shield=True):
                try:
                    if self._habits.is_usable(driver):
                        await self._habits.restore(driver)
                    else:
                        await connection.invalidate()
                finally:
                    await connection.close()

    def _turn(self) -> asyncio.Lock:
        """The lock of the running loop; one of a loop that is gone may never have been released."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._lock = loop, asyncio.Lock()
        return self._lock

    async def _writer(self) -> tuple[AsyncConnection, DriverT]:
        if self._kept is not None and self._habits.is_usable(self._kept[1]):
            return self._kept
        if self._kept is not None:
            await self._give_up(self._kept[0])
        connection, driver = await self._checked_out()
        try:
            await self._habits.prepare(driver)
        except BaseException:
            await self._discard(connection)
            raise
        self._kept = connection, driver
        return self._kept

    async def _give_up(self, connection: AsyncConnection) -> None:
        if not self._is_irreplaceable:
            self._kept = None
        await self._discard(connection)

    async def _checked_out(self) -> tuple[AsyncConnection, DriverT]:
        """A connection that is not known to be dead: those of a server that was restarted are passed over."""
        for _ in range(_STALE_LIMIT):
            connection = await self._opened()
            try:
                driver: DriverT = (await connection.get_raw_connection()).driver_connection  # type: ignore[assignment]
            except BaseException:
                await self._discard(connection)
                raise
            if self._habits.is_usable(driver):
                break
            await self._discard(connection)
        return connection, driver

    async def _opened(self) -> AsyncConnection:
        if not self._habits.opens_at_once:
            return await self._engine.connect()
        # aiosqlite leaves the file open where its opening is cancelled, so that is waited for and then undone.
        opening = asyncio.create_task(_connect(self._engine))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            await _until_done(opening)
            if not opening.cancelled() and opening.exception() is None:
                closing = asyncio.create_task(self._discard(opening.result()))
                await _until_done(closing)
            raise

    async def _discard(self, connection: AsyncConnection, *, is_final: bool = False) -> None:
        """Close the connection, so that nothing begun on it goes on; `is_final` where a kept one is given back too."""
        with anyio.CancelScope(shield=True):
            # A native cancellation pierces the shield, and the pool must have its place back even so.
            try:
                if not self._is_irreplaceable:
                    await connection.invalidate()
            finally:
                if is_final or not self._is_irreplaceable:
                    await connection.close()


async def _connect(engine: AsyncEngine) -> AsyncConnection:
    return await engine.connect()


async def _through(work: Coroutine[Any, Any, None]) -> None:
    """Do the work to its end: in a task of its own, since a native cancellation pierces a shield."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await _until_done(task)
        raise


async def _until_done(task: asyncio.Task[Any]) -> None:
    """Wait for a task, however often the waiting is cancelled."""
    with anyio.CancelScope(shield=True):
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait((task,))
