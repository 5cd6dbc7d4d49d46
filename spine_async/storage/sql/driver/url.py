"""Where a database is: the URLs that are understood, and how to name a database without its password."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import anyio
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from spine_async.errors import MissingExtraError, StoreError

ACCEPTED = "sqlite:///path/to/file.db, sqlite+aiosqlite:///…, postgresql://user@host/database or postgresql+asyncpg://…"

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}


def parse_url(text: str | URL) -> URL:
    """The URL with the driver that is used here, as SQLAlchemy takes it.

    Raises:
        StoreError: It is no URL, or one of a database or driver that is not supported.
        MissingExtraError: The driver is not installed.
    """
    url = _made(text)
    drivername = _DRIVERS.get(url.drivername)
    if drivername is None:
        raise StoreError(f"a database URL of kind {url.drivername!r} is not supported; accepted are {ACCEPTED}")
    _need_driver(drivername.partition("+")[2])
    url = url.set(drivername=drivername)
    return url if drivername.startswith("sqlite") else _with_ssl(url)


async def absolute_url(url: URL) -> URL:
    """The URL with a relative SQLite path taken from the present working directory.

    A later change of the directory must not lead to another file.
    """
    path = sqlite_file(url)
    if path is None or path.is_absolute():
        return url
    return url.set(database=str(await anyio.Path.cwd() / path))


def sqlite_file(url: URL) -> Path | None:
    """The file of a SQLite URL; None in memory, for `file:` URIs and for other databases."""
    database = url.database if url.get_backend_name() == "sqlite" else None
    if not database or database.startswith((":memory:", "file:")):
        return None
    return Path(database)


def shown(url: URL) -> str:
    """The database by kind and place, without user secrets, for messages."""
    if url.get_backend_name() == "sqlite":
        return f"SQLite database {url.database or ':memory:'}"
    port = f":{url.port}" if url.port else ""
    return f"PostgreSQL database {url.database or ''} at {url.host or 'localhost'}{port}"


def _made(text: str | URL) -> URL:
    try:
        return make_url(text)
    except (ArgumentError, ValueError):
        # Without the cause: its text repeats what was given, password included.
        raise StoreError(f"the database URL cannot be read; accepted are {ACCEPTED}") from None


def _need_driver(driver: str) -> None:
    if find_spec(driver) is None:
        raise MissingExtraError(f"a database through {driver}", "postgres" if driver == "asyncpg" else "sqlite")


def _with_ssl(url: URL) -> URL:
    # libpq calls it sslmode, asyncpg calls it ssl and takes the same words.
    mode = url.query.get("sslmode")
    if mode is None:
        return url
    return url.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
