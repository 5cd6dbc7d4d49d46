"""Retries of transient database errors.

Theory of operation: after an error or a lost connection the outcome of a transaction is unknown. Its connection is
dropped, and the transaction runs again on a new connection. This is safe because every retried write detects that it
has been committed before. A commit advances the run's number once and stores its `commit_id`. A creation and a claim
store a random token. A renewal and a stop request are idempotent. So the second attempt either does the work or detects
that the first one did it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from spine_async.storage.sql.driver.errors import driver_error

ResultT = TypeVar("ResultT")

DELAYS = (0.02, 0.2, 1.0, 2.0, 4.0)
"""Seconds before each retry. A server restart or a failover to a standby takes a few seconds."""

MAX_ELAPSED = 10.0
"""Seconds since the start of the first attempt after which no retry begins. Limits the total time of slow attempts."""


async def retry_if_transient(
    work: Callable[[], Awaitable[ResultT]],
    is_transient: Callable[[Exception], bool],
    max_elapsed: float = MAX_ELAPSED,
    clock: Callable[[], float] = time.monotonic,
) -> ResultT:
    """Await `work`, and retry it while it fails with transient errors.

    Args:
        work: Detects whether an earlier attempt of it was committed.
        is_transient: Whether a retry may succeed after this error of the driver.
        max_elapsed: Seconds after the first attempt began, after which no retry begins.
        clock: Measures them.

    Raises:
        Exception: The error of the last attempt.

    Cancellation:
        Takes effect at once; the work may or may not have been committed.
    """
    deadline = clock() + max_elapsed
    for delay in DELAYS:
        try:
            return await work()
        except Exception as exc:
            if not is_transient(driver_error(exc)) or clock() + delay > deadline:
                raise
        await anyio.sleep(delay)
    return await work()
