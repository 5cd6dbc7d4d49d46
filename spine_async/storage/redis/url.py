"""URLs of Redis servers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from spine_async.errors import StoreError
from spine_async.storage.redis import driver

ACCEPTED = "redis://[user:password@]host[:port][/number], rediss://… with TLS, or unix:///path/to/socket[?db=number]"
DEFAULT_PREFIX = "spine"
_PREFIX = "prefix"
_PORT = 6379


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """A checked URL.

    Attributes:
        options: Arguments for a connection of redis-py.
        prefix: The prefix that the URL names, or None.
        location: The server without credentials, for messages.
    """

    options: dict[str, Any]
    prefix: str | None
    location: str


def parse_url(text: str) -> RedisUrl:
    """Check a URL.

    Raises:
        StoreError: The URL is empty or malformed, or an option is unknown. The message does not contain the URL.
    """
    if not isinstance(text, str) or not text.strip():
        raise StoreError(f"the Redis URL is empty; accepted are {ACCEPTED}")
    try:
        parts = urlsplit(text.strip())
        query = dict(parse_qsl(parts.query))
        prefix = query.pop(_PREFIX, None)
        options = _options(urlunsplit(parts._replace(query=urlencode(query))))
    except (ValueError, TypeError):
        # Without the cause: its message may repeat parts of the URL, including the password.
        raise StoreError(f"the Redis URL cannot be read; accepted are {ACCEPTED}") from None
    return RedisUrl(options, prefix, _location(options))


def check_prefix(prefix: str) -> str:
    """Check the prefix of the keys.

    Raises:
        StoreError: It is empty, or contains a brace, which would change the slot of the keys.
    """
    if not prefix or not prefix.isprintable() or set(prefix) & set("{}"):
        raise StoreError("the prefix of a Redis store must be a text without braces; use for instance 'spine'")
    return prefix


def _options(url: str) -> dict[str, Any]:
    options: dict[str, Any] = dict(driver.parse_url(url))
    path = urlsplit(url).path.strip("/")
    if path and options.get("db") is None and "path" not in options:
        raise ValueError("the path is no number")
    kind = options.pop("connection_class", driver.Connection)
    checked = {**driver.UNNAMED, **options, "decode_responses": False}
    kind(**checked)  # an unknown option raises TypeError; no I/O happens
    return {**checked, "connection_class": kind}


def _location(options: dict[str, Any]) -> str:
    if "path" in options:
        return f"Redis at {options['path']}"
    number = options.get("db") or 0
    return f"Redis database {number} at {options.get('host', 'localhost')}:{options.get('port', _PORT)}"
