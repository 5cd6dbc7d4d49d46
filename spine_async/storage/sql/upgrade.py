"""Upgrade of a database's schema on request."""

from __future__ import annotations

from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from spine_async.storage.sql.database import LazyDatabase


async def upgrade_schema(database: AsyncEngine | URL | str) -> None:
    """Create the tables of this library in the database, or migrate them to the current schema.

    For deployments that run with `auto_migrate=False`. Several processes may call it at the same time.

    Args:
        database: An engine, which is not disposed of, or the URL of the database.

    Raises:
        SchemaVersionError: The schema is newer than this library.
        StoreUnavailableError: The database cannot be reached or written.

    Cancellation:
        Atomic: the schema is either upgraded or unchanged.
    """
    opener = LazyDatabase(database, auto_migrate=True, owns_engine=False)
    try:
        await opener.upgrade()
    finally:
        await opener.close()
