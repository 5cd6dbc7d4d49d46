"""Checks the connection that a caller gives to the library, to write in its transaction."""

from __future__ import annotations

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from spine_async.errors import DefinitionError

_WANTED = "connection must be an AsyncConnection or AsyncSession of SQLAlchemy"


async def caller_connection(given: object, driver: str) -> AsyncConnection:
    """The connection of the caller.

    Args:
        given: What the caller gave.
        driver: Name of the driver that the store uses.

    Raises:
        DefinitionError: It is something else, is closed, or uses another driver.
    """
    if not isinstance(given, (AsyncConnection, AsyncSession)):
        raise DefinitionError(f"{_WANTED}, it is a {type(given).__module__}.{type(given).__qualname__}")
    connection = await _connection_of(given) if isinstance(given, AsyncSession) else given
    if connection.dialect.driver != driver:
        found = f"{connection.dialect.name}+{connection.dialect.driver}"
        raise DefinitionError(f"connection uses {found}, the runs are stored through {driver}; use the same database")
    if connection.closed:
        raise DefinitionError("connection is closed; call this inside of its transaction")
    return connection


async def _connection_of(session: AsyncSession) -> AsyncConnection:
    try:
        return await session.connection()
    except SQLAlchemyError as exc:
        raise DefinitionError(f"the AsyncSession has no usable connection ({exc})") from exc
