"""Choice of the run store by the runner's settings."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from spine_async._model.config import WorkflowRunnerConfig
from spine_async.errors import StoreError
from spine_async.ports import RunStore

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

URL_VARIABLE = "SPINE_DATABASE_URL"
_TIMEOUT_PER_LEASE = 2 / 3
_MIN_TIMEOUT = 5.0  # seconds; a busy host is no outage
DEFAULT_URL = "sqlite+aiosqlite:///.spine/runs.db"


def open_store(config: WorkflowRunnerConfig, db_engine: AsyncEngine | None = None) -> RunStore:
    """Create the store for these settings. No I/O happens before the store's first use.

    The database is the first one given of: `db_engine`, `config.database_url`, the environment variable
    `SPINE_DATABASE_URL`, the SQLite file `.spine/runs.db`.

    Args:
        config: The runner's settings.
        db_engine: The user's own engine, or None.

    Raises:
        StoreError: The store or the database is not supported.
        DefinitionError: The engine is not an `AsyncEngine` of a supported driver.
        MissingExtraError: The database's driver is not installed.
    """
    if db_engine is None and config.checkpoint_storage != "database":
        raise StoreError(
            f"checkpoint_storage={config.checkpoint_storage!r} is not available yet; use checkpoint_storage='database'"
        )
    # Imported here, so that runs without checkpoints do not import SQLAlchemy.
    from spine_async.storage.sql.store import SqlRunStore  # noqa: PLC0415

    database = db_engine or config.database_url or os.environ.get(URL_VARIABLE) or DEFAULT_URL
    timeout = config.store_timeout or max(_MIN_TIMEOUT, config.lease_ttl * _TIMEOUT_PER_LEASE)
    return SqlRunStore(database, auto_migrate=config.auto_migrate, durability=config.durability, timeout=timeout)
