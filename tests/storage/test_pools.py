"""Engines and pools of users: what cannot work is refused at once, or within a bounded time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AssertionPool, NullPool, StaticPool

from spine_async import Step, Workflow, WorkflowContext, WorkflowRunner
from spine_async.errors import DefinitionError, StoreError, StoreUnavailableError
from spine_async.storage import SqlRunStore
from spine_async.storage.sql.driver import connection
from spine_async.testing.conformance.rows import created, loaded, new_run
from tests.storage.history import advanced, assert_whole, begun


@pytest.mark.parametrize(
    "pool",
    [{"pool_size": 1, "max_overflow": 0}, {"pool_size": 1, "max_overflow": 1}, {"poolclass": AssertionPool}],
)
def test_a_pool_that_is_too_small_is_refused_at_once(empty_database_url: str, pool: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=r"at most \d connections; a runner needs 3: one for commits"):
        WorkflowRunner(create_async_engine(empty_database_url, **pool))


@pytest.mark.parametrize(
    "pool",
    [
        {"pool_size": 3, "max_overflow": 0},
        {"pool_size": 1, "max_overflow": 2},
        {"max_overflow": -1},
        {"poolclass": NullPool},
    ],
)
async def test_the_smallest_pools_suffice(empty_database_url: str, pool: dict[str, Any]) -> None:
    async def step(context: WorkflowContext, config: object) -> None:
        await anyio.lowlevel.checkpoint()

    engine = create_async_engine(empty_database_url, **pool)
    async with WorkflowRunner(engine) as runner, anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(
                lambda each: runner.execute(Workflow("w", [Step.lambda_("s", step)]), run_id=each), f"r{number}"
            )
    async with WorkflowRunner(engine) as runner:
        assert len(await runner.list_runs()) == 20
    await engine.dispose()


@pytest.mark.parametrize("pool_timeout", [30, 0.2])
async def test_callers_that_hold_all_sessions_of_the_pool_fail_soon(
    empty_database_url: str, pool_timeout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "POOL_WAIT", 0.5)
    engine = create_async_engine(empty_database_url, pool_size=3, max_overflow=0, pool_timeout=pool_timeout)
    store = SqlRunStore(engine)
    held = [await engine.connect() for _ in range(3)]
    with anyio.fail_after(10):
        with pytest.raises(StoreUnavailableError, match=r"no connection of the engine's pool .* a runner needs 3"):
            await created(store)
    for each in held:
        await each.close()
    await created(store)
    await store.close()
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    await engine.dispose()


async def test_a_connection_that_is_released_in_time_is_used(empty_database_url: str) -> None:
    engine = create_async_engine(empty_database_url, pool_size=3, max_overflow=0)
    store = SqlRunStore(engine)
    held = [await engine.connect() for _ in range(3)]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(created, store)
        await anyio.wait_all_tasks_blocked()
        for each in held:
            await each.close()
    await store.close()
    await engine.dispose()


async def test_a_wait_for_the_pool_can_be_cancelled(empty_database_url: str) -> None:
    engine = create_async_engine(empty_database_url, pool_size=3, max_overflow=0)
    store = SqlRunStore(engine)
    held = [await engine.connect() for _ in range(3)]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(created, store)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    for each in held:
        await each.close()
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    await store.close()
    await engine.dispose()


@pytest.mark.parametrize("where", ["engine", "options"])
def test_a_schema_translate_map_is_refused(postgres_url: str, where: str) -> None:
    options = {"schema_translate_map": {None: "tenant"}}
    engine = create_async_engine(postgres_url, **({"execution_options": options} if where == "engine" else {}))
    with pytest.raises(DefinitionError, match=r"schema_translate_map, .*search_path"):
        WorkflowRunner(engine.execution_options(**options))


def test_a_schema_translate_map_for_other_schemas_is_accepted(postgres_url: str) -> None:
    engine = create_async_engine(postgres_url).execution_options(schema_translate_map={"shared": "tenant"})
    WorkflowRunner(engine)


async def test_tenants_are_separated_by_search_paths(fresh_postgres_url: str) -> None:
    engines = []
    for tenant in ("a", "b"):
        settings = {"server_settings": {"search_path": tenant}}
        engine = create_async_engine(fresh_postgres_url, connect_args=settings)
        async with engine.begin() as begun_by_user:
            await begun_by_user.exec_driver_sql(f"CREATE SCHEMA {tenant}")
        engines.append(engine)
    stores = [SqlRunStore(engine) for engine in engines]
    for store in stores:
        await created(store)
    for store, engine in zip(stores, engines, strict=True):
        assert (await loaded(store)).run_id == "run-1"
        await store.close()
        await engine.dispose()


MEMORY = ["sqlite+aiosqlite://", "sqlite+aiosqlite:///file::memory:?cache=shared&uri=true"]


@pytest.mark.parametrize("url", [*MEMORY, "sqlite+aiosqlite:///file:shared?mode=memory&cache=shared&uri=true"])
async def test_a_database_in_memory_with_many_connections_is_refused(url: str) -> None:
    engine = create_async_engine(url, poolclass=NullPool)
    with anyio.fail_after(5), pytest.raises(StoreError, match=r"in memory, .* poolclass=StaticPool, or use a file"):
        await created(SqlRunStore(engine))
    await engine.dispose()


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file::memory:?cache=shared",
        "sqlite:///file:another?mode=memory&cache=shared",
    ],
)
async def test_a_url_of_a_database_in_memory_works(url: str) -> None:
    store = SqlRunStore(url)
    with anyio.fail_after(20):
        claim = await begun(store)
        for _ in range(5):
            claim = await advanced(store, claim)
        await assert_whole(store, claim)
    await store.close()


@pytest.mark.parametrize("url", MEMORY)
async def test_an_engine_in_memory_with_one_connection_works(url: str) -> None:
    engine = create_async_engine(url, poolclass=StaticPool)
    store = SqlRunStore(engine)
    await assert_whole(store, await begun(store))
    await store.close()
    await engine.dispose()


@pytest.mark.parametrize("options", ["nolock=1", "vfs=unix-none", "immutable=1"])
async def test_a_file_without_locks_is_refused(tmp_path: Path, options: str) -> None:
    url = f"sqlite+aiosqlite:///file:{tmp_path}/runs.db?uri=true&{options}"
    engine = create_async_engine(url)
    with anyio.fail_after(5), pytest.raises((StoreError, DefinitionError), match=r"SQLite's locks|write-ahead log"):
        await created(SqlRunStore(engine))
    await engine.dispose()


async def test_a_uri_of_a_file_works(tmp_path: Path) -> None:
    store = SqlRunStore(f"sqlite:///file:{tmp_path}/a%2520b/runs.db?uri=true")
    await created(store, new_run("run-1"))
    await store.close()
    assert (tmp_path / "a b" / "runs.db").exists()


async def _locked(engine: AsyncEngine) -> AsyncConnection:
    """A connection whose transaction keeps others from reading runs."""
    holder = await engine.connect()
    await holder.execute(text("LOCK TABLE core_workflow_runs IN ACCESS EXCLUSIVE MODE"))
    return holder


async def _is_waiting(engine: AsyncEngine) -> None:
    """Wait until a call of the store waits for the lock."""
    query = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        with anyio.fail_after(20):
            while not (await connection.execute(query)).scalar_one():  # noqa: ASYNC110 - nothing tells of it
                await anyio.sleep(0.005)


async def test_close_waits_for_calls_in_progress(fresh_postgres_url: str) -> None:
    """A loop that ended just after it would leave their connections open."""
    engine = create_async_engine(fresh_postgres_url)
    store = SqlRunStore.from_url(fresh_postgres_url)
    await created(store)
    holder = await _locked(engine)
    calls = [asyncio.create_task(store.load("run-1")) for _ in range(3)]
    await _is_waiting(engine)
    closing = asyncio.create_task(store.close())
    await anyio.lowlevel.checkpoint()
    assert not closing.done()
    await holder.close()
    await closing
    assert all(each.done() for each in calls)
    assert [each.result() is not None for each in calls] == [True] * 3
    await engine.dispose()


async def test_close_waits_for_calls_that_were_cancelled(fresh_postgres_url: str) -> None:
    engine = create_async_engine(fresh_postgres_url)
    store = SqlRunStore.from_url(fresh_postgres_url)
    await created(store)
    holder = await _locked(engine)
    call = asyncio.create_task(store.load("run-1"))
    await _is_waiting(engine)
    call.cancel()
    await store.close()
    assert call.done()
    await holder.close()
    await engine.dispose()


async def test_close_does_not_wait_long_for_a_call_that_does_not_end(fresh_postgres_url: str) -> None:
    engine = create_async_engine(fresh_postgres_url)
    store = SqlRunStore.from_url(fresh_postgres_url)
    await created(store)
    holder = await _locked(engine)
    call = asyncio.create_task(store.load("run-1"))
    await _is_waiting(engine)
    with anyio.fail_after(5):  # half of the time limit of a call
        await store.close()
    assert not call.done()
    await holder.close()
    assert await call is not None
    await engine.dispose()
