"""Translates the options of a PostgreSQL URL, which are those of libpq, to the arguments of asyncpg."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias
from urllib.parse import urlencode

from sqlalchemy.engine import URL

from spine_async.errors import StoreError

Arguments: TypeAlias = "dict[str, object]"

_TLS_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_SESSIONS = ("any", "primary", "standby", "read-write", "read-only", "prefer-standby")
_FLAGS = {"true": True, "1": True, "on": True, "yes": True, "false": False, "0": False, "off": False, "no": False}

# asyncpg takes these from a DSN only, not as arguments.
_TLS_FILES = frozenset(
    {
        "sslrootcert",
        "sslcert",
        "sslkey",
        "sslcrl",
        "sslpassword",
        "ssl_min_protocol_version",
        "ssl_max_protocol_version",
    }
)
_IN_URL = {"dbname": "database", "database": "database", "user": "username", "password": "password"}
_SERVER_SETTINGS = frozenset({"application_name", "options"})
_UNCHANGED = frozenset({"passfile", "service", "servicefile", "krbsrvname"})

_IGNORED: Mapping[str, tuple[str, ...]] = {
    "channel_binding": ("disable", "prefer"),
    "gssencmode": ("disable", "prefer"),
    "client_encoding": ("utf8", "utf-8", "unicode", "auto"),
    "sslcompression": ("0",),
    "sslsni": ("1",),
    "sslcertmode": ("allow",),
    "load_balance_hosts": ("disable",),
    "replication": ("false", "off", "no", "0"),
}
"""Options with the only values that asyncpg supports. These values describe its normal behaviour."""

_HINTS: Mapping[str, str] = {
    "channel_binding": "asyncpg has no channel binding; remove it, and use sslmode=verify-full to verify the server",
    "gssencmode": "asyncpg has no GSSAPI encryption; use gssencmode=prefer, or sslmode=require for TLS",
    "client_encoding": "asyncpg always uses UTF-8; remove it",
    "hostaddr": "write the address as the host",
    "require_auth": "asyncpg cannot restrict the authentication method; remove it",
    **dict.fromkeys(
        ("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"),
        "asyncpg does not set it on its sockets; let the server do it, with options=-c tcp_keepalives_idle=30",
    ),
}
_HINT = "remove it; a setting of the server is written options=-c name=value"


def postgres_arguments(url: URL) -> tuple[URL, Arguments]:
    """The URL without its options, and the options as arguments of `asyncpg.connect` and SQLAlchemy's adapter.

    Raises:
        StoreError: An option is unknown, has an invalid value, or demands what asyncpg cannot do. The message never
            contains the value.
    """
    options = {name: _single(name, value) for name, value in url.query.items() if name not in {"host", "port"}}
    url = url.difference_update_query(list(options))
    arguments: Arguments = {}
    tls: dict[str, str] = {}
    settings: dict[str, str] = {}
    for name, value in options.items():
        if name in _IN_URL:
            url = _with_part(url, _IN_URL[name], value)
        elif name in _SERVER_SETTINGS:
            settings[name] = value
        elif name == "fallback_application_name":
            settings.setdefault("application_name", options.get("application_name", value))
        elif name in _TLS_FILES:
            tls[name] = value
        elif name in _UNCHANGED:
            arguments[name] = value
        elif name in _TRANSLATED:
            key, translate = _TRANSLATED[name]
            arguments[key] = translate(name, value)
        elif value.lower() not in _IGNORED.get(name, ()):
            raise _refused(name)
    if settings:
        arguments["server_settings"] = settings
    return url, {**arguments, **_tls_arguments(tls)}


def _tls_arguments(files: dict[str, str]) -> Arguments:
    if not files:
        return {}
    if files.get("sslrootcert") != "system":
        return {"dsn": f"postgresql://?{urlencode(files)}"}
    if len(files) > 1:
        raise _invalid("sslrootcert", "the name of a file if other files are given too")
    return {"ssl": True}  # asyncpg: the certificates of the system, with `verify-full`


def _with_part(url: URL, part: str, value: str) -> URL:
    if part == "database":
        return url.set(database=value)
    return url.set(username=value) if part == "username" else url.set(password=value)


def _single(name: str, value: str | tuple[str, ...]) -> str:
    if isinstance(value, str):
        return value
    raise _invalid(name, "given once")


def _number(name: str, value: str) -> int:
    if not value.isascii() or not value.isdecimal():
        raise _invalid(name, "a whole number")
    return int(value)


def _seconds(name: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < _FOREVER:
        raise _invalid(name, "a number of seconds above 0")
    return seconds


def _connect_timeout(name: str, value: str) -> float | None:
    # libpq: zero and negative numbers mean no limit.
    return None if value.removeprefix("-").isdecimal() and int(value) <= 0 else _seconds(name, value)


def _flag(name: str, value: str) -> bool:
    flag = _FLAGS.get(value.lower())
    if flag is None:
        raise _invalid(name, "true or false")
    return flag


def _tls_mode(name: str, value: str) -> str:
    flag = _FLAGS.get(value.lower()) if name != "sslmode" else None
    if flag is not None:
        return "require" if flag else "disable"
    return _one_of(_TLS_MODES)(name, value)


def _one_of(values: tuple[str, ...]) -> Callable[[str, str], str]:
    def check(name: str, value: str) -> str:
        if value not in values:
            raise _invalid(name, f"one of {', '.join(values)}")
        return value

    return check


def _direct_tls(name: str, value: str) -> bool:
    return _one_of(("postgres", "direct"))(name, value) == "direct"


def _cache_size_behind_pooler(name: str, value: str) -> int:
    return 0 if _flag(name, value) else 100


_FOREVER = 1e9
_TRANSLATED: Mapping[str, tuple[str, Callable[[str, str], object]]] = {
    "sslmode": ("ssl", _tls_mode),
    "ssl": ("ssl", _tls_mode),
    "requiressl": ("ssl", lambda name, value: "require" if _flag(name, value) else "prefer"),
    "sslnegotiation": ("direct_tls", _direct_tls),
    "direct_tls": ("direct_tls", _flag),
    "connect_timeout": ("timeout", _connect_timeout),
    "timeout": ("timeout", _connect_timeout),
    "command_timeout": ("command_timeout", _seconds),
    "target_session_attrs": ("target_session_attrs", _one_of(_SESSIONS)),
    "gsslib": ("gsslib", _one_of(("gssapi", "sspi"))),
    "statement_cache_size": ("statement_cache_size", _number),
    "prepared_statement_cache_size": ("prepared_statement_cache_size", _number),
    "max_cached_statement_lifetime": ("max_cached_statement_lifetime", _number),
    "max_cacheable_statement_size": ("max_cacheable_statement_size", _number),
    "pgbouncer": ("statement_cache_size", _cache_size_behind_pooler),
}
"""Options by name: the argument's name, and the function that gives its value."""


def _refused(name: str) -> StoreError:
    return StoreError(f"the database URL has the option {name!r}, which asyncpg does not support; {_hint(name)}")


def _hint(name: str) -> str:
    return _HINTS.get(name, _HINT)


def _invalid(name: str, wanted: str) -> StoreError:
    return StoreError(f"the database URL has the option {name!r} with an invalid value; it must be {wanted}")
