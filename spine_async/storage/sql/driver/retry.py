"""Retries of transient database errors.

Theory of operation: after an error or a lost connection the outcome of a transaction is unknown. Its connection is
dropped, and the transaction runs again on a new connection. This is safe because every retried write detects that it
has been committed before. A commit advances the run's number once and stores its `commit_id`. A creation and a claim
store a random token. A renewal and a stop request are idempotent. So the second attempt either does the work or detects
that the first one did it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from spine_async.storage.sql.driver.errors import driver_error

ResultT = TypeVar("ResultT")

DELAYS = (0.02, 0.2, 1.0, 2.0, 4.0)
"""Seconds before each retry. A server restart or a failover to a standby takes a few seconds."""


async def retry_after(
    error: Exception,
    work: Callable[[], Awaitable[ResultT]],
    is_transient: Callable[[Exception], bool],
    deadline: float,
    clock: Callable[[], float],
) -> ResultT:
    """Retry `work`, whose first attempt has raised `error`, while it fails with transient errors.

    Args:
        error: What the last attempt raised.
        work: Detects whether an earlier attempt of it was committed.
        is_transient: Whether a retry may succeed after this error of the driver.
        deadline: Time of the clock after which no retry begins.
        clock: Measures it.

    Raises:
        Exception: The error of the last attempt.

    Cancellation:
        Takes effect at once; the work may or may not have been committed.
    """
    try:
        for delay in DELAYS:
            if not is_transient(driver_error(error)) or clock() + delay > deadline:
                raise error
            await anyio.sleep(delay)
            try:
                return await work()
            except Exception as exc:  # noqa: BLE001 - decided by the next iteration
                error = exc
        raise error
    finally:
        del error  # breaks the reference cycle with its traceback
