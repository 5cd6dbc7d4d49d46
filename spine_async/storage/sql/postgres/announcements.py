"""Tells other processes that runs have changed, with NOTIFY.

A NOTIFY takes a lock of the whole server until its transaction has committed. So it never belongs to the transaction of
a change: a task sends it afterwards, one for all changes that were made meanwhile.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

from spine_async.errors import StoreError
from spine_async.storage.sql.postgres.background import end_tasks

if TYPE_CHECKING:
    import asyncpg

    Driver: TypeAlias = asyncpg.Connection[asyncpg.Record]

CHANNEL = "core_workflow_runs"
# Nobody needs the notification to survive a failure of the server, so its commit does not wait for the disk.
_NOTIFY = "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)"

_LATER = 0.02
"""Seconds from a notification to the next one of ended and parked runs, which often come in quick succession."""
_PAUSE = 0.005
"""Seconds between two notifications."""
_AT_CLOSE = 1.0
"""Seconds that the last notification may take."""


async def notify(driver: Driver, payload: str) -> None:
    """Send one notification."""
    await driver.execute(_NOTIFY, CHANNEL, payload)


class Announcer:
    """Sends notifications in the background, at most one at a time.

    Args:
        send: Sends a notification. Its errors are ignored, because those who miss a notification poll.
    """

    def __init__(self, send: Callable[[], Awaitable[None]]) -> None:
        self._send = send
        self._is_wanted = False
        self._hurries = asyncio.Event()
        self._sent_mono = -math.inf
        self._task: asyncio.Task[None] | None = None

    def announce(self, *, at_once: bool) -> None:
        """Send a notification soon; `at_once` even if one was sent just now, because others can do something."""
        self._is_wanted = True
        if at_once:
            self._hurries.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Send what is not sent yet."""
        self._hurries.set()
        await end_tasks([self._task] if self._task is not None else [], after=_AT_CLOSE)

    async def _run(self) -> None:
        while self._is_wanted:
            pause = self._sent_mono + _LATER - time.monotonic()
            if pause > 0 and not self._hurries.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._hurries.wait()
            self._is_wanted = False
            self._hurries.clear()
            self._sent_mono = time.monotonic()
            with suppress(StoreError):
                await self._send()
            if self._is_wanted:
                await asyncio.sleep(_PAUSE)
