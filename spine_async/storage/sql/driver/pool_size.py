"""The number of connections that a pool can provide, and the connections that are idle in it."""

from __future__ import annotations

from typing import Any

from sqlalchemy.pool import AssertionPool, Pool, QueuePool

CONNECTIONS_OF_RUNNER = 3
"""One for commits, one for the renewal of leases, and one for reads.

On PostgreSQL a store that listens for changes holds the third one. If the pool has no more, reads use the first one.
"""


def capacity(pool: Pool) -> int | None:
    """The maximum number of connections that can be checked out at once; None without a limit."""
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


def has_idle(pool: Pool) -> bool:
    """Whether the next checkout needs no new connection; False if this version of SQLAlchemy does not show it."""
    records = _idle_records(pool)  # that of a discarded connection returns to the pool without one
    return bool(records) and all(getattr(each, "dbapi_connection", None) is not None for each in records)


def idle_connections(pool: Pool) -> list[Any]:
    """The driver connections that are idle in the pool, as far as this version of SQLAlchemy shows them.

    The caller inspects them before the first checkout. A checkout may ping a connection, and this ping never ends if
    the connection belongs to another event loop or process.
    """
    adapters = [getattr(record, "dbapi_connection", None) for record in _idle_records(pool)]
    return [driver for each in adapters if (driver := getattr(each, "driver_connection", None)) is not None]


def _idle_records(pool: Pool) -> list[object]:
    queue = getattr(getattr(pool, "_pool", None), "_queue", None)
    return list(getattr(queue, "_queue", ()))
