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
        StoreError: The database is not supported, or the URL of a database or a Redis server is missing or unusable.
        DefinitionError: The engine is not an `AsyncEngine` of a supported driver.
        MissingExtraError: The driver of the database, or the package `redis`, is not installed.
    """
    timeout = config.store_timeout or max(_MIN_TIMEOUT, config.lease_ttl * _TIMEOUT_PER_LEASE)
    if db_engine is None and config.checkpoint_storage == "file":
        from spine_async.storage.file.store import FileRunStore  # noqa: PLC0415 - most programs need one store only

        return FileRunStore(config.checkpoint_dir, timeout=timeout, durability=config.durability)
    if db_engine is None and config.checkpoint_storage == "redis":
        from spine_async.storage.redis.store import RedisRunStore  # noqa: PLC0415 - needs an optional dependency

        return RedisRunStore(_redis_url(config), timeout=timeout)
    # Imported here, so that runs without checkpoints do not import SQLAlchemy.
    from spine_async.storage.sql.store import SqlRunStore  # noqa: PLC0415

    database = db_engine if db_engine is not None else database_url(config)
    return SqlRunStore(database, auto_migrate=config.auto_migrate, durability=config.durability, timeout=timeout)


def _redis_url(config: WorkflowRunnerConfig) -> str:
    if config.redis_url is None:
        raise StoreError("checkpoint_storage='redis' needs redis_url, for instance 'redis://localhost:6379/0'")
    return config.redis_url


def database_url(config: WorkflowRunnerConfig) -> str:
    """The URL of the database for these settings.

    Raises:
        StoreError: The URL, or the environment variable, is empty.
    """
    if config.database_url is not None:
        if not config.database_url.strip():
            raise StoreError("database_url is empty; set a database URL, or None for the default")
        return config.database_url
    url = os.environ.get(URL_VARIABLE)
    if url is None:
        return DEFAULT_URL
    # An empty variable is mostly a secret that is missing. The default would hide that, and lose the runs of a
    # container with its file system.
    if not url.strip():
        raise StoreError(
            f"the environment variable {URL_VARIABLE} is empty; set it to a database URL, or remove it to use the file "
            ".spine/runs.db"
        )
    return url
