"""The suite's own servers: they start, die when asked, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

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
