"""Opening, closing, sharing and upgrading databases."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy import event as sa_event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from spine_async._model.config import WorkflowRunnerConfig
from spine_async._model.run_claim import Claim
from spine_async._model.run_filter import RunFilter
from spine_async.errors import DefinitionError, MissingExtraError, SchemaVersionError, StoreError
from spine_async.storage import SqlRunStore, upgrade_schema
from spine_async.storage.selection import open_store
from spine_async.storage.sql.driver.time_limit import TimeLimit
from spine_async.storage.sql.schema.tables import VERSION
from spine_async.testing.conformance.rows import change, committed, created, loaded, moved, new_run, visit
from tests.servers.postgres import OTHER_CLIENTS
from tests.service.services import until
from tests.storage.plain_sql import execute, file_of

HERE = Path(__file__).parents[2]


def test_two_event_loops_one_after_the_other(empty_database_url: str) -> None:
    store = SqlRunStore(empty_database_url)

    async def once(run_id: str) -> list[str]:
        await created(store, new_run(run_id, at=float(run_id)))
        found = [run.run_id for run in await store.runs(RunFilter())]
        await store.close()
        return found

    assert asyncio.run(once("1")) == ["1"]
    assert asyncio.run(once("2")) == ["2", "1"]


def test_writers_that_wait_for_each_other_in_two_event_loops(tmp_path: Path) -> None:
    """The connection to a file stays open from one loop to the next; waiting writers belong to one loop."""
    store = SqlRunStore(f"sqlite:///{tmp_path / 'runs.db'}")

    async def crowd(name: str) -> None:
        await asyncio.gather(*(created(store, new_run(f"{name}{number}")) for number in range(5)))

    asyncio.run(crowd("a"))
    asyncio.run(crowd("b"))
    asyncio.run(store.close())
    with closing(sqlite3.connect(tmp_path / "runs.db")) as file:
        found = {row[0] for row in file.execute("SELECT run_id FROM core_workflow_runs")}
    assert found == {f"{name}{number}" for name in "ab" for number in range(5)}


@pytest.mark.anyio
async def test_reading_makes_no_file(tmp_path: Path) -> None:
    store = SqlRunStore(f"sqlite:///{tmp_path / 'a' / 'b.db'}")
    assert await store.load("x") is None
    assert await store.runs(RunFilter()) == []
    assert await store.visits("x") == []
    assert await store.events("x", 0, 10) == []
    assert await store.delete(["x"]) == []
    await store.close()
    assert os.listdir(tmp_path) == []  # noqa: PTH208 (the async rules know pathlib only)


@pytest.mark.anyio
async def test_the_first_write_makes_the_folder_and_keeps_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPINE_DATABASE_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    store = open_store(WorkflowRunnerConfig(), None)
    await created(store)
    await store.close()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert await store.load("run-1") is not None
    await store.close()
    assert (tmp_path / ".spine" / "runs.db").exists()
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.anyio
async def test_a_database_in_memory_lives_until_close() -> None:
    store = SqlRunStore("sqlite://")
    claim = await created(store)
    await committed(store, change(claim, [visit("a", 2)]))
    found = await asyncio.gather(*(store.visits("run-1") for _ in range(20)))
    assert [len(each) for each in found] == [1] * 20
    await store.close()
    assert await store.load("run-1") is None
    await store.close()


@pytest.mark.anyio
async def test_writes_and_reads_at_once(empty_database_url: str) -> None:
    store = SqlRunStore(empty_database_url)
    await created(store)

    async def one(number: int) -> None:
        claim = await created(store, new_run(f"r{number}"))
        for seq in range(2, 6):
            made = await committed(store, change(claim, [visit(f"s{seq}", seq)]))
            claim = moved(claim, made)
            assert (await loaded(store, f"r{number}")).next_seq == seq + 1

    await asyncio.gather(*(one(number) for number in range(20)))
    await store.close()


@pytest.mark.anyio
async def test_cancelled_calls_leave_nothing_behind(empty_database_url: str) -> None:
    """Each call is cancelled a little later than the previous one; each transaction is complete or absent."""
    engine = create_async_engine(empty_database_url)
    store = SqlRunStore(engine)
    await created(store)
    for number in range(60):
        run = new_run(f"r{number}")
        tasks = [asyncio.ensure_future(store.create([run])), asyncio.ensure_future(store.load(run.run_id))]
        for _ in range(number % 30):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for number in range(60):
        run = new_run(f"r{number}")
        (claim,) = await store.create([run])
        is_new, events = claim is not None, await store.events(run.run_id, 0, 10)
        assert [each.seq for each in events] == [1], is_new
    await store.close()
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    await engine.dispose()


async def _load(store: SqlRunStore, claim: Claim) -> object:
    return await store.load(claim.run_id)


async def _create(store: SqlRunStore, claim: Claim) -> object:
    return await store.create([new_run("other")])


async def _commit(store: SqlRunStore, claim: Claim) -> object:
    return await store.commit([change(claim, [visit("fetch", claim.next_seq)])])


async def _renew(store: SqlRunStore, claim: Claim) -> object:
    return await store.renew([claim], 60)


async def _states(store: SqlRunStore, claim: Claim) -> object:
    return await store.states([claim.run_id])


@pytest.mark.anyio
@pytest.mark.parametrize("is_own", [True, False], ids=["engine of the store", "engine of the user"])
@pytest.mark.parametrize("call", [_load, _create, _commit, _renew, _states])
async def test_a_call_that_is_in_progress_at_close_leaves_no_connection_open(
    empty_database_url: str, call: Callable[[SqlRunStore, Claim], Awaitable[object]], is_own: bool
) -> None:
    setup = SqlRunStore(empty_database_url)
    claim = await created(setup)
    await setup.close()
    for turns in range(1, 30):  # after one turn each call has its database; a later one would open the store again
        engine = create_async_engine(empty_database_url) if not is_own else None
        store = SqlRunStore(engine or empty_database_url)
        await store.load(claim.run_id)
        calls = [asyncio.ensure_future(call(store, claim)) for _ in range(3)]
        for _ in range(turns):
            await asyncio.sleep(0)
        await store.close()
        if engine is not None:
            await engine.dispose()
        await asyncio.gather(*calls)
        await store.close()
        if engine is not None:
            await engine.dispose()
        del store, calls, engine
        gc.collect()  # a connection that is still open is reported when it is collected
    if not empty_database_url.startswith("sqlite"):
        await until(lambda: not execute(empty_database_url, f"SELECT 1 {OTHER_CLIENTS}"), within=10)


SYNCHRONOUS = {"full": 2, "process": 1}  # FULL and NORMAL


@pytest.mark.anyio
@pytest.mark.parametrize("way", ["config", "engine and config", "from_url"])
@pytest.mark.parametrize("durability", SYNCHRONOUS)
async def test_commits_are_as_durable_as_was_asked_for(sqlite_url: str, durability: Any, way: str) -> None:
    config = WorkflowRunnerConfig(database_url=sqlite_url, durability=durability)
    engine = create_async_engine(sqlite_url)
    store: Any = SqlRunStore.from_url(sqlite_url, durability=durability)
    if way != "from_url":
        store = open_store(config, engine if "engine" in way else None)
    await created(store)
    _, writer = store._database._opened._writer._current
    assert await (await writer.execute("PRAGMA synchronous")).fetchone() == (SYNCHRONOUS[durability],)
    assert await (await writer.execute("PRAGMA journal_mode")).fetchone() == ("wal",)
    await store.close()
    await engine.dispose()


@pytest.mark.anyio
@pytest.mark.parametrize("durability", SYNCHRONOUS)
async def test_postgres_uses_its_own_durability_settings(postgres_url: str, durability: Any) -> None:
    store = SqlRunStore(postgres_url, durability=durability)
    database = await store._database.for_writing()
    (set_here,) = await database._writer.write(  # type: ignore[attr-defined]
        lambda driver: driver.fetch("SELECT count(*) FROM pg_settings WHERE source = 'session' AND name LIKE '%sync%'"),
        TimeLimit("the test's database", 10).call("read"),
    )
    assert tuple(set_here) == (0,)
    await store.close()


def test_another_durability_is_refused(sqlite_url: str) -> None:
    with pytest.raises(DefinitionError, match="durability is 'disk'; it must be 'full' or 'process'"):
        SqlRunStore(sqlite_url, durability="disk")  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="durability is None"):
        SqlRunStore.from_url(sqlite_url, durability=None)  # type: ignore[arg-type]


@pytest.mark.anyio
@pytest.mark.parametrize("durability", SYNCHRONOUS)
async def test_the_users_engine_is_left_as_it_was(empty_database_url: str, durability: Any) -> None:
    engine = create_async_engine(empty_database_url, pool_size=2)
    listeners = _listeners(engine)
    before = await _settings(engine)
    store = SqlRunStore(engine, durability=durability)
    claim = await created(store)
    await _as_the_user(engine)
    await committed(store, change(claim, [visit("a", 2)]))
    await _as_the_user(engine)
    await store.close()
    assert await _settings(engine) == before
    assert _listeners(engine) == listeners
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    await _as_the_user(engine)
    await engine.dispose()


def _listeners(engine: AsyncEngine) -> list[object]:
    sync = engine.sync_engine
    return [
        list(getattr(each.dispatch, name))
        for each in (sync, sync.pool)
        for name in ("connect", "checkout")
        if hasattr(each.dispatch, name)
    ]


async def _settings(engine: AsyncEngine) -> list[object]:
    if engine.dialect.name != "sqlite":
        return []
    found: list[object] = []
    for _ in range(2):
        async with engine.connect() as first, engine.connect() as second:
            for connection in (first, second):
                raw = await connection.get_raw_connection()
                found.append(raw.driver_connection._conn.isolation_level)  # type: ignore[union-attr]
                pragmas = ("synchronous", "busy_timeout", "foreign_keys")
                found += [(await connection.execute(text(f"PRAGMA {name}"))).scalar() for name in pragmas]
    return found


async def _as_the_user(engine: AsyncEngine) -> None:
    """Check that the user's own transactions still begin, roll back and commit."""
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE IF NOT EXISTS mine (n integer)"))
        await connection.execute(text("DELETE FROM mine"))
        await connection.execute(text("INSERT INTO mine VALUES (1)"))
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO mine VALUES (2)"))
        await connection.rollback()
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT n FROM mine"))).scalars().all() == [1]


@pytest.mark.anyio
async def test_a_users_database_in_memory_can_be_shared() -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    store = SqlRunStore(engine)
    claim = await created(store)
    await _as_the_user(engine)
    await committed(store, change(claim, [visit("a", 2)]))
    await _as_the_user(engine)
    await store.close()
    assert len(await store.visits("run-1")) == 1
    await store.close()
    await engine.dispose()


@pytest.mark.anyio
async def test_an_owned_engine_is_disposed_of(sqlite_url: str) -> None:
    engine = create_async_engine(sqlite_url)
    closed: list[object] = []
    sa_event.listen(engine.sync_engine.pool, "close", lambda *given: closed.append(given))
    store = SqlRunStore(engine, owns_engine=True)
    await created(store)
    assert not closed
    await store.close()
    assert closed


@pytest.mark.anyio
async def test_without_auto_migrate_the_schema_is_asked_for(empty_database_url: str) -> None:
    if empty_database_url.startswith("sqlite"):
        execute(empty_database_url, "CREATE TABLE other (n integer)")
    store = SqlRunStore(empty_database_url, auto_migrate=False)
    with pytest.raises(SchemaVersionError, match=r"upgrade_schema\(engine_or_url\)") as caught:
        await created(store)
    assert (caught.value.found, caught.value.known) == (0, VERSION)
    await upgrade_schema(empty_database_url)
    await upgrade_schema(empty_database_url)
    await created(store)
    await store.close()
    assert execute(empty_database_url, "SELECT version FROM core_workflow_schema") == [(VERSION,)]


@pytest.mark.anyio
async def test_a_newer_schema_is_refused(empty_database_url: str) -> None:
    await upgrade_schema(empty_database_url)
    execute(empty_database_url, "UPDATE core_workflow_schema SET version = 99")
    store = SqlRunStore(empty_database_url)
    with pytest.raises(SchemaVersionError, match="upgrade spine-async"):
        await store.load("x")
    await store.close()
    with pytest.raises(SchemaVersionError):
        await upgrade_schema(empty_database_url)


_START = """
import asyncio, sys
from spine_async.storage import SqlRunStore
from spine_async.testing.conformance.rows import created, new_run

async def main():
    stores = [SqlRunStore(sys.argv[1]) for _ in range(4)]
    await asyncio.gather(*(created(store, new_run(f"{sys.argv[2]}-{n}")) for n, store in enumerate(stores)))
    for store in stores:
        await store.close()

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.sample(every=2)
def test_many_processes_may_make_the_schema_at_once(empty_database_url: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    command = [sys.executable, "-W", "error", "-c", _START, empty_database_url]
    started = [
        subprocess.Popen([*command, str(n)], env=environment, stderr=subprocess.PIPE, text=True) for n in range(4)
    ]
    said = [each.communicate(timeout=60)[1] for each in started]
    assert [each.returncode for each in started] == [0] * 4, "\n".join(said)
    assert execute(empty_database_url, "SELECT version FROM core_workflow_schema") == [(VERSION,)]
    assert execute(empty_database_url, "SELECT count(*) FROM core_workflow_runs") == [(16,)]


@pytest.mark.anyio
async def test_a_step_costs_the_same_bytes_however_long_the_run(empty_database_url: str) -> None:
    store = SqlRunStore(empty_database_url)
    claim = await created(store)
    sizes = []
    seq = 2
    for _ in range(2):
        for _ in range(10):
            visits = [visit(f"step_{n:05}", n, started_seq=n, output=f'"{"x" * 1022}"') for n in range(seq, seq + 100)]
            claim = moved(claim, await committed(store, change(claim, visits)))
            seq += 100
        sizes.append(_bytes(empty_database_url))
    await store.close()
    first, both = sizes
    assert both / 2000 <= 1500
    assert both - first <= first * 1.1


def _bytes(url: str) -> int:
    if url.startswith("sqlite"):
        execute(url, "PRAGMA wal_checkpoint(TRUNCATE)")
        return file_of(url).stat().st_size
    return int(execute(url, "SELECT pg_total_relation_size('core_workflow_steps')")[0][0])


def test_the_environment_names_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPINE_DATABASE_URL", "mysql://somewhere/db")
    with pytest.raises(StoreError, match="'mysql' is not supported; accepted are sqlite:///"):
        open_store(WorkflowRunnerConfig(), None)
    open_store(WorkflowRunnerConfig(database_url=f"sqlite:///{tmp_path}/x.db"), None)
    open_store(WorkflowRunnerConfig(), create_async_engine("sqlite+aiosqlite://"))


def test_a_synchronous_engine_is_refused() -> None:
    with pytest.raises(DefinitionError, match="synchronous Engine; it must be an AsyncEngine"):
        SqlRunStore(create_engine("sqlite://"))  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="of type int"):
        SqlRunStore(3)  # type: ignore[arg-type]


def test_a_missing_driver_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spine_async.storage.sql.driver.url.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"spine-async\[postgres\]"):
        SqlRunStore("postgresql://localhost/x")


def test_importing_storage_imports_no_database_library() -> None:
    use = "import spine_async.storage as s; s.MemoryRunStore; s.open_store"
    code = f"import sys; {use}; print('sqlalchemy' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "False"
