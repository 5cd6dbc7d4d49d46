"""Calls of the server: connections, retries, time limits.

Theory of operation: a call is a list of scripts that are sent together and answered one by one. After a lost connection
or an answer that does not come, it is unknown which of them were executed. They are sent again over another connection:
each script that writes recognises by a token of its caller that it was executed before. A cancelled call closes its
connection, because the answers are still to come; other calls have connections of their own.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from spine_async.errors import SharingError, StoreError
from spine_async.storage.redis.driver import ConnectionPool, NoBackoff, Redis, Retry, exceptions
from spine_async.storage.redis.errors import is_transient, translated
from spine_async.storage.redis.request import Request
from spine_async.storage.redis.scripts import SCRIPTS
from spine_async.storage.redis.settings_check import warn_of_settings

DELAYS = (0.02, 0.2, 1.0, 2.0, 4.0)
"""Seconds before each retry. A restart of the server or a failover takes a few seconds."""
_ATTEMPTS = 2
"""Attempts without an answer that fit into the time of a call."""
_READERS = 16
"""Reads at the same time; writes and renewals never wait for them."""


class RedisServer:
    """One server, or what a client of the caller reaches.

    Args:
        connect: Creates the client; called in the event loop that uses it.
        location: The server without credentials, for messages.
        timeout: Limit for one call with its retries, in seconds.
        is_given: Whether the client belongs to the caller, who closes it.
    """

    def __init__(self, connect: Callable[[], Redis], location: str, timeout: float, *, is_given: bool = False) -> None:
        self.location = location
        self._connect = connect
        self._timeout = timeout
        self._is_given = is_given
        self._client: Redis | None = None
        self._place: tuple[int, asyncio.AbstractEventLoop] | None = None
        self._readers = asyncio.Semaphore(_READERS)
        self._is_checked = False

    async def read(self, requests: Sequence[Request]) -> list[Any]:
        """The answers to scripts that change nothing."""
        self._bound()
        readers = self._readers
        try:
            async with asyncio.timeout(self._timeout):
                await readers.acquire()
        except TimeoutError as exc:
            raise translated(exc, self.location, self._timeout) from exc
        try:
            return await self.call(requests)
        finally:
            readers.release()

    async def call(self, requests: Sequence[Request]) -> list[Any]:
        """The answers to scripts.

        Raises:
            StoreUnavailableError: The server cannot be reached, or does not answer in time.
            StoreError: The server refuses a script.
            SharingError: The store is in use in another event loop, or in the parent of this process.
        """
        answers: list[Any] = await self._retried(lambda client: _execute(client, requests))
        if not self._is_checked:
            with suppress(StoreError):  # what the caller asked for is done
                await self.open()
        return answers

    async def open(self) -> None:
        """Connect, and warn once of settings with which the server loses runs."""
        if self._is_checked:
            return
        self._is_checked = True
        try:
            await self._retried(lambda client: warn_of_settings(client, self.location))
        except BaseException:
            self._is_checked = False
            raise

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        place, self._place = self._place, None
        is_here = place == (os.getpid(), asyncio.get_running_loop())
        if client is not None and is_here and not self._is_given:
            await client.aclose()

    async def _retried(self, work: Callable[[Redis], Any]) -> Any:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        for delay in (*DELAYS, None):
            try:
                async with asyncio.timeout(max(0.01, min(self._timeout / _ATTEMPTS, deadline - loop.time()))):
                    return await work(self._bound())
            except (exceptions.RedisError, OSError) as exc:  # `TimeoutError` is an `OSError`
                is_last = delay is None or loop.time() + delay > deadline or not is_transient(exc)
                if is_last:
                    raise translated(exc, self.location, self._timeout) from exc
            await asyncio.sleep(delay or 0.0)
        raise AssertionError("the last attempt returns or raises")

    def _bound(self) -> Redis:
        """The client, which belongs to one process and one event loop at a time."""
        here = (os.getpid(), asyncio.get_running_loop())
        if self._place is not None and self._place != here:
            self._check_place(self._place, here)
            self._client = None
        if self._client is None:
            self._client, self._place = self._connect(), here
            self._readers = asyncio.Semaphore(_READERS)
        return self._client

    def _check_place(
        self, place: tuple[int, asyncio.AbstractEventLoop], here: tuple[int, asyncio.AbstractEventLoop]
    ) -> None:
        if place[0] != here[0]:
            raise SharingError(
                "the store was opened by another process, of which this one is a fork",
                "close it before the fork, or start the process with the method 'spawn'",
            )
        if place[1].is_running():
            raise SharingError(
                "the store is open in another running event loop", "create a store and a runner for each event loop"
            )


def client_of(options: dict[str, Any]) -> Redis:
    """A client with connections of its own; without retries, which the caller makes."""
    pool = ConnectionPool(retry=Retry(NoBackoff(), 0), **{"protocol": 2, **options})
    return Redis.from_pool(pool)


async def _execute(client: Redis, requests: Sequence[Request]) -> list[Any]:
    """The answers to scripts; scripts that the server does not know are loaded first."""
    answers = await _send(client, requests)
    unknown = [number for number, answer in enumerate(answers) if isinstance(answer, exceptions.NoScriptError)]
    if unknown:
        for script in SCRIPTS.values():
            await client.script_load(script.text)
        for number, answer in zip(unknown, await _send(client, [requests[each] for each in unknown]), strict=True):
            answers[number] = answer
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


async def _send(client: Redis, requests: Sequence[Request]) -> list[Any]:
    pipeline = client.pipeline(transaction=False)
    for request in requests:
        pipeline.execute_command(*request.command())
    return list(await pipeline.execute(raise_on_error=False))
