"""The options of a SQLite URL, and the properties of the database that the URL defines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from sqlalchemy.engine import URL

from spine_async.errors import StoreError

_OF_DRIVER = frozenset({"uri", "timeout", "isolation_level", "detect_types", "check_same_thread", "cached_statements"})
_OF_URI = frozenset({"mode", "cache", "psow", "vfs", "modeof", "nolock", "immutable"})
_ON = frozenset({"1", "on", "true", "yes"})


def check_sqlite_options(url: URL) -> URL:
    """The URL, with `uri=true` if its path is a URI.

    Raises:
        StoreError: An option is unknown or cannot be used with this library.
    """
    if _is_uri(url):
        url = url.update_query_dict({"uri": "true"})
    problem = unusable_option(url)
    if problem is not None:
        raise StoreError(f"the database URL has {problem}")
    if url.host or url.username or url.password or url.port:
        raise StoreError(
            "the database URL has a host; a SQLite URL has three slashes before the path: sqlite:///file.db"
        )
    for name, value in url.query.items():
        if not isinstance(value, str):
            raise StoreError(f"the database URL has the option {name!r} more than once")
        if name in _OF_URI and not _is_uri(url):
            raise StoreError(
                f"the database URL has the option {name!r}, which SQLite takes only in a URI; "
                f"write the path as file:, as in sqlite:///file:/path/to/file.db?{name}={value}"
            )
        if name not in _OF_DRIVER | _OF_URI:
            raise StoreError(
                f"the database URL has the option {name!r}, which SQLite does not have; "
                f"it has {', '.join(sorted(_OF_DRIVER))}"
            )
    return url


def unusable_option(url: URL) -> str | None:
    """The option of a SQLite URL with which the database cannot be used safely, and the reason; None without one."""
    options = {name: str(value).lower() for name, value in url.query.items()}
    for name in ("nolock", "immutable"):
        if options.get(name) in _ON:
            return f"{name}={options[name]}, which disables SQLite's locks, so that writers corrupt the file; remove it"
    if options.get("cache") == "shared" and not is_in_memory(url):
        return "cache=shared, with which connections of this process block each other; remove it"
    return None


def sqlite_arguments(url: URL) -> dict[str, object]:
    """The arguments of `sqlite3.connect` that are not in the URL: readers get the lock timeout of writers."""
    return {} if "timeout" in url.query or is_in_memory(url) else {"timeout": 30}


def is_in_memory(url: URL) -> bool:
    """Whether the URL is that of a SQLite database in memory, or of a temporary one."""
    name = url.database or ""
    return name in {"", ":memory:", "file:", "file::memory:"} or (_is_uri(url) and url.query.get("mode") == "memory")


def path_of(url: URL) -> Path | None:
    """The file of a SQLite URL, None for a database in memory."""
    if is_in_memory(url) or url.database is None:
        return None
    return Path(unquote(urlsplit(url.database).path)) if _is_uri(url) else Path(url.database)


def with_path(url: URL, path: Path) -> URL:
    """The URL with another path."""
    return url.set(database=f"file:{quote(str(path))}" if _is_uri(url) else str(path))


def may_create(query: Mapping[str, object]) -> bool:
    """Whether SQLite creates a missing file."""
    return query.get("mode") not in {"ro", "rw"}


def _is_uri(url: URL) -> bool:
    return (url.database or "").startswith("file:")
