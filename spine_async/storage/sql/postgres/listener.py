"""Listens to the notifications of other processes on a connection of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

import asyncpg

from spine_async.errors import SpineError
from spine_async.storage.sql.driver.connection import ConnectionPool, DriverHooks
from spine_async.storage.sql.driver.errors import ErrorMapper
from spine_async.storage.sql.driver.time_limit import TimeLimit
from spine_async.storage.sql.postgres.announcements import CHANNEL
from spine_async.storage.sql.postgres.background import end_tasks
from spine_async.storage.sql.postgres.connect import is_direct

if TYPE_CHECKING:
    Driver: TypeAlias = asyncpg.Connection[asyncpg.Record]

_log = logging.getLogger("spine_async")

_CHECK_EVERY = 20.0
"""Seconds between two checks whether a silent connection still works."""
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 5.0
"""Seconds before an attempt to connect again."""
_FIRST_ATTEMPT = 1.0
"""Seconds that a new user waits for the connection."""

_OnChange: TypeAlias = "Callable[[], None]"


class ChangeListener:
    """Calls functions after changes that others make, while there is at least one such function.

    Until the connection is made, after it was lost, and behind a connection pooler, nothing is reported; users poll.
    After a reconnection the functions are called, because a notification may have been missed.

    Args:
        token: Payload of own notifications, which are not reported.
    """

    def __init__(
        self,
        pool: ConnectionPool[Driver],
        hooks: DriverHooks[Driver],
        limit: TimeLimit,
        map_errors: ErrorMapper,
        token: str,
    ) -> None:
        self._pool = pool
        self._hooks = hooks
        self._limit = limit
        self._map_errors = map_errors
        self._token = token
        self._functions: dict[object, _OnChange] = {}
        self._has_tried = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def listen(self, on_change: _OnChange) -> Registration:
        """Register a function; waits for the first attempt to connect, but not for long."""
        registration = Registration(self)
        self._functions[registration] = on_change
        if self._task is None:
            self._has_tried.clear()
            self._task = asyncio.create_task(self._run())
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_ATTEMPT):
                    await self._has_tried.wait()
        except BaseException:
            await self.remove(registration)
            raise
        return registration

    async def remove(self, registration: object) -> None:
        """Forget a function; without functions the connection returns to the pool."""
        self._functions.pop(registration, None)
        if not self._functions:
            await self._stop()

    def report(self) -> None:
        """Call the functions."""
        for function in list(self._functions.values()):
            function()

    async def close(self) -> None:
        """Forget all functions."""
        self._functions.clear()
        await self._stop()

    async def _stop(self) -> None:
        task, self._task = self._task, None
        await end_tasks([task] if task is not None else [])

    async def _run(self) -> None:
        delay = _FIRST_DELAY
        while True:
            try:
                with self._map_errors:
                    if not await self._listen_until_lost():
                        return
                delay = _FIRST_DELAY
            except SpineError as exc:
                if _is_cancelled():  # the cancellation reached the driver, which raised an error of its own
                    return
                _log.debug("no notifications, trying again in %g s: %s", delay, exc)
            finally:
                self._has_tried.set()
            await asyncio.sleep(delay)
            delay = min(2 * delay, _LONGEST_DELAY)

    async def _listen_until_lost(self) -> bool:
        """Report notifications until the connection is lost; False if there are none behind a pooler."""
        connection, driver = await self._pool.checkout(self._limit.call("listen"))
        try:
            if not await self._run_limited(is_direct, driver):
                return False
            lost = asyncio.Event()
            driver.add_termination_listener(lambda _: lost.set())
            await self._run_limited(self._add_listener, driver)
            if self._has_tried.is_set():
                self.report()
            self._has_tried.set()
            await self._wait_until_lost(driver, lost)
        finally:
            # The connection is not used again, so nobody gets the notifications by mistake.
            await self._pool.discard(connection)
        return True

    async def _wait_until_lost(self, driver: Driver, lost: asyncio.Event) -> None:
        while not lost.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_CHECK_EVERY):
                    await lost.wait()
            if not lost.is_set():
                await self._run_limited(_check, driver)

    async def _run_limited(self, job: Callable[[Driver], object], driver: Driver) -> object:
        return await self._limit.call("listen").run(job, driver, self._hooks.abort)  # type: ignore[arg-type]

    async def _add_listener(self, driver: Driver) -> None:
        await driver.add_listener(CHANNEL, self._on_notification)

    def _on_notification(self, driver: object, pid: int, channel: str, payload: object) -> None:
        if payload != self._token:
            self.report()


class Registration:
    """A function that is called after changes, until it is closed."""

    def __init__(self, listener: ChangeListener) -> None:
        self._listener = listener

    async def close(self) -> None:
        """Report nothing more."""
        await self._listener.remove(self)


async def _check(driver: Driver) -> None:
    await driver.execute("SELECT 1")


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
