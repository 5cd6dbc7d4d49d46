"""Time limits of database calls, and warnings about slow ones.

Theory of operation: a call has a deadline for all its attempts, and each attempt has half of that time. So a connection
that has become silent is replaced by a new one before the call fails. An attempt is not cancelled: its connection is
aborted, which makes the driver raise. A cancelled driver would send its cancel request through the same silent network.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from spine_async.storage.sql.driver.retry import retry_if_transient

DEFAULT_SECONDS = 10.0
"""Time limit of a call, unless the store is created with another one."""

UPGRADE_SECONDS = 3600.0
"""Time limit of a migration of the schema, which may rewrite large tables."""

SLOW_AFTER = 1.0
"""Seconds after which a warning reports an attempt that has not ended."""

DriverT = TypeVar("DriverT")
ResultT = TypeVar("ResultT")

_log = logging.getLogger("spine_async")


_RENEWALS_PER_LEASE = 3
_MIN_RENEWAL_SECONDS = 0.5
_EXPIRY_SECONDS = 1.0


class TimeLimit:
    """The time limit of calls to one database.

    Args:
        database: Name of the database, for messages.
        seconds: How long a call may take, with all its attempts.
    """

    def __init__(self, database: str, seconds: float) -> None:
        self.database = database
        self.seconds = seconds

    def call(self, name: str) -> Call:
        """Begin a call."""
        return Call(name, self.database, self.seconds)

    def renewal(self, ttl: float) -> Call:
        """Begin a renewal of leases by `ttl` seconds, or their end if it is 0. The engine repeats it if it fails."""
        seconds = max(ttl / _RENEWALS_PER_LEASE, _MIN_RENEWAL_SECONDS) if ttl > 0 else _EXPIRY_SECONDS
        return Call("renew", self.database, min(seconds, self.seconds), max_attempts=1)


class Call:
    """One call of a database, with all its attempts.

    Args:
        name: The operation, for messages.
        database: Name of the database, for messages.
        seconds: How long the call may take.
        max_attempts: How many attempts that do not get an answer fit into that time.
    """

    __slots__ = ("_database", "_deadline", "_max_attempts", "name", "seconds")

    def __init__(self, name: str, database: str, seconds: float, max_attempts: int = 2) -> None:
        self.name = name
        self.seconds = seconds
        self._database = database
        self._max_attempts = max_attempts
        self._deadline = time.monotonic() + seconds

    async def retry(
        self, attempt: Callable[[Call], Awaitable[ResultT]], is_transient: Callable[[Exception], bool]
    ) -> ResultT:
        """The result of `attempt`, which is repeated after transient errors until the deadline.

        Raises:
            TimeoutError: The database did not answer in time.
        """
        try:
            return await retry_if_transient(lambda: attempt(self), is_transient, self.seconds)
        except TimeoutError as exc:
            raise self._timeout(self.seconds) from exc

    async def run(
        self, job: Callable[[DriverT], Awaitable[ResultT]], driver: DriverT, abort: Callable[[DriverT], None] | None
    ) -> ResultT:
        """Run one attempt, and abort its connection at the attempt's time limit.

        Args:
            job: The attempt.
            driver: Its connection.
            abort: Ends the connection at once, so that the job raises; None if the job limits itself.

        Raises:
            TimeoutError: The connection was aborted.
        """
        watch = _Watch(self, driver, abort)
        try:
            return await job(driver)
        except Exception as exc:
            if watch.is_aborted:
                raise self._timeout(watch.limit) from exc
            raise
        finally:
            watch.cancel()

    @asynccontextmanager
    async def within(self) -> AsyncIterator[None]:
        """Cancel the block at the attempt's time limit.

        Raises:
            TimeoutError: The block was cancelled.
        """
        seconds = self.attempt_seconds()
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError as exc:
            raise self._timeout(seconds) from exc

    def attempt_seconds(self) -> float:
        """How long an attempt that begins now may take."""
        return max(0.01, min(self.seconds / self._max_attempts, self._deadline - time.monotonic()))

    def warn_slow(self, seconds: float) -> None:
        """Report an attempt that has not ended after `seconds`."""
        _log.warning("%s has not answered for %.1f s (%s)", self._database, seconds, self.name)

    def _timeout(self, seconds: float) -> TimeoutError:
        return TimeoutError(f"no answer within {seconds:.3g} s ({self.name})")


class _Watch(Generic[DriverT]):
    """Timer of one attempt: first it warns, then it aborts the connection."""

    __slots__ = ("_abort", "_call", "_driver", "_loop", "_timer", "is_aborted", "limit")

    def __init__(self, call: Call, driver: DriverT, abort: Callable[[DriverT], None] | None) -> None:
        self._call = call
        self._driver = driver
        self._abort = abort
        self.limit = call.attempt_seconds()
        self.is_aborted = False
        self._loop = asyncio.get_running_loop()
        self._timer = (
            self._loop.call_later(SLOW_AFTER, self._warn)
            if self.limit > SLOW_AFTER
            else self._loop.call_later(self.limit, self._end)
        )

    def cancel(self) -> None:
        """Stop the timer."""
        self._timer.cancel()

    def _warn(self) -> None:
        self._call.warn_slow(SLOW_AFTER)
        self._timer = self._loop.call_later(self.limit - SLOW_AFTER, self._end)

    def _end(self) -> None:
        if self._abort is not None:
            self.is_aborted = True
            self._abort(self._driver)
