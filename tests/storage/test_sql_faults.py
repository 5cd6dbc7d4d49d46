"""Errors of the database become errors that say what to do and contain no secrets."""

from __future__ import annotations

import sqlite3
import traceback
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from spine_async._model.run_filter import RunFilter
from spine_async._model.visit_filter import VisitFilter
from spine_async.errors import CorruptRecordError, StoreError, StoreUnavailableError
from spine_async.storage import SqlRunStore
from spine_async.storage.sql.driver import retry
from spine_async.storage.sql.sqlite import jobs as sqlite_jobs
from spine_async.testing.conformance.rows import change, committed, created, loaded, moved, new_run, visit
from tests.servers.postgres import PostgresServer, async_url
from tests.storage.plain_sql import execute

pytestmark = pytest.mark.anyio

SHORT_DELAYS = (0.01, 0.02)


async def refusal(store: SqlRunStore, run_id: str = "other") -> StoreError:
    with pytest.raises(StoreError) as caught:
        await created(store, new_run(run_id))
    await store.close()
    assert caught.value.__cause__ is not None
    return caught.value


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    error = await refusal(SqlRunStore(f"sqlite:///{tmp_path / 'file' / 'runs.db'}"))
    assert isinstance(error, StoreUnavailableError)
    assert str(tmp_path / "file" / "runs.db") in str(error)
    assert "check that the folder exists" in str(error)


async def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    error = await refusal(SqlRunStore(f"sqlite:///{tmp_path}"))
    assert isinstance(error, StoreUnavailableError)
    assert "unable to open database file" in str(error)


async def test_a_read_only_database(sqlite_url: str) -> None:
    store = SqlRunStore(sqlite_url)
    await created(store)
    await store.close()
    path = sqlite_url.partition("///")[2]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    readonly = SqlRunStore(f"sqlite:///file:{path}?mode=ro&uri=true")
    assert await readonly.load("run-1") is not None
    error = await refusal(readonly)
    assert isinstance(error, StoreUnavailableError)
    assert "readonly" in str(error)
    assert "make the file and its folder writable" in str(error)


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "runs.db").write_text("this is a text of somebody's, not a database at all. " * 50)
    store = SqlRunStore(f"sqlite:///{tmp_path / 'runs.db'}")
    with pytest.raises(CorruptRecordError, match="cannot be read as a SQLite database"):
        await store.load("x")
    await store.close()


async def test_a_writer_that_waits_too_long(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_jobs, "BUSY_SECONDS", 0.05)
    monkeypatch.setattr(retry, "DELAYS", SHORT_DELAYS)
    store = SqlRunStore(sqlite_url)
    claim = await created(store)
    with closing(sqlite3.connect(sqlite_url.partition("///")[2], isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match=r"database is locked; .*use PostgreSQL"):
            await store.commit([change(claim, [visit("a", 2)])])
        assert await store.load("run-1") is not None
        connection.execute("ROLLBACK")
    await committed(store, change(claim, [visit("a", 2)]))
    await store.close()


@pytest.mark.parametrize(
    ("damage", "column"),
    [
        ("UPDATE core_workflow_runs SET created_at = 'yesterday'", "created_at"),
        ("UPDATE core_workflow_runs SET updated_at = '2026-01-01T00:00:00'", "updated_at"),
        ("UPDATE core_workflow_runs SET completed_at = 17", "completed_at"),
    ],
)
async def test_a_run_that_cannot_be_read(sqlite_url: str, damage: str, column: str) -> None:
    store = SqlRunStore(sqlite_url)
    await created(store)
    execute(sqlite_url, damage)
    for reading in (store.load("run-1"), store.runs(RunFilter())):
        with pytest.raises(CorruptRecordError, match=rf"'run-1'.*'{column}'"):
            await reading
    await store.close()


async def test_a_run_with_an_unknown_status(sqlite_url: str) -> None:
    """A listing reads the ranges of the known statuses, so it does not contain the run."""
    store = SqlRunStore(sqlite_url)
    await created(store)
    execute(sqlite_url, "UPDATE core_workflow_runs SET status = 'dancing'")
    with pytest.raises(CorruptRecordError, match=r"'run-1'.*'status'"):
        await store.load("run-1")
    assert await store.runs(RunFilter()) == []
    await store.close()


async def test_moments_that_only_postgresql_can_represent(fresh_postgres_url: str) -> None:
    store = SqlRunStore(fresh_postgres_url)
    await committed(store, change(await created(store), [visit("a", 2), visit("m[0]/x", 3, item_index=0)]))
    for moment in ("infinity", "-infinity", "0044-03-15 12:00:00+00 BC", "12026-01-01 00:00:00+00"):
        execute(fresh_postgres_url, f"UPDATE core_workflow_steps SET started_at = '{moment}'")
        for reading in (
            store.visits("run-1"),
            store.visits("run-1", VisitFilter(inside="m")),
            store.past_visits("run-1", 0, 9),
        ):
            with pytest.raises(CorruptRecordError, match="'run-1'"):
                await reading
        execute(fresh_postgres_url, f"UPDATE core_workflow_runs SET started_at = '{moment}'")
        with pytest.raises(CorruptRecordError, match="'run-1'"):
            await store.load("run-1")
    await store.close()


async def test_a_visit_that_cannot_be_read(empty_database_url: str) -> None:
    store = SqlRunStore(empty_database_url)
    await committed(store, change(await created(store), [visit("a", 2)]))
    execute(empty_database_url, "UPDATE core_workflow_steps SET step_type = 'magic'")
    with pytest.raises(CorruptRecordError, match=r"'run-1'.*'step_type' of core_workflow_steps"):
        await store.visits("run-1")
    await store.close()


async def test_error_texts_that_no_database_holds(empty_database_url: str) -> None:
    store = SqlRunStore(empty_database_url)
    await committed(store, change(await created(store), [visit("a", 2, error="nul \x00, half \ud800, line\n")]))
    (row,) = await store.visits("run-1")
    assert row.error == "nul \u2400, half \\ud800, line\n"
    await store.close()


async def test_the_error_of_a_refused_row_has_none_of_its_values(empty_database_url: str) -> None:
    store = SqlRunStore(empty_database_url)
    claim = await created(store)
    twice = change(claim, [visit("a", 2, output='"TOPSECRET"'), visit("a", 3, output='"TOPSECRET"')])
    with pytest.raises(StoreError) as caught:
        await store.commit([twice])
    assert "TOPSECRET" not in "".join(traceback.format_exception(caught.value))
    assert (await loaded(store)).next_seq == 2
    await committed(store, change(claim, [visit("a", 2)]))
    await store.close()


async def test_a_server_that_is_not_there() -> None:
    error = await refusal(SqlRunStore("postgresql://anna:TOPSECRET@127.0.0.1:9/orders"))
    assert isinstance(error, StoreUnavailableError)
    assert "PostgreSQL database orders at 127.0.0.1:9" in str(error)
    assert "check that the server runs" in str(error)
    assert "TOPSECRET" not in "".join(traceback.format_exception(error))


async def test_a_database_that_is_not_there(postgres_url: str) -> None:
    error = await refusal(SqlRunStore(postgres_url.rpartition("/")[0] + "/nowhere"))
    assert isinstance(error, StoreUnavailableError)
    assert "create the database" in str(error)


async def test_a_url_that_is_none_keeps_its_secret() -> None:
    url = "TOP" + "SECRET what is this"
    with pytest.raises(StoreError) as caught:
        SqlRunStore(url)
    assert "TOPSECRET" not in "".join(traceback.format_exception(caught.value))


@pytest.fixture
async def killed_store(postgres_to_kill: PostgresServer) -> AsyncIterator[SqlRunStore]:
    store = SqlRunStore(async_url(postgres_to_kill.create_database()))
    yield store
    await store.close()


@pytest.mark.kills_servers
async def test_after_a_restart_of_the_server_the_next_call_works(
    postgres_to_kill: PostgresServer, killed_store: SqlRunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await created(killed_store)
    claim = moved(claim, await committed(killed_store, change(claim, [visit("a", 2)])))
    await killed_store.load("run-1")
    process = postgres_to_kill.process
    assert process is not None
    _end_connections(postgres_to_kill)
    process.kill()
    with monkeypatch.context() as patched:
        patched.setattr(retry, "DELAYS", SHORT_DELAYS)
        with pytest.raises(StoreUnavailableError):
            await killed_store.commit([change(claim, [visit("b", 3)])])
        with pytest.raises(StoreUnavailableError):
            await killed_store.load("run-1")
    process.start()
    await committed(killed_store, change(claim, [visit("b", 3)]))
    assert [row.path for row in await killed_store.visits("run-1")] == ["a", "b"]


def _end_connections(server: PostgresServer) -> None:
    """The kill alone is not enough: a backend may answer for a moment after its server has died."""
    others = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname LIKE 'spine_test_%'"
    with psycopg.connect(server.url_of("postgres")) as administration:
        administration.execute(others)
