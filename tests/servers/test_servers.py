"""The suite's own servers: they start, die when asked, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest

from spine_async import Step, Workflow, WorkflowRunner, WorkflowRunnerConfig
from spine_async.storage.sql.schema.tables import VERSION
from tests.servers.kept_tables import KeptTables
from tests.servers.postgres import PostgresServer, empty_database

ROOT = Path(__file__).parents[2]


def test_a_module_has_a_database_of_its_own(postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn) as connection:
        row = connection.execute("SELECT current_database(), current_setting('fsync')").fetchone()
    assert row is not None
    assert row[0].startswith("spine_test_")


def test_a_database_is_emptied_whoever_is_connected(postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn) as idler:
        idler.execute("CREATE TABLE left_over (x int)")
        idler.commit()
        empty_database(postgres_dsn)
    with psycopg.connect(postgres_dsn) as connection:
        assert connection.execute("SELECT to_regclass('left_over')").fetchone() == (None,)


@pytest.fixture
def kept(fresh_postgres_url: str) -> Iterator[tuple[KeptTables, psycopg.Connection[tuple[Any, ...]]]]:
    """A database in which a test has left the library's tables and a run."""
    dsn = fresh_postgres_url.replace("+asyncpg", "")
    kept = KeptTables(dsn)
    kept.clear()
    empty_database(dsn)  # the library creates the tables
    anyio.run(_execute, fresh_postgres_url)
    with psycopg.connect(dsn, autocommit=True) as connection:
        marked = connection.execute("COMMENT ON TABLE core_workflow_runs IS 'kept'")
        assert marked.statusmessage == "COMMENT"
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield kept, connection


async def _execute(url: str) -> None:
    flow = Workflow("w", [Step.lambda_("only", lambda context, config: None)])
    async with WorkflowRunner(config=WorkflowRunnerConfig(database_url=url), workflows=[flow]) as runner:
        await runner.execute(flow)


_COMMENT = "SELECT obj_description(to_regclass('core_workflow_runs'))"


@pytest.mark.parametrize(
    "statement", ["SELECT 1", "CREATE TABLE orders (id integer REFERENCES core_workflow_runs (id))"]
)
def test_tables_that_the_library_created_are_kept_without_their_rows(
    kept: tuple[KeptTables, psycopg.Connection[tuple[Any, ...]]], statement: str
) -> None:
    tables, connection = kept
    connection.execute(statement)
    tables.clear()
    dsn = connection.info.dsn
    for _ in range(2):
        with psycopg.connect(dsn, autocommit=True) as other:
            assert other.execute(_COMMENT).fetchone() == ("kept",)
            assert other.execute("SELECT to_regclass('orders')").fetchone() == (None,)
            assert other.execute("SELECT count(*) FROM core_workflow_runs").fetchone() == (0,)
            assert other.execute("SELECT count(*) FROM core_workflow_steps").fetchone() == (0,)
            assert other.execute("SELECT version FROM core_workflow_schema").fetchone() == (VERSION,)
            assert other.execute("SELECT nextval('core_workflow_runs_id_seq')").fetchone() == (1,)
        tables.clear()


@pytest.mark.sample(every=3)
@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE core_workflow_runs ADD COLUMN later text",
        "ALTER TABLE core_workflow_runs ALTER run_id SET DEFAULT 'x'",
        "ALTER TABLE core_workflow_runs DISABLE TRIGGER core_workflow_deleted_runs",
        "ALTER TABLE core_workflow_steps RENAME TO steps",
        "ALTER TYPE core_workflow_step_row_3 ADD ATTRIBUTE later text",
        "ANALYZE core_workflow_runs",
        "CREATE INDEX ON core_workflow_runs (status)",
        "CREATE OR REPLACE FUNCTION core_workflow_forget_runs() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN END'",
        "CREATE SCHEMA elsewhere",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET jit = off', current_database()); END $$",
        "DROP VIEW core_workflow_events",
        "GRANT SELECT ON core_workflow_runs TO PUBLIC",
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
        "UPDATE core_workflow_schema SET version = 99",
    ],
)
def test_tables_that_were_changed_are_created_again(
    kept: tuple[KeptTables, psycopg.Connection[tuple[Any, ...]]], statement: str
) -> None:
    tables, connection = kept
    connection.execute(statement)
    tables.clear()
    with psycopg.connect(connection.info.dsn, autocommit=True) as other:
        assert other.execute(_COMMENT).fetchone() == (None,)
        assert other.execute("SELECT version FROM core_workflow_schema").fetchone() == (VERSION,)
        assert other.execute("SELECT to_regnamespace('elsewhere')").fetchone() == (None,)
        assert other.execute("SELECT count(*) FROM pg_db_role_setting").fetchone() == (0,)
        other.execute("COMMENT ON TABLE core_workflow_runs IS 'kept'")
        tables.clear()
    with psycopg.connect(connection.info.dsn) as other:
        assert other.execute(_COMMENT).fetchone() == ("kept",)


def test_a_durable_server_has_the_default_settings(durable_postgres_url: str) -> None:
    dsn = durable_postgres_url.replace("+asyncpg", "")
    with psycopg.connect(dsn) as connection:
        names = ("fsync", "synchronous_commit", "full_page_writes")
        settings = [connection.execute("SELECT current_setting(%s)", (name,)).fetchone() for name in names]
    assert settings == [("on",)] * 3


@pytest.mark.kills_servers
def test_a_killed_server_comes_back_with_what_it_had(postgres_to_kill: PostgresServer) -> None:
    assert postgres_to_kill.process is not None
    with psycopg.connect(postgres_to_kill.dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (x int)")
        postgres_to_kill.process.kill()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT pg_sleep(60)")  # a backend notices at its next wait that its server is gone
    postgres_to_kill.process.start()
    with psycopg.connect(postgres_to_kill.dsn) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_redis_answers(redis_url: str) -> None:
    assert redis_url.startswith("redis://")


@pytest.mark.kills_servers
@pytest.mark.usefixtures("_services")
def test_nothing_is_left_when_the_process_that_asked_is_killed() -> None:
    script = (
        "import sys, time; from tests.servers import postgres; server = postgres._launch_own(is_durable=False); "
        "print(server.process.pid, server.process._log.parent, flush=True); time.sleep(600)"
    )
    asker = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert asker.stdout is not None
    with asker.stdout:
        pid, folder = asker.stdout.readline().split()
    os.kill(asker.pid, signal.SIGKILL)
    asker.wait()
    assert _comes_true(lambda: not Path(folder).exists() and not Path(f"/proc/{pid}").exists())


def _comes_true(condition: object) -> bool:
    """Whether another process gets there within the ten seconds a server is given, and some."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False
