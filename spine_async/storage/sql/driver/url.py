"""Database URLs: parsing, SQLite paths, and names of databases for messages."""

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
    """The URL in SQLAlchemy's form, with the driver that this library uses.

    Raises:
        StoreError: The URL is malformed, or its database or driver is not supported.
        MissingExtraError: The driver is not installed.
    """
    url = _parse(text)
    drivername = _DRIVERS.get(url.drivername)
    if drivername is None:
        raise StoreError(f"a database URL of kind {url.drivername!r} is not supported; accepted are {ACCEPTED}")
    _check_driver(drivername.partition("+")[2])
    url = url.set(drivername=drivername)
    return url if drivername.startswith("sqlite") else _with_ssl(url)


async def absolute_url(url: URL) -> URL:
    """The URL with a relative SQLite path made absolute.

    Otherwise the URL would name another file after a change of the working directory.
    """
    path = sqlite_file(url)
    if path is None or path.is_absolute():
        return url
    return url.set(database=str(await anyio.Path.cwd() / path))


def sqlite_file(url: URL) -> Path | None:
    """The file of a SQLite URL; None for databases in memory, `file:` URIs and other databases."""
    database = url.database if url.get_backend_name() == "sqlite" else None
    if not database or database.startswith((":memory:", "file:")):
        return None
    return Path(database)


def redacted(url: URL) -> str:
    """The database's kind and location without credentials, for messages."""
    if url.get_backend_name() == "sqlite":
        return f"SQLite database {url.database or ':memory:'}"
    port = f":{url.port}" if url.port else ""
    return f"PostgreSQL database {url.database or ''} at {url.host or 'localhost'}{port}"


def _parse(text: str | URL) -> URL:
    try:
        return make_url(text)
    except (ArgumentError, ValueError):
        # Without the cause: its message repeats the URL, including the password.
        raise StoreError(f"the database URL cannot be read; accepted are {ACCEPTED}") from None


def _check_driver(driver: str) -> None:
    if find_spec(driver) is None:
        raise MissingExtraError(f"a database through {driver}", "postgres" if driver == "asyncpg" else "sqlite")


def _with_ssl(url: URL) -> URL:
    # libpq's `sslmode` is asyncpg's `ssl`; both accept the same values.
    mode = url.query.get("sslmode")
    if mode is None:
        return url
    return url.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
