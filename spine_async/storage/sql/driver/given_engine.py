"""Checks the engine that a user gives to the library."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import StaticPool

from spine_async.errors import DefinitionError
from spine_async.storage.sql.driver.pool_size import CONNECTIONS_OF_RUNNER, capacity
from spine_async.storage.sql.driver.sqlite_options import unusable_option


def check_engine(engine: object) -> AsyncEngine:
    """The argument if it is an engine that the library can use. Performs no I/O.

    Raises:
        DefinitionError: It is not an `AsyncEngine` of a supported driver, or its configuration cannot work.
    """
    wanted = (
        "an AsyncEngine: create_async_engine('sqlite+aiosqlite:///…') or create_async_engine('postgresql+asyncpg://…')"
    )
    if not isinstance(engine, AsyncEngine):
        kind = type(engine)
        hint = "a synchronous Engine" if kind.__module__.startswith("sqlalchemy.") else f"of type {kind.__name__}"
        raise DefinitionError(f"db_engine is {hint}; it must be {wanted}")
    if engine.dialect.driver not in {"aiosqlite", "asyncpg"}:
        raise DefinitionError(f"db_engine uses {engine.dialect.name}+{engine.dialect.driver}; it must be {wanted}")
    for problem in (_driver_problem(engine), _schema_problem(engine), _pool_problem(engine)):
        if problem is not None:
            raise DefinitionError(f"db_engine has {problem}")
    return engine


def _driver_problem(engine: AsyncEngine) -> str | None:
    if engine.dialect.name == "sqlite":
        return unusable_option(engine.url)
    if isinstance(engine.pool, StaticPool):
        return "poolclass=StaticPool, a single connection, which concurrent statements cannot share; remove poolclass"
    return None


def _schema_problem(engine: AsyncEngine) -> str | None:
    schemas = engine.sync_engine.get_execution_options().get("schema_translate_map") or {}
    if schemas.get(None) is None:
        return None
    return (
        "a schema_translate_map, which does not apply to the statements of this library; pass the runner an engine "
        "with another search path: connect_args={'server_settings': {'search_path': …}}"
    )


def _pool_problem(engine: AsyncEngine) -> str | None:
    available = capacity(engine.pool)
    if available is None or available >= CONNECTIONS_OF_RUNNER:
        return None
    return (
        f"a pool of at most {available} connections; a runner needs {CONNECTIONS_OF_RUNNER}: one for commits, one for "
        f"the renewal of leases and {_THIRD[engine.dialect.name]}; enlarge pool_size or max_overflow, or give the "
        "runner a URL"
    )


_THIRD = {
    "sqlite": "one for reads",
    "postgresql": "one that listens for changes; reads need another, or share the first one",
}
"""What the third connection is for, by dialect name."""
