"""The connection on which all writes run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Generic

import anyio
from sqlalchemy.ext.asyncio import AsyncConnection

from spine_async.storage.sql.driver.connection import ConnectionPool, DriverHooks, DriverT, Job, ResultT
from spine_async.storage.sql.driver.shielded import run_to_completion
from spine_async.storage.sql.driver.time_limit import Call


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
                    await run_to_completion(self._release())
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
