"""The schema on PostgreSQL next to other schemas, and with several roles."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from spine_async.storage import SqlRunStore, upgrade_schema
from spine_async.testing.conformance.rows import created, new_run
from tests.storage.history import begun

VERSION_1 = (Path(__file__).parent / "version_1" / "postgres.sql").read_bytes()
VERSION = "SELECT version FROM {}.core_workflow_schema"


@pytest.fixture
def admin(fresh_postgres_url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A superuser's connection to an empty database."""
    with psycopg.connect(fresh_postgres_url.replace("+asyncpg", ""), autocommit=True) as connection:
        yield connection


@pytest.fixture
def role(admin: psycopg.Connection[tuple[object, ...]]) -> Iterator[str]:
    """A role that has USAGE on the schema, and no other privilege."""
    name = f"role_{uuid4().hex[:12]}"
    admin.execute(sql.SQL("CREATE ROLE {0}; GRANT USAGE ON SCHEMA public TO {0}").format(sql.Identifier(name)))
    yield name
    admin.execute("RESET ROLE")
    admin.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))


async def use(url: str, run_id: str) -> None:
    """Create a run and commit a step and an event, alone and in a group."""
    store = SqlRunStore(url, auto_migrate=False)
    await begun(store, run_id)
    await store.close()


def look_through(admin: psycopg.Connection[tuple[object, ...]], *schemas: str) -> None:
    """Set the search path of later connections to the database."""
    name = sql.Identifier(admin.info.dbname)
    path = sql.SQL(", ").join(map(sql.Identifier, schemas))
    admin.execute(sql.SQL("ALTER DATABASE {} SET search_path TO {}").format(name, path))


@pytest.mark.anyio
async def test_two_schemas_of_one_database_are_upgraded_each_by_itself(
    fresh_postgres_url: str, admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    admin.execute("CREATE SCHEMA app; SET search_path TO public")
    admin.execute(VERSION_1)
    admin.execute("SET search_path TO app")
    admin.execute(VERSION_1)
    try:
        look_through(admin, "public")
        await upgrade_schema(fresh_postgres_url)
        assert admin.execute(VERSION.format("app").encode()).fetchall() == [(1,)]
        look_through(admin, "app", "public")
        await upgrade_schema(fresh_postgres_url)
        await use(fresh_postgres_url, "in-app")
        look_through(admin, "public")
        await use(fresh_postgres_url, "in-public")
    finally:
        admin.execute("DROP SCHEMA app CASCADE")
        admin.execute(sql.SQL("ALTER DATABASE {} RESET search_path").format(sql.Identifier(admin.info.dbname)))


@pytest.mark.anyio
async def test_an_upgrade_goes_to_where_the_tables_are(
    fresh_postgres_url: str, admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    admin.execute(VERSION_1)
    admin.execute("CREATE SCHEMA nearer")
    try:
        look_through(admin, "nearer", "public")
        await upgrade_schema(fresh_postgres_url)
        look_through(admin, "public")
        await use(fresh_postgres_url, "new")
        assert admin.execute("SELECT count(*) > 0 FROM public.core_workflow_events").fetchone() == (True,)
    finally:
        admin.execute("DROP SCHEMA nearer CASCADE")
        admin.execute(sql.SQL("ALTER DATABASE {} RESET search_path").format(sql.Identifier(admin.info.dbname)))


@pytest.mark.anyio
async def test_an_upgrade_leaves_grants_and_what_was_built_on_the_views(
    fresh_postgres_url: str, admin: psycopg.Connection[tuple[object, ...]], role: str
) -> None:
    admin.execute(VERSION_1)
    admin.execute(sql.SQL("GRANT SELECT ON core_workflow_events TO {}").format(sql.Identifier(role)))
    admin.execute("CREATE VIEW kinds AS SELECT event_type, count(*) FROM core_workflow_events GROUP BY 1")
    await upgrade_schema(fresh_postgres_url)
    admin.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
    assert admin.execute("SELECT count(*) > 0 FROM core_workflow_events").fetchone() == (True,)
    admin.execute("RESET ROLE")
    assert admin.execute("SELECT count(*) > 0 FROM kinds").fetchone() == (True,)


@pytest.mark.anyio
async def test_many_upgrade_at_once_whatever_the_isolation(
    fresh_postgres_url: str, admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    name = sql.Identifier(admin.info.dbname)
    admin.execute(VERSION_1)
    admin.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_isolation TO 'serializable'").format(name))
    try:
        await asyncio.gather(*(upgrade_schema(fresh_postgres_url) for _ in range(6)))
        await use(fresh_postgres_url, "new")
    finally:
        admin.execute(sql.SQL("ALTER DATABASE {} RESET default_transaction_isolation").format(name))


@pytest.mark.anyio
async def test_a_role_that_may_delete_runs_needs_no_access_to_their_rows(
    fresh_postgres_url: str, admin: psycopg.Connection[tuple[object, ...]], role: str
) -> None:
    await upgrade_schema(fresh_postgres_url)
    await use(fresh_postgres_url, "old")
    admin.execute(sql.SQL("GRANT SELECT, DELETE ON core_workflow_runs TO {}").format(sql.Identifier(role)))
    admin.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
    admin.execute("DELETE FROM core_workflow_runs")
    admin.execute("RESET ROLE")
    assert admin.execute("SELECT count(*) FROM core_workflow_steps").fetchone() == (0,)
    assert admin.execute("SELECT count(*) FROM core_workflow_event_log").fetchone() == (0,)


@pytest.mark.anyio
async def test_connected_stores_use_a_schema_that_was_created_anew(
    fresh_postgres_url: str, admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    store = SqlRunStore(fresh_postgres_url)
    await created(store, new_run("before"))
    admin.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    await upgrade_schema(fresh_postgres_url)
    await created(store, new_run("after"))
    await store.close()
    assert admin.execute("SELECT run_id FROM core_workflow_runs").fetchall() == [("after",)]
