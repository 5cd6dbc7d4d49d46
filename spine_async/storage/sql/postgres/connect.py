"""Connects to PostgreSQL, directly or through a connection pooler.

A pooler such as PgBouncer may use a different server connection for each transaction of a client. A named prepared
statement belongs to one server connection. In the next transaction its name may be unknown, or belong to a statement of
another client. So behind a pooler no statement has a name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import asyncpg

if TYPE_CHECKING:
    Driver: TypeAlias = asyncpg.Connection[asyncpg.Record]


def engine_arguments(arguments: Mapping[str, object]) -> dict[str, object]:
    """The `connect_args` of an engine.

    Args:
        arguments: Arguments of `asyncpg.connect`, and `prepared_statement_cache_size`.
    """
    # Only the first connection of SQLAlchemy prepares statements, so a cache would save nothing.
    unnamed = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": _no_name}
    return {"async_creator_fn": Connector(), **arguments, **unnamed}


class Connector:
    """Connects with `asyncpg.connect`; disables named statements if the server is behind a pooler.

    An explicit `statement_cache_size` is left as it is.
    """

    def __init__(self) -> None:
        self._found_pooler = False

    async def __call__(self, *args: Any, **arguments: Any) -> Driver:
        if "statement_cache_size" in arguments:
            return await _connect(*args, **arguments)
        if not self._found_pooler:
            driver = await _connect(*args, **arguments)
            if await is_direct(driver):
                return driver
            self._found_pooler = True
            await driver.close()
        return await _connect(*args, **arguments, statement_cache_size=0)


async def _connect(*args: Any, **arguments: Any) -> Driver:
    return cast("Driver", await asyncpg.connect(*args, **arguments))


async def is_direct(driver: Driver) -> bool:
    """Whether the process id from the handshake is that of the server process; a pooler invents one.

    The tag of the result contains the number of rows. So the statement need not be prepared.
    """
    try:
        tag = await driver.execute(f"SELECT 1 WHERE pg_catalog.pg_backend_pid() = {int(driver.get_server_pid())}")
    except BaseException:
        driver.terminate()
        raise
    return tag == "SELECT 1"


def _no_name() -> str:
    return ""
