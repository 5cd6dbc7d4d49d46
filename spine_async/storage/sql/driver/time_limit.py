"""Time limits of database calls, and warnings about slow ones.

Theory of operation: a call has a deadline for all its attempts, and each attempt has half of that time. So a connection
that has become silent is replaced by a new one before the call fails. An attempt is not cancelled: its connection is
aborted, which makes the driver raise. A cancelled driver would send its cancel request through the same silent network.
Time in which the process is suspended does not count (`awake_clock`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

from spine_async.storage.sql.driver.awake_clock import BEAT, AwakeClock
from spine_async.storage.sql.driver.retry import retry_after

DEFAULT_SECONDS = 10.0
"""Time limit of a call, unless the store is created with another one."""

CREATION_SECONDS = 60.0
"""Time limit of the creation of the tables in an empty database, with the wait for others that create them."""

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
        self.clock = AwakeClock()
        self._watched: set[Call | Attempt] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_ticking = False

    def begin(self, watched: Call | Attempt) -> None:
        """Watch over a call or an attempt until `end`. One timer serves all, because a timer for each costs more."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._is_ticking = loop, False
            self._watched.clear()
        self._watched.add(watched)
        if not self._is_ticking:
            self._is_ticking = True
            self.clock.beat()
            loop.call_later(BEAT, self._tick, loop)

    def end(self, watched: Call | Attempt) -> None:
        """Stop watching over a call or an attempt."""
        self._watched.discard(watched)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self._loop:
            return
        self._is_ticking = bool(self._watched)
        if not self._is_ticking:
            self.clock.rest()
            return
        self.clock.beat()
        now = self.clock.now()
        for watched in list(self._watched):
            watched.check(now)
        loop.call_later(BEAT, self._tick, loop)

    def call(self, name: str) -> Call:
        """Begin a call."""
        return Call(name, self, self.seconds)

    def renewal(self, ttl: float) -> Call:
        """Begin a renewal of leases by `ttl` seconds; 0 ends them. The engine repeats a renewal that fails."""
        seconds = max(ttl / _RENEWALS_PER_LEASE, _MIN_RENEWAL_SECONDS) if ttl > 0 else _EXPIRY_SECONDS
        return Call("renew", self, min(seconds, self.seconds), max_attempts=1)


class Call:
    """One call of a database, with all its attempts.

    Args:
        name: The operation, for messages.
        limit: The limit of its database.
        seconds: How long the call may take.
        max_attempts: Number of attempts without an answer that fit into this time.
    """

    __slots__ = ("_attempt", "_deadline", "_is_watched", "_limit", "_max_attempts", "name", "seconds")

    def __init__(self, name: str, limit: TimeLimit, seconds: float, max_attempts: int = 2) -> None:
        self.name = name
        self.seconds = seconds
        self._limit = limit
        self._max_attempts = max_attempts
        self._deadline = limit.clock.now() + seconds
        self._attempt: Attempt | None = None
        self._is_watched = False

    async def retry(
        self, attempt: Callable[[Call], Awaitable[ResultT]], is_transient: Callable[[Exception], bool]
    ) -> ResultT:
        """The result of `attempt`, which is repeated after transient errors until the deadline.

        Raises:
            TimeoutError: The database did not answer in time.
        """
        self._is_watched = True
        self._limit.begin(self)
        try:
            try:
                return await attempt(self)
            except Exception as exc:  # noqa: BLE001 - decided by `retry_after`
                failed = [exc]
            return await retry_after(
                failed.pop(), partial(attempt, self), is_transient, self._deadline, self._limit.clock.now
            )
        except TimeoutError as exc:
            raise self.timeout_error(self.seconds) from exc
        finally:
            self._is_watched = False
            self._limit.end(self)

    def check(self, now: float) -> None:
        """Check the attempt that runs. The call is watched between its attempts too, so that the clock is informed."""
        if self._attempt is not None:
            self._attempt.check(now)

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
        attempt = self.begin_attempt(driver, abort)
        try:
            return await job(driver)
        except Exception as exc:
            attempt.raise_if_aborted(exc)
            raise
        finally:
            attempt.finish()

    def begin_attempt(self, driver: DriverT, abort: Callable[[DriverT], None] | None) -> Attempt:
        """Watch over an attempt as `run` does, until its `finish`."""
        attempt = Attempt(self, partial(abort, driver) if abort is not None else None)
        if self._is_watched:
            self._attempt = attempt
        else:
            self._limit.begin(attempt)
        return attempt

    @asynccontextmanager
    async def within(self, seconds: float | None = None) -> AsyncIterator[None]:
        """Cancel the block after that time; None means the attempt's time limit.

        Raises:
            TimeoutError: The block was cancelled.
        """
        limit = self.attempt_seconds() if seconds is None else seconds
        try:
            async with asyncio.timeout(None) as timeout:
                wait = Attempt(self, partial(timeout.reschedule, 0.0), limit)
                wait.is_reported = True  # the database was not asked yet
                self._limit.begin(wait)
                try:
                    yield
                finally:
                    self._limit.end(wait)
        except TimeoutError as exc:
            raise self.timeout_error(limit) from exc

    def now(self) -> float:
        """The time by the clock of the limit."""
        return self._limit.clock.now()

    def attempt_seconds(self, began: float | None = None) -> float:
        """How long an attempt may take that began at this time of the clock; None means now."""
        left = self._deadline - (self.now() if began is None else began)
        return max(0.01, min(self.seconds / self._max_attempts, left))

    def remaining_seconds(self) -> float:
        """How long the call may take from now on, with all its attempts."""
        return max(0.01, self._deadline - self.now())

    def end(self, attempt: Attempt) -> None:
        """Stop watching over an attempt."""
        if self._attempt is attempt:
            self._attempt = None
        else:
            self._limit.end(attempt)

    def warn_slow(self, seconds: float) -> None:
        """Report an attempt that has not ended after `seconds`."""
        _log.warning("%s has not answered for %.1f s (%s)", self._limit.database, seconds, self.name)

    def timeout_error(self, seconds: float) -> TimeoutError:
        """The error of a call or an attempt that took so long."""
        return TimeoutError(f"no answer within {seconds:.3g} s ({self.name})")


class Attempt:
    """An attempt that has not ended; `end` ends it at once."""

    __slots__ = ("_limit", "began", "call", "end", "is_aborted", "is_reported")

    def __init__(self, call: Call, end: Callable[[], None] | None, limit: float | None = None) -> None:
        self.call = call
        self.end = end
        self.began = call.now()
        self._limit = limit
        self.is_aborted = False
        self.is_reported = False

    @property
    def limit(self) -> float:
        """How many seconds it may take."""
        return self.call.attempt_seconds(self.began) if self._limit is None else self._limit

    def finish(self) -> None:
        """Stop watching over it."""
        self.call.end(self)

    def raise_if_aborted(self, error: BaseException) -> None:
        """Raise `TimeoutError` if the attempt raised `error` because its connection was aborted."""
        if self.is_aborted and isinstance(error, Exception):
            raise self.call.timeout_error(self.limit) from error

    def check(self, now: float) -> None:
        """Report the attempt if it is slow, and abort it at its limit."""
        elapsed = now - self.began
        if elapsed >= SLOW_AFTER and not self.is_reported:
            self.is_reported = True
            self.call.warn_slow(elapsed)
        if elapsed >= self.limit and self.end is not None and not self.is_aborted:
            self.is_aborted = True
            self.end()
