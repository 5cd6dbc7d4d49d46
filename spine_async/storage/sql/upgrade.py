"""Bringing a database's schema up to date on request."""

from __future__ import annotations

from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from spine_async.storage.sql.database import DatabaseAccess


async def upgrade_schema(database: AsyncEngine | URL | str) -> None:
    """Create the tables of this library in the database, or bring them up to date.

    For deployments that run with `auto_migrate=False`. Any number of processes may call it at once.

    Args:
        database: An engine, which stays open, or the URL of the database.

    Raises:
        SchemaVersionError: The database is newer than this library.
        StoreUnavailableError: It cannot be reached or written.

    Cancellation:
        The schema is either upgraded or as it was.
    """
    access = DatabaseAccess(database, auto_migrate=True, owns_engine=False)
    try:
        await access.upgrade()
    finally:
        await access.close()
