"""PostgreSQL: other processes learn of changes by NOTIFY, soon, and not from the commits of ordinary steps."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from statistics import median

import anyio
import anyio.to_thread
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from spine_async._model.due import Delivery
from spine_async._model.run_change import Release, RunEnd
from spine_async._model.run_claim import Claim
from spine_async._model.status import RunStatus
from spine_async.errors import DefinitionError, StoreError
from spine_async.ports import Listener
from spine_async.storage import SqlRunStore
from spine_async.storage.sql.postgres.announcements import CHANNEL
from spine_async.storage.sql.postgres.database import PostgresDatabase
from spine_async.testing.conformance.due_rows import claimed, due_run, message, names, notice, sent
from spine_async.testing.conformance.rows import change, committed, created, moment, new_run
from tests.conftest import Databases
from tests.servers import pgbouncer
from tests.storage.history import advanced, checked_out
from tests.storage.plain_sql import execute


class Reports:
    """Counts the calls of a listener."""

    def __init__(self) -> None:
        self.count = 0
        self._arrived = anyio.Event()

    def __call__(self) -> None:
        self.count += 1
        self._arrived.set()

    async def next(self) -> None:
        """Wait for a call after the last one that was waited for."""
        with anyio.fail_after(10):
            await self._arrived.wait()
        self._arrived = anyio.Event()


@pytest.fixture
async def store(fresh_postgres_url: str) -> AsyncIterator[SqlRunStore]:
    store = SqlRunStore(fresh_postgres_url)
    yield store
    await store.close()


@pytest.fixture
async def other(fresh_postgres_url: str) -> AsyncIterator[SqlRunStore]:
    store = SqlRunStore(fresh_postgres_url)
    yield store
    await store.close()


@asynccontextmanager
async def heard(store: SqlRunStore) -> AsyncIterator[Reports]:
    """What a store reports."""
    reports = Reports()
    listener: Listener = await store.listen(reports)
    yield reports
    await listener.close()


async def perform(kind: str, store: SqlRunStore, claim: Claim) -> None:
    if kind == "create":
        await created(store, due_run("due"))
    elif kind == "park":
        await committed(store, replace(change(claim), release=Release(status=RunStatus.WAITING)))
    elif kind == "end":
        await committed(store, change(claim, end=RunEnd(RunStatus.COMPLETED, moment(60))))
    elif kind == "send":
        await sent(store, message())
    elif kind == "stop":
        assert await store.request_stop("run-1", "user")
    elif kind == "release":
        assert await store.release_run(claim, Release())
    else:
        await store.renew([claim], 0)


@pytest.mark.parametrize("kind", ["create", "park", "end", "send", "stop", "release", "give up the lease"])
async def test_others_learn_of_what_they_can_act_upon(store: SqlRunStore, other: SqlRunStore, kind: str) -> None:
    claim = await created(store)
    async with heard(other) as reports, heard(store) as own:
        await perform(kind, store, claim)
        await reports.next()
        assert own.count == 0, "a process knows what it did itself"


async def test_ordinary_steps_and_held_runs_notify_nobody(store: SqlRunStore, other: SqlRunStore) -> None:
    async with heard(other) as reports:
        claim = await created(store)
        for _ in range(5):
            claim = await advanced(store, claim)
        await store.renew([claim], 60)
        await created(store, new_run("held"))
        await created(store, due_run("due"))
        await reports.next()
        assert reports.count == 1


async def test_a_notification_arrives_soon(store: SqlRunStore, other: SqlRunStore) -> None:
    await created(store)
    async with heard(other) as reports:
        taken = []
        for number in range(40):
            began = time.perf_counter()
            await created(store, due_run(f"r{number}"))
            await reports.next()
            taken.append(time.perf_counter() - began)
    assert median(taken) < 0.5  # 1 ms on an idle machine


async def test_many_changes_are_one_notification(store: SqlRunStore, fresh_postgres_url: str) -> None:
    claims = [await created(store, new_run(f"r{number}")) for number in range(200)]
    dsn = fresh_postgres_url.replace("+asyncpg", "")
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as listening:
        await listening.execute(f"LISTEN {CHANNEL}")
        async with anyio.create_task_group() as group:
            for claim in claims:
                group.start_soon(perform, "end", store, claim)
        await store.close()
        found = [each async for each in listening.notifies(timeout=0.2)]
    assert 1 <= len(found) < 60


async def test_what_was_just_written_is_announced_by_the_close(store: SqlRunStore, other: SqlRunStore) -> None:
    claim = await created(store)
    async with heard(other) as reports:
        await perform("end", store, claim)
        await store.close()
        await reports.next()


async def test_a_listener_connects_again(store: SqlRunStore, other: SqlRunStore, fresh_postgres_url: str) -> None:
    await created(store)
    async with heard(other) as reports:
        stop = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN %'"
        assert await anyio.to_thread.run_sync(execute, fresh_postgres_url, stop) == [(True,)]
        await reports.next()  # a notification may have been missed
        await created(store, due_run("due"))
        await reports.next()


async def test_the_connection_returns_to_the_pool_with_the_last_listener(fresh_postgres_url: str) -> None:
    engine = create_async_engine(fresh_postgres_url)
    store = SqlRunStore(engine)
    first, second = [await store.listen(lambda: None) for _ in range(2)]
    assert checked_out(engine) == 1
    await first.close()
    assert checked_out(engine) == 1
    await second.close()
    assert checked_out(engine) == 0
    await store.listen(lambda: None)
    await store.close()
    assert checked_out(engine) == 0
    await engine.dispose()


async def test_without_a_server_the_listener_is_silent() -> None:
    store = SqlRunStore("postgresql+asyncpg://nobody@127.0.0.1:1/nothing")
    with anyio.fail_after(5):
        async with heard(store) as reports:
            assert reports.count == 0
        await store.close()


@pytest.mark.skipif(pgbouncer.program() is None, reason="pgbouncer is not installed")
async def test_behind_a_pooler_nothing_is_reported(fresh_postgres_url: str, _module_databases: Databases) -> None:  # noqa: PT019
    pooler = pgbouncer.launch(_module_databases.server(is_durable=False).dsn, "transaction")
    direct, pooled = SqlRunStore(fresh_postgres_url), SqlRunStore(pooler.url_of(fresh_postgres_url))
    try:
        await created(direct)
        async with heard(direct) as reports, heard(pooled) as silent:
            await created(pooled, due_run("due"))
            await reports.next()  # who is connected directly learns of it
            assert silent.count == 0
        assert names(await claimed(pooled)) == ["due"]
    finally:
        await direct.close()
        await pooled.close()
        pooler.stop()


SLOW_COMMIT = (
    (
        "CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql "
        "AS $$ BEGIN PERFORM pg_sleep(0.2); RETURN NULL; END $$"
    ),
    (
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION slow()"
    ),
)
"""Make the commit of an insertion into the table `orders` take a while."""


class TestCallerTransaction:
    """A run or a message exists if the transaction of the caller commits, and others learn of it then."""

    @pytest.fixture
    async def engine(self, fresh_postgres_url: str, store: SqlRunStore) -> AsyncIterator[AsyncEngine]:
        await created(store)
        execute(fresh_postgres_url, "DROP TABLE IF EXISTS orders")
        execute(fresh_postgres_url, "CREATE TABLE orders (id integer PRIMARY KEY)")
        engine = create_async_engine(fresh_postgres_url)
        yield engine
        await engine.dispose()

    async def test_it_commits(self, store: SqlRunStore, other: SqlRunStore, engine: AsyncEngine) -> None:
        async with heard(store) as own, heard(other) as reports:
            async with engine.begin() as connection:
                await connection.execute(text("INSERT INTO orders VALUES (1)"))
                (claim,) = await store.create_within(connection, [due_run("due")])
                assert await store.send_within(connection, message()) is Delivery.STORED
                assert claim is not None
                assert claim.epoch == 0
                assert await store.load("due") is None, "not before the commit"
                assert (own.count, reports.count) == (0, 0)
            await own.next()
            await reports.next()
        assert names(await claimed(store)) == ["due"]

    async def test_the_run_is_there_when_others_are_told(
        self, store: SqlRunStore, other: SqlRunStore, engine: AsyncEngine, fresh_postgres_url: str
    ) -> None:
        for statement in SLOW_COMMIT:
            execute(fresh_postgres_url, statement)
        async with heard(store) as own, heard(other) as reports, anyio.create_task_group() as group:

            async def commit() -> None:
                async with engine.begin() as connection:
                    await connection.execute(text("INSERT INTO orders VALUES (1)"))
                    await store.create_within(connection, [due_run("due")])

            group.start_soon(commit)
            await own.next()
            assert await store.load("due") is not None
            await reports.next()
        assert names(await claimed(other)) == ["due"]

    async def test_it_rolls_back(self, store: SqlRunStore, other: SqlRunStore, engine: AsyncEngine) -> None:
        async with heard(store) as own, heard(other) as reports:
            async with engine.connect() as connection:
                for ending in (AsyncConnection.rollback, AsyncConnection.commit):
                    await connection.execute(text("SELECT 1"))
                    if ending is AsyncConnection.rollback:
                        await store.create_within(connection, [due_run("due")])
                    await ending(connection)
            await sent(store, message())  # the next notification is this one
            await reports.next()
            assert (own.count, reports.count) == (0, 1)
        assert await store.load("due") is None
        assert await store.create([due_run("due")]) != [None], "the id is free again"

    async def test_a_session_of_the_orm(self, store: SqlRunStore, other: SqlRunStore, engine: AsyncEngine) -> None:
        async with heard(other) as reports, AsyncSession(engine) as session:
            await session.execute(text("INSERT INTO orders VALUES (1)"))
            await store.create_within(session, [due_run("due")])
            await session.rollback()
            await store.create_within(session, [due_run("second")])
            await session.commit()
            await reports.next()
        assert names(await claimed(store)) == ["second"]

    async def test_the_first_statement_of_a_transaction(self, store: SqlRunStore, engine: AsyncEngine) -> None:
        async with engine.connect() as connection, connection.begin() as transaction:
            await store.create_within(connection, [due_run("due")])
            await transaction.rollback()
        assert await store.load("due") is None

    async def test_a_failure_leaves_the_transaction_as_it_was(self, store: SqlRunStore, engine: AsyncEngine) -> None:
        async with engine.begin() as connection:
            await connection.execute(text("INSERT INTO orders VALUES (1)"))
            with pytest.raises(StoreError):
                await store.create_within(connection, [replace(due_run("due"), params="\x00")])
            assert (await connection.execute(text("SELECT count(*) FROM orders"))).scalar() == 1

    async def test_answers_are_those_of_the_plain_calls(self, store: SqlRunStore, engine: AsyncEngine) -> None:
        new = due_run("due")
        async with engine.begin() as connection:
            first = await store.create_within(connection, [new])
            assert await store.create_within(connection, [new]) == first
            assert await store.create_within(connection, [due_run("due")]) == [None]
            assert await store.create_within(connection, []) == []
            answers = [await store.send_within(connection, message(key="k")) for _ in range(2)]
            assert answers == [Delivery.STORED, Delivery.DUPLICATE]
            assert await store.send_within(connection, message(run_id="nobody")) is Delivery.NOT_FOUND
        assert await store.create([new]) == first

    async def test_no_setting_of_the_caller_is_changed(self, store: SqlRunStore, engine: AsyncEngine) -> None:
        async with engine.begin() as connection:
            before = (await connection.execute(text("SHOW lock_timeout"))).scalar()
            await store.send_within(connection, message())
            await store.create_within(connection, [due_run("due")])
            assert (await connection.execute(text("SHOW lock_timeout"))).scalar() == before

    async def test_a_long_transaction_of_a_caller_holds_up_nobody(
        self, store: SqlRunStore, engine: AsyncEngine
    ) -> None:
        claim = await created(store, new_run("held"))
        async with engine.begin() as connection:
            await store.send_within(connection, message(run_id="held"))
            with anyio.fail_after(5):
                claim = await advanced(store, claim)
                assert (await store.renew([claim], 60))[0].is_extended
                assert (await notice(store, claim)).messages == ()
        assert len((await notice(store, claim)).messages) == 1

    @pytest.mark.parametrize("given", [None, "postgresql://", 7])
    async def test_other_objects_are_refused(self, store: SqlRunStore, engine: AsyncEngine, given: object) -> None:
        with pytest.raises(DefinitionError, match="must be an AsyncConnection or AsyncSession"):
            await store.create_within(given, [due_run("due")])

    async def test_a_connection_without_a_transaction_is_refused(self, store: SqlRunStore, engine: AsyncEngine) -> None:
        async with engine.connect() as connection:
            with pytest.raises(DefinitionError, match="in no transaction"):
                await store.create_within(connection, [due_run("due")])
        async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            await connection.execute(text("SELECT 1"))
            with pytest.raises(DefinitionError, match="AUTOCOMMIT"):
                await store.create_within(connection, [due_run("due")])
        assert await store.load("due") is None

    async def test_another_database_is_refused(
        self, store: SqlRunStore, engine: AsyncEngine, postgres_url: str, fresh_postgres_url: str
    ) -> None:
        execute(fresh_postgres_url, "CREATE SCHEMA IF NOT EXISTS elsewhere")
        settings = {"server_settings": {"search_path": "elsewhere"}}
        for foreign in (
            create_async_engine(postgres_url),
            create_async_engine(fresh_postgres_url, connect_args=settings),
        ):
            async with foreign.begin() as connection:
                with pytest.raises(DefinitionError, match="another database, or its search path"):
                    await store.create_within(connection, [due_run("due")])
            await foreign.dispose()
        lite = create_async_engine("sqlite+aiosqlite://")
        async with lite.begin() as connection:
            with pytest.raises(DefinitionError, match=r"sqlite\+aiosqlite"):
                await store.create_within(connection, [due_run("due")])
        await lite.dispose()


UNCLOSED = """
import asyncio, sys
from spine_async.storage import SqlRunStore
from spine_async.testing.conformance.due_rows import claimed, due_run, names
from spine_async.testing.conformance.rows import created

store = SqlRunStore(sys.argv[1])

async def first():
    await store.listen(lambda: None)
    await created(store, due_run("due"))

async def second():
    listener = await store.listen(lambda: None)
    assert names(await claimed(store)) == ["due"]
    await listener.close()
    await store.close()

asyncio.run(first())
asyncio.run(second())
"""


async def test_a_store_that_was_not_closed_is_used_in_the_next_event_loop(fresh_postgres_url: str) -> None:
    """Its tasks have ended with their loop."""
    arguments = [sys.executable, "-c", UNCLOSED, fresh_postgres_url]
    with anyio.fail_after(30):
        found = await anyio.run_process(arguments, check=False)
    assert found.returncode == 0, found.stderr.decode()
    assert "Task" not in found.stderr.decode()


@pytest.mark.parametrize("turns", range(6))
async def test_a_cancelled_call_of_listen_ends_also_if_the_connection_is_made_in_that_moment(
    store: SqlRunStore, turns: int
) -> None:
    """Else a follower of a run that has just ended waited for ever, on Python 3.11."""
    await store.open()
    database = store._database._opened
    assert isinstance(database, PostgresDatabase)
    listening = asyncio.create_task(store.listen(Reports()))
    while not database._listener._has_tried.is_set():  # noqa: ASYNC110 - each turn of the loop counts
        await asyncio.sleep(0)
    for _ in range(turns):
        await asyncio.sleep(0)
    if listening.cancel():
        await asyncio.wait([listening], timeout=10)
        assert listening.cancelled()
    else:
        await listening.result().close()
    assert database._listener._task is None
