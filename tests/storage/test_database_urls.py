"""Options of database URLs: translated to arguments of the driver, or rejected by name; never a TypeError."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from spine_async.errors import StoreError, StoreUnavailableError
from spine_async.storage import SqlRunStore
from spine_async.storage.sql.driver.time_limit import TimeLimit
from spine_async.storage.sql.driver.url import connect_arguments, parse_url
from spine_async.testing.conformance.rows import created, loaded


def arguments(options: str) -> dict[str, Any]:
    return connect_arguments(parse_url(f"postgresql://user@host/db?{options}"))[1]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("application_name=app", {"server_settings": {"application_name": "app"}}),
        ("fallback_application_name=app", {"server_settings": {"application_name": "app"}}),
        ("fallback_application_name=a&application_name=b", {"server_settings": {"application_name": "b"}}),
        ("options=-c%20search_path%3Dapp", {"server_settings": {"options": "-c search_path=app"}}),
        ("connect_timeout=10", {"timeout": 10.0}),
        ("connect_timeout=0", {"timeout": None}),
        ("connect_timeout=-1", {"timeout": None}),
        ("statement_cache_size=0", {"statement_cache_size": 0}),
        ("prepared_statement_cache_size=0", {"prepared_statement_cache_size": 0}),
        ("pgbouncer=true", {"statement_cache_size": 0}),
        ("sslmode=verify-full", {"ssl": "verify-full"}),
        ("ssl=true", {"ssl": "require"}),
        ("ssl=disable", {"ssl": "disable"}),
        ("sslmode=require&channel_binding=prefer&gssencmode=disable&client_encoding=UTF8", {"ssl": "require"}),
        (
            "sslmode=verify-ca&sslrootcert=/a%20b.crt",
            {"ssl": "verify-ca", "dsn": "postgresql://?sslrootcert=%2Fa+b.crt"},
        ),
        ("sslrootcert=system", {"ssl": True}),
        ("sslmode=require&sslnegotiation=direct", {"ssl": "require", "direct_tls": True}),
        ("target_session_attrs=read-write", {"target_session_attrs": "read-write"}),
        ("command_timeout=2.5&passfile=/p", {"command_timeout": 2.5, "passfile": "/p"}),
    ],
)
def test_libpq_s_options_are_translated(options: str, expected: dict[str, object]) -> None:
    assert arguments(options) == expected


def test_the_names_of_libpq_for_database_user_and_password_are_translated() -> None:
    url, _ = connect_arguments(parse_url("postgresql://host/?dbname=d&user=u&password=p"))
    assert (url.database, url.username, url.password, dict(url.query)) == ("d", "u", "p", {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("channel_binding=require", "'channel_binding', which asyncpg does not support; .* sslmode=verify-full"),
        ("keepalives_idle=30", "'keepalives_idle', .* options=-c tcp_keepalives_idle"),
        ("hostaddr=10.0.0.1", "'hostaddr', .* write the address as the host"),
        ("gssencmode=require", "'gssencmode', .* gssencmode=prefer"),
        ("nonsense=1", "'nonsense', .* remove it; a setting of the server is written options=-c"),
        ("Application_Name=x", "'Application_Name'"),
        ("sslmode=secret", "'sslmode' with an invalid value; it must be one of disable, allow"),
        ("connect_timeout=secret", "'connect_timeout' with an invalid value; it must be a number of seconds"),
        ("connect_timeout=nan", "'connect_timeout' with an invalid value"),
        ("statement_cache_size=-1", "'statement_cache_size' with an invalid value; it must be a whole number"),
        ("sslmode=require&sslmode=disable", "'sslmode' with an invalid value; it must be given once"),
        ("sslrootcert=system&sslcert=c", "'sslrootcert' with an invalid value"),
    ],
)
def test_other_options_are_refused_by_name(options: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        SqlRunStore(f"postgresql://user@host/db?{options}")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:///x.db?nonsense=1", "'nonsense', which SQLite does not have"),
        ("sqlite:///x.db?mode=ro", "only in a URI; write the path as file:"),
        ("sqlite:///x.db?nolock=1", "nolock=1, which disables SQLite's locks"),
        ("sqlite:///file:x.db?nolock=1&uri=true", "nolock=1, which disables SQLite's locks"),
        ("sqlite:///file:x.db?immutable=1", "immutable=1, which disables SQLite's locks"),
        ("sqlite:///file:x.db?cache=shared", "cache=shared"),
        ("sqlite://x.db", "three slashes"),
        ("", "is empty"),
        (" \n", "is empty"),
    ],
)
def test_options_of_sqlite_are_checked(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        SqlRunStore(url)


@pytest.mark.parametrize("url", ["sqlite:///x.db?timeout=soon", "postgresql://h/db?port=x"])
async def test_a_value_that_only_sqlalchemy_refuses_is_a_store_error(url: str) -> None:
    store = SqlRunStore(url)
    with pytest.raises(StoreError, match="the database URL is not valid"):
        await created(store)


async def test_options_reach_the_server(fresh_postgres_url: str) -> None:
    dsn = fresh_postgres_url.replace("+asyncpg", "")
    options = "application_name=my-app&options=-c%20work_mem%3D9MB&connect_timeout=5&statement_cache_size=0"
    store = SqlRunStore(f"{dsn}?{options}&channel_binding=prefer&sslmode=prefer\n")
    await created(store)
    assert (await loaded(store)).run_id == "run-1"
    database = await store._database.for_writing()
    found = await database._writer.write(  # type: ignore[attr-defined]
        lambda driver: driver.fetchrow("SELECT current_setting('application_name'), current_setting('work_mem')"),
        TimeLimit("the test's database", 10).call("read"),
    )
    assert tuple(found) == ("my-app", "9MB")
    await store.close()


async def test_an_engine_with_options_of_libpq_is_refused_with_the_way_out(fresh_postgres_url: str) -> None:
    engine = create_async_engine(f"{fresh_postgres_url}?application_name=x")
    with pytest.raises(StoreError, match=r"unexpected keyword argument 'application_name'.*server_settings"):
        await created(SqlRunStore(engine))
    await engine.dispose()


async def test_a_certificate_that_is_missing_is_named(fresh_postgres_url: str) -> None:
    url = fresh_postgres_url.replace("+asyncpg", "")
    store = SqlRunStore(f"{url}?sslmode=verify-full&sslrootcert=/nowhere/root.crt")
    with pytest.raises(StoreUnavailableError):
        await created(store)
    await store.close()
