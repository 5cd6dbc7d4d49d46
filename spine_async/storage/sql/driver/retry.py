"""Doing a piece of work again while what goes wrong is of the passing kind.

Theory of operation: after an error or a lost connection nobody knows whether a transaction was committed. Its
connection is dropped, and the same transaction runs again on a new one. Every write of this store is such that a second
one finds the first: a commit moves the run's number on only once and leaves its `commit_id`, a creation and a claim
leave a random mark there, renewing and asking for a stop say the same twice. So the second try either does what the
first did not, or finds that it is done.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from spine_async.storage.sql.driver.errors import origin

ResultT = TypeVar("ResultT")

DELAYS = (0.02, 0.2, 1.0, 2.0, 4.0)
"""Seconds before each further try: a server that was restarted, or a standby that takes over, needs a few."""

PATIENCE = 10.0
"""Seconds after which no further try begins, where the tries themselves take long."""


async def insist(work: Callable[[], Awaitable[ResultT]], is_passing: Callable[[Exception], bool]) -> ResultT:
    """What the work gives, tried again while its errors are passing ones.

    Args:
        work: Finds what an earlier try of it has done.
        is_passing: Whether an error of the driver is worth another try.

    Raises:
        Exception: That of the last try.

    Cancellation:
        Not held up; the work may have been done or not.
    """
    give_up_at = time.monotonic() + PATIENCE
    for delay in DELAYS:
        try:
            return await work()
        except Exception as exc:
            if not is_passing(origin(exc)) or time.monotonic() + delay > give_up_at:
                raise
        await anyio.sleep(delay)
    return await work()
