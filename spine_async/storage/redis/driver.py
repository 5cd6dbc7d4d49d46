"""What the store uses of redis-py, which is an optional dependency.

Raises:
    MissingExtraError: The package `redis` is not installed; raised by the import of this module.
"""

from __future__ import annotations

from importlib.util import find_spec

from spine_async.errors import MissingExtraError

if find_spec("redis") is None:
    raise MissingExtraError("the Redis store", "redis")

from redis import exceptions
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

UNNAMED: dict[str, None] = (
    {"driver_info": None} if find_spec("redis.driver_info") is not None else {"lib_name": None, "lib_version": None}
)
"""Options with which a connection does not send the name and version of redis-py, which it would read from files."""

__all__ = ["UNNAMED", "Connection", "ConnectionPool", "NoBackoff", "Redis", "Retry", "exceptions", "parse_url"]
