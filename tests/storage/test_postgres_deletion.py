"""Deleting a run on PostgreSQL deletes all its rows, for every role and during concurrent commits."""

from __future__ import annotations

import threading

import psycopg
import pytest

from spine_async.storage import SqlRunStore
from tests.storage.history import begun

CHILDREN = ("core_workflow_steps", "core_workflow_event_log")


def left(connection: psycopg.Connection[tuple[int]]) -> list[int]:
    """Rows that belong to runs, by table."""
    found = [connection.execute(f"SELECT count(*) FROM public.{table}".encode()).fetchone() for table in CHILDREN]
    return [row[0] for row in found if row]


async def stored(url: str) -> str:
    """A run with a step and events; the address of the database for psycopg."""
    store = SqlRunStore(url)
    await begun(store)
    await store.close()
    return url.replace("+asyncpg", "")


@pytest.mark.anyio
@pytest.mark.parametrize(
    "statement", ["DELETE FROM", "TRUNCATE", "TRUNCATE public.core_workflow_steps, public.core_workflow_event_log,"]
)
async def test_plain_sql_from_another_schema_leaves_nothing(fresh_postgres_url: str, statement: str) -> None:
    with psycopg.connect(await stored(fresh_postgres_url), autocommit=True) as connection:
        assert min(left(connection)) > 0
        connection.execute("CREATE SCHEMA IF NOT EXISTS elsewhere")
        connection.execute("SET search_path TO elsewhere")
        connection.execute(f"{statement} public.core_workflow_runs".encode())
        assert left(connection) == [0, 0]


@pytest.mark.anyio
async def test_what_is_committed_while_a_deletion_waits_is_deleted_too(fresh_postgres_url: str) -> None:
    dsn = await stored(fresh_postgres_url)
    with psycopg.connect(dsn) as writer, psycopg.connect(dsn, autocommit=True) as deleter:
        waiting = deleter.info.backend_pid
        # In the order of a commit: first the row of the run, then its other rows.
        writer.execute("UPDATE core_workflow_runs SET next_seq = next_seq + 1")
        deletion = threading.Thread(target=deleter.execute, args=["DELETE FROM core_workflow_runs"])
        deletion.start()
        with psycopg.connect(dsn, autocommit=True) as watcher:
            while not watcher.execute(
                "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'", [waiting]
            ).fetchone():
                assert deletion.is_alive()
        writer.execute(
            "INSERT INTO core_workflow_event_log (run, seq, timestamp, event_type, metadata) "
            "SELECT id, next_seq, now(), 'noted', '{}' FROM core_workflow_runs"
        )
        writer.commit()
        deletion.join()
        assert left(deleter) == [0, 0]
