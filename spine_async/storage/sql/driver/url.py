"""Database URLs: parsing, SQLite paths, and names of databases for messages."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import anyio
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from spine_async.errors import MissingExtraError, StoreError
from spine_async.storage.sql.driver.postgres_options import postgres_arguments
from spine_async.storage.sql.driver.sqlite_options import check_sqlite_options, path_of, sqlite_arguments, with_path

ACCEPTED = "sqlite:///path/to/file.db, sqlite+aiosqlite:///…, postgresql://user@host/database or postgresql+asyncpg://…"

_LAST_PORT = 65535

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
        StoreError: The URL is malformed, or its database, its driver or one of its options is not supported.
        MissingExtraError: The driver is not installed.
    """
    url = _parse(text)
    drivername = _DRIVERS.get(url.drivername)
    if drivername is None:
        raise StoreError(f"a database URL of kind {url.drivername!r} is not supported; accepted are {ACCEPTED}")
    _check_driver(drivername.partition("+")[2])
    url = url.set(drivername=drivername)
    if drivername.startswith("sqlite"):
        return check_sqlite_options(url)
    if url.port is not None and not 0 < url.port <= _LAST_PORT:
        raise StoreError(f"the database URL has the port {url.port}; a port is a number from 1 to {_LAST_PORT}")
    connect_arguments(url)
    return url


def connect_arguments(url: URL) -> tuple[URL, dict[str, object]]:
    """The arguments of `create_async_engine` for a parsed URL: the URL, and the `connect_args`."""
    if url.get_backend_name() == "sqlite":
        return url, sqlite_arguments(url)
    return postgres_arguments(url)


async def absolute_url(url: URL) -> URL:
    """The URL with a relative SQLite path made absolute.

    Otherwise the URL would name another file after a change of the working directory.
    """
    path = sqlite_file(url)
    if path is None or path.is_absolute():
        return url
    return with_path(url, Path(await anyio.Path.cwd() / path))


def sqlite_file(url: URL) -> Path | None:
    """The file of a SQLite URL; None for databases in memory and other databases."""
    return path_of(url) if url.get_backend_name() == "sqlite" else None


def redacted(url: URL) -> str:
    """The database's kind and location without credentials, for messages."""
    if url.get_backend_name() == "sqlite":
        return f"SQLite database {url.database or ':memory:'}"
    port = f":{url.port}" if url.port else ""
    return f"PostgreSQL database {url.database or ''} at {url.host or 'localhost'}{port}"


def _parse(text: str | URL) -> URL:
    if isinstance(text, str) and not text.strip():
        raise StoreError(f"the database URL is empty; accepted are {ACCEPTED}")
    try:
        return make_url(text.strip() if isinstance(text, str) else text)
    except (ArgumentError, ValueError):
        # Without the cause: its message repeats the URL, including the password.
        raise StoreError(f"the database URL {_problem_of(str(text))}; accepted are {ACCEPTED}") from None


def _problem_of(text: str) -> str:
    """Why a URL cannot be read. The text does not contain the URL."""
    if "://" not in text:
        return "cannot be read, because it has no ://"
    try:
        _ = urlsplit(text).port
    except ValueError:
        return "cannot be read, because its host or its port is not valid"
    return "cannot be read"


def _check_driver(driver: str) -> None:
    if find_spec(driver) is None:
        raise MissingExtraError(f"a database through {driver}", "postgres" if driver == "asyncpg" else "sqlite")
