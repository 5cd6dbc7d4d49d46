"""How many connections a pool gives, and how many a runner needs."""

from __future__ import annotations

from sqlalchemy.pool import AssertionPool, Pool, QueuePool

CONNECTIONS_OF_RUNNER = 3
"""One for commits, one for the renewal of leases, and one for reads."""


def capacity(pool: Pool) -> int | None:
    """The most connections that can be checked out of the pool at once; None without a limit."""
    if isinstance(pool, AssertionPool):
        return 1
    if not isinstance(pool, QueuePool):
        return None
    overflow: int = pool._max_overflow  # noqa: SLF001 (SQLAlchemy has no public attribute for it)
    return None if overflow < 0 else pool.size() + overflow


def is_exhausted(pool: Pool) -> bool:
    """Whether all connections of the pool are checked out."""
    limit = capacity(pool)
    return limit is not None and isinstance(pool, QueuePool) and pool.checkedout() >= limit
