"""Due runs in a SQLite file: the cost of a claim, the watch of the file, and transactions of the caller."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from spine_async._model.due import Delivery
from spine_async._model.run_change import Release
from spine_async._model.run_claim import Claim
from spine_async._model.run_filter import RunFilter
from spine_async._model.run_row import DueTime
from spine_async._model.status import RunStatus
from spine_async.errors import DefinitionError
from spine_async.storage import SqlRunStore
from spine_async.storage.sql.schema import queries, run_queries
from spine_async.storage.sql.schema.rows import Row
from spine_async.storage.sql.sqlite import changes as commits
from spine_async.storage.sql.sqlite import due_runs, inbox, jobs, sweep
from spine_async.storage.sql.sqlite.database import SqliteDatabase
from spine_async.storage.sql.sqlite.watch import OwnCommits
from spine_async.testing.conformance.due_rows import (
    at_seconds,
    claimed,
    due_run,
    in_seconds,
    message,
    names,
    now,
    parked,
    request,
    sent,
)
from spine_async.testing.conformance.rows import change, created, loaded, new_run, visit
from tests.storage.instructions import instructions

MANY = 5_000
_SCANS = ("SCAN chosen", "SCAN b0", "SCAN found", "SCAN ids VIRTUAL TABLE INDEX 1:")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
async def store(file: Path) -> AsyncIterator[SqlRunStore]:
    store = SqlRunStore.from_url(f"sqlite:///{file}", durability="process")
    yield store
    await store.close()


def look(connection: sqlite3.Connection) -> None:
    assert due_runs.look(connection, request()) is None
    assert sweep.look(connection).is_due is False


def test_a_transaction_that_is_not_synced_leaves_the_setting_as_it_was(file: Path) -> None:
    levels: list[object] = []

    def work(connection: sqlite3.Connection) -> None:
        levels.append(level(connection))
        connection.execute("CREATE TABLE IF NOT EXISTS t (x)")

    def level(connection: sqlite3.Connection) -> object:
        return connection.execute("PRAGMA synchronous").fetchone()[0]

    def fail(connection: sqlite3.Connection) -> None:
        raise KeyError

    with closing(sqlite3.connect(file)) as connection:
        jobs.prepare(connection, "full")
        jobs.in_transaction(connection, work)
        jobs.in_unsynced_transaction(connection, work)
        with pytest.raises(KeyError):
            jobs.in_unsynced_transaction(connection, fail)
        assert [*levels, level(connection)] == [2, 1, 2]
        assert not connection.in_transaction


class TestCost:
    """A worker reads index entries of what it may claim, and no others."""

    @pytest.fixture
    async def crowded(self, store: SqlRunStore) -> SqlRunStore:
        """Foreign runs, delayed ones by both clocks, runs of a higher version, and ended ones."""
        foreign = [due_run(f"f{number}", workflow_name="foreign") for number in range(MANY)]
        delayed = [due_run(f"d{number}", due=at_seconds(3600)) for number in range(MANY // 2)]
        in_boot = [due_run(f"b{number}", due=in_seconds(3600)) for number in range(MANY // 2)]
        await store.create([*foreign, *delayed, *in_boot])
        await store.create([new_run("held"), due_run("mine")])
        return store

    @pytest.fixture
    def statements(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Sequence[object]]]:
        """The statements that are executed after the fixture was requested."""
        found: list[tuple[str, Sequence[object]]] = []

        def recording(connection: sqlite3.Connection, sql: str, values: Sequence[object] = ()) -> list[Row]:
            found.append((sql, values))
            return jobs.fetch(connection, sql, values)

        for module in (due_runs, sweep, inbox):
            monkeypatch.setattr(module, "fetch", recording)
        return found

    async def test_every_query_uses_an_index_of_its_own(
        self, crowded: SqlRunStore, file: Path, statements: list[tuple[str, Sequence[object]]]
    ) -> None:
        await crowded.sweep()
        assert names(await crowded.claim_due(request())) == ["mine"]
        await crowded.states(["held"])
        used = set()
        with closing(sqlite3.connect(file)) as connection:
            for sql, values in statements:
                plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", tuple(values))]
                for line in plan:
                    assert not line.startswith("SCAN") or "USING" in line, (sql, plan)
                    used |= {word for word in line.split() if word.startswith("core_workflow_runs_")}
                assert not any("TEMP B-TREE" in line for line in plan), (sql, plan)
        wanted = {"ready", "due", "due_in_boot", "held"}
        assert {f"core_workflow_runs_{name}" for name in wanted} <= used

    async def test_the_backlog_is_counted_in_partial_indexes(self, crowded: SqlRunStore, file: Path) -> None:
        with closing(sqlite3.connect(file)) as connection:
            rows = connection.execute(f"EXPLAIN QUERY PLAN {queries.BACKLOG['sqlite']}", {"most": 10_000}).fetchall()
        reads = [row[3].partition("core_workflow_runs_")[2] for row in rows if "core_workflow_runs" in row[3]]
        assert [each.partition(" ")[0] for each in reads] == ["ready", "parked", "held", "due", "due_in_boot"]

    async def test_the_runs_of_an_owner_and_open_waits_are_found_by_indexes(
        self, crowded: SqlRunStore, file: Path
    ) -> None:
        owned = run_queries.list_runs(RunFilter(owner="worker-1", with_documents=False), "sqlite")
        waits = (str(queries.OPEN_WAITS["sqlite"]), {"ids": '["held"]'})
        with closing(sqlite3.connect(file)) as connection:
            for sql, values in ((str(owned.text), {**owned.values, "boot": "", "seconds": 0.0}), waits):
                plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
                assert any("USING" in line for line in plan), plan
                assert {line for line in plan if line.startswith("SCAN")} <= {*_SCANS}, plan

    async def test_the_cost_of_a_claim_does_not_depend_on_other_runs(self, crowded: SqlRunStore, file: Path) -> None:
        assert await anyio.to_thread.run_sync(instructions, file, look) < 2000

    async def test_runs_of_a_higher_version_cost_no_look_at_their_rows(
        self, store: SqlRunStore, file: Path, statements: list[tuple[str, Sequence[object]]]
    ) -> None:
        await store.create([due_run(workflow_version=4)])
        assert await store.claim_due(request()) == []
        with closing(sqlite3.connect(file)) as connection:
            sql, values = statements[0]
            program = connection.execute(f"EXPLAIN {sql}", tuple(values)).fetchall()
        table, _ = (row[2] for row in program if row[1] == "OpenRead")
        assert table not in [row[2] for row in program if row[1] == "Column"]

    async def test_an_idle_worker_takes_no_write_lock(self, store: SqlRunStore, file: Path) -> None:
        await created(store, new_run())
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with anyio.fail_after(2):
                assert await claimed(store) == []
            other.execute("ROLLBACK")

    async def test_the_commit_of_a_step_writes_none_of_the_indexes(self, store: SqlRunStore, file: Path) -> None:
        """Seen in the program of the statement: it opens the table, and no index of it, for writing."""
        await created(store)
        with closing(sqlite3.connect(file)) as connection:
            program = connection.execute(f"EXPLAIN {commits._ADVANCE_RUNNING}", (1, "", "", 1, 1, 1, 1)).fetchall()
        assert [row[1] for row in program].count("OpenWrite") == 1

    async def test_the_end_of_a_run_needs_no_temporary_table(self, store: SqlRunStore, file: Path) -> None:
        await created(store)
        with closing(sqlite3.connect(file)) as connection:
            program = connection.execute(f"EXPLAIN {commits._END}", (1,) * commits._END.count("?")).fetchall()
        assert [row[1] for row in program if row[1] == "OpenEphemeral"] == []


class TestLooks:
    async def test_a_look_does_not_wait_for_a_renewal_that_waits_for_a_lock(
        self, store: SqlRunStore, file: Path
    ) -> None:
        claim = await created(store)
        await sent(store, message())
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            renewal = asyncio.create_task(store.renew([claim], 30.0))
            while not renewing(store):  # noqa: ASYNC110 - nothing reports it
                await asyncio.sleep(0.001)
            (found,) = await store.notices([claim])
            assert len(found.messages) == 1
            assert not renewal.done()
            other.execute("ROLLBACK")
        assert (await renewal)[0].is_held

    async def test_looks_use_one_connection(self, file: Path) -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{file}")
        store = SqlRunStore(engine)
        claim = await created(store)
        await store.notices([claim])
        checkouts = list[object]()
        event.listen(engine.sync_engine, "checkout", lambda *each: checkouts.append(each))
        for _ in range(3):
            await store.notices([claim])
            await store.states([claim.run_id])
            await store.sweep()
        assert checkouts == []
        await store.close()
        await engine.dispose()


def renewing(store: SqlRunStore) -> bool:
    """Whether a renewal uses its connection."""
    database = store._database._opened
    return isinstance(database, SqliteDatabase) and database._renewer.is_busy


class TestBoots:
    async def test_after_a_restart_of_the_host_the_time_of_the_wall_clock_counts(
        self, store: SqlRunStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        past = DueTime(now(), 3600.0)
        await store.create([due_run("past", due=past), due_run("future", due=in_seconds(3600))])
        assert await claimed(store) == []
        monkeypatch.setattr("spine_async.storage.boot_clock._boot_id", lambda: "another boot")
        assert names(await claimed(store, ttl=7200.0)) == ["past"]
        next_due = (await store.sweep()).next_due
        assert next_due is not None
        assert 3500 < next_due <= 3600


class TestCorruption:
    async def test_a_run_that_cannot_be_read_does_not_block_the_others(
        self, store: SqlRunStore, file: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        await store.create([due_run("bad", due=at_seconds(-60)), due_run("good")])
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            connection.execute("UPDATE core_workflow_runs SET created_at = 'never' WHERE run_id = 'bad'")
        assert names(await claimed(store, limit=1)) == []
        assert "'bad': column 'created_at'" in caplog.text
        assert names(await claimed(store, limit=1)) == ["good"]


class Changes:
    """Counts reported changes."""

    def __init__(self) -> None:
        self.count = 0
        self.happened = asyncio.Event()

    def __call__(self) -> None:
        self.count += 1
        self.happened.set()

    async def next(self) -> None:
        """Wait for a change that is reported from now on."""
        self.happened.clear()
        with anyio.fail_after(5):
            await self.happened.wait()


@asynccontextmanager
async def committing(store: SqlRunStore, claim: Claim) -> AsyncIterator[None]:
    """Inside, the store commits all the time."""
    is_over = False

    async def work() -> None:
        held, number = claim, 0
        while not is_over:
            made = change(held, [visit(f"step{number}", held.next_seq)])
            await store.commit([made])
            held, number = replace(held, next_seq=made.next_seq), number + 1

    task = asyncio.create_task(work())
    try:
        yield
    finally:
        is_over = True
        await task


def _opened(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(file, isolation_level=None)


def watches() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "spine_async watch"]


class TestWatch:
    async def test_a_commit_of_another_process_is_reported(self, store: SqlRunStore, file: Path) -> None:
        await created(store)
        changes = Changes()
        listener = await store.listen(changes)
        await changes.next()  # the first reading
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            delays = []
            for number in range(10):
                other.execute("UPDATE core_workflow_runs SET priority = ?", (number + 1,))
                began = time.perf_counter()
                await changes.next()
                delays.append(time.perf_counter() - began)
        assert sorted(delays)[len(delays) // 2] < 0.2  # without a report, the watch looks every 0.25 s
        await listener.close()
        assert watches() == []

    async def test_nothing_is_reported_without_a_commit(self, store: SqlRunStore) -> None:
        await created(store)
        changes = Changes()
        listener = await store.listen(changes)
        await changes.next()
        before = changes.count
        changes.happened.clear()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(changes.happened.wait(), 0.2)
        assert changes.count == before
        await listener.close()

    async def test_the_watch_uses_little_of_a_processor(self, store: SqlRunStore) -> None:
        await created(store)
        before = watches()
        listener = await store.listen(Changes())
        await asyncio.sleep(0.1)
        (watch,) = set(watches()).difference(before)
        assert watch.ident is not None
        clock = time.pthread_getcpuclockid(watch.ident)  # of this thread alone: others of this process may be busy
        began, began_cpu = time.perf_counter(), time.clock_gettime(clock)
        await asyncio.sleep(1)
        share = (time.clock_gettime(clock) - began_cpu) / (time.perf_counter() - began)
        await listener.close()
        assert share < 0.02  # 0.1 % on an idle host

    async def test_own_commits_are_reported_rarely(self, store: SqlRunStore) -> None:
        claim = await created(store)
        changes = Changes()
        listener = await store.listen(changes)
        await changes.next()
        before, began = changes.count, time.perf_counter()
        for number in range(200):
            made = change(claim, [visit(f"step{number}", claim.next_seq)])
            await store.commit([made])
            claim = replace(claim, next_seq=made.next_seq)
        elapsed = time.perf_counter() - began
        assert changes.count - before <= elapsed / 0.05 + 2
        await listener.close()

    async def test_a_commit_of_another_process_is_reported_while_this_one_commits(
        self, store: SqlRunStore, file: Path
    ) -> None:
        claim = await created(store)
        changes = Changes()
        await store.listen(changes)
        async with committing(store, claim):
            await changes.next()
            with closing(sqlite3.connect(file, isolation_level=None, timeout=30)) as other:
                for number in range(3):
                    other.execute("UPDATE core_workflow_runs SET priority = ?", (number + 1,))
                    await changes.next()

    async def test_two_runners_that_share_a_store_learn_of_the_commits_of_each_other(self, store: SqlRunStore) -> None:
        claim = await created(store)
        first, second = Changes(), Changes()
        await store.listen(first)
        await store.listen(second)
        async with committing(store, claim):
            for _ in range(3):
                await first.next()
                await second.next()

    def test_own_commits_are_told_from_those_of_others(self, file: Path) -> None:
        with closing(_opened(file)) as writer, closing(_opened(file)) as other:
            writer.execute("PRAGMA journal_mode = WAL")
            writer.execute("CREATE TABLE t (x)")
            own = OwnCommits()

            def others_after_own_commit() -> int:
                question = own.ask()
                own.add()
                writer.execute("INSERT INTO t VALUES (1)")
                own.end(writer)
                assert own.answered == question
                return own.others

            unknown = others_after_own_commit()  # the first comparison knows no earlier state
            assert others_after_own_commit() == others_after_own_commit() == unknown
            other.execute("INSERT INTO t VALUES (2)")
            assert others_after_own_commit() == unknown + 1
            assert others_after_own_commit() == unknown + 1
            other.execute("INSERT INTO t VALUES (3)")
            own.add()
            writer.execute("INSERT INTO t VALUES (4)")
            own.end(writer)
            assert own.others == unknown + 1, "nobody asked"
            assert others_after_own_commit() == unknown + 2

    async def test_the_last_own_commit_is_reported_as_well(self, store: SqlRunStore) -> None:
        await created(store)
        changes = Changes()
        await store.listen(changes)
        await changes.next()
        for _ in range(3):
            await sent(store, message())
        await changes.next()

    async def test_closing_the_store_ends_all_watches(self, store: SqlRunStore) -> None:
        await created(store)
        await store.listen(Changes())
        await store.listen(Changes())
        assert len(watches()) == 2
        await store.close()
        assert watches() == []

    async def test_a_file_that_does_not_exist_yet_is_not_created(self, store: SqlRunStore, file: Path) -> None:
        changes = Changes()
        listener = await store.listen(changes)
        assert not file.exists()
        await created(store)
        await changes.next()
        await listener.close()

    async def test_a_database_in_memory_has_no_watch(self) -> None:
        store = SqlRunStore.from_url("sqlite:///:memory:")
        listener = await store.listen(Changes())
        assert watches() == []
        await listener.close()
        await store.close()

    def test_a_fork_leaves_the_watch_of_its_parent_alone(self, file: Path) -> None:
        program = f"""
import asyncio, os, sys
from spine_async.storage import SqlRunStore
async def main():
    store = SqlRunStore.from_url("sqlite:///{file}")
    seen = asyncio.Event()
    await store.listen(seen.set)
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    await store.load("x")
    await store.request_stop("x", "y")
    await store.create([])
    await asyncio.wait_for(seen.wait(), 5)
    await store.close()
asyncio.run(main())
"""
        subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


def begins_immediate(engine: AsyncEngine) -> None:
    """As SQLAlchemy's documentation recommends: the engine emits BEGIN itself."""

    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: object, record: object) -> None:
        connection.isolation_level = None  # type: ignore[attr-defined]

    @event.listens_for(engine.sync_engine, "begin")
    def begun(connection: object) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # type: ignore[attr-defined]


@pytest.fixture
async def engine(file: Path) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{file}")
    begins_immediate(engine)
    yield engine
    await engine.dispose()


class TestCallerTransaction:
    async def test_the_run_exists_if_the_transaction_commits(self, store: SqlRunStore, engine: AsyncEngine) -> None:
        await created(store, new_run("other"))
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE orders (id INTEGER)"))
            (claim,) = await store.create_within(connection, [due_run()])
            assert claim is not None
            assert claim.epoch == 0
            assert await store.load("run-1") is None
        assert names(await claimed(store)) == ["run-1"]

    async def test_the_run_does_not_exist_if_the_transaction_is_rolled_back(
        self, store: SqlRunStore, engine: AsyncEngine
    ) -> None:
        await store.load("run-1")
        await created(store, new_run("other"))
        async with engine.connect() as connection:
            transaction = await connection.begin()
            await store.create_within(connection, [due_run(), due_run("run-2")])
            await transaction.rollback()
        assert await claimed(store) == []
        await created(store, due_run())

    async def test_a_session_works_as_a_connection(self, store: SqlRunStore, engine: AsyncEngine) -> None:
        await created(store, new_run("run-1"))
        async with AsyncSession(engine) as session, session.begin():
            await store.create_within(session, [due_run("run-2")])
            assert await store.send_within(session, message()) is Delivery.STORED
            assert await store.send_within(session, message(run_id="nobody")) is Delivery.NOT_FOUND
        assert names(await claimed(store)) == ["run-2"]

    async def test_a_message_wakes_after_the_commit_only(self, store: SqlRunStore, engine: AsyncEngine) -> None:
        await parked(store, Release(status=RunStatus.WAITING, awaits_messages=True))
        async with engine.begin() as connection:
            await store.send_within(connection, message())
            assert await claimed(store) == []
        assert names(await claimed(store)) == ["run-1"]

    async def test_a_stored_id_is_taken(self, store: SqlRunStore, engine: AsyncEngine) -> None:
        await created(store)
        async with engine.begin() as connection:
            assert await store.create_within(connection, [due_run()]) == [None]
        assert (await loaded(store)).owner == "worker-1"

    @pytest.mark.parametrize("make", [lambda: None, lambda: "sqlite:///x.db", object])
    async def test_another_kind_of_object_is_refused(self, store: SqlRunStore, make: Callable[[], object]) -> None:
        with pytest.raises(DefinitionError, match="must be an AsyncConnection or AsyncSession"):
            await store.create_within(make(), [due_run()])

    async def test_another_file_is_refused(self, store: SqlRunStore, tmp_path: Path) -> None:
        await created(store)
        other = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'other.db'}")
        begins_immediate(other)
        async with other.begin() as connection:
            with pytest.raises(DefinitionError, match="belongs to another database"):
                await store.create_within(connection, [due_run()])
        await other.dispose()

    async def test_the_same_file_under_another_name_is_accepted(
        self, store: SqlRunStore, file: Path, tmp_path: Path
    ) -> None:
        await created(store)
        link = tmp_path / "link"
        link.symlink_to(tmp_path, target_is_directory=True)
        other = create_async_engine(f"sqlite+aiosqlite:///{link / file.name}")
        begins_immediate(other)
        async with other.begin() as connection:
            assert await store.create_within(connection, [due_run("run-2")]) != [None]
        await other.dispose()
        assert names(await claimed(store)) == ["run-2"]

    async def test_a_connection_without_a_transaction_is_refused(self, store: SqlRunStore, file: Path) -> None:
        await created(store)
        plain = create_async_engine(f"sqlite+aiosqlite:///{file}")
        async with plain.connect() as connection:
            with pytest.raises(DefinitionError, match="in no transaction"):
                await store.create_within(connection, [due_run("run-2")])
        await plain.dispose()
        assert await store.load("run-2") is None

    @pytest.mark.parametrize("is_locked", [False, True])
    async def test_a_deferred_transaction_is_refused(self, store: SqlRunStore, file: Path, *, is_locked: bool) -> None:
        await created(store)
        plain = create_async_engine(f"sqlite+aiosqlite:///{file}")
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            async with plain.connect() as connection:
                await connection.exec_driver_sql("BEGIN")
                await connection.exec_driver_sql("SELECT count(*) FROM core_workflow_runs")
                if is_locked:
                    other.execute("BEGIN IMMEDIATE")
                began = time.perf_counter()
                with pytest.raises(DefinitionError, match="BEGIN IMMEDIATE"):
                    await store.create_within(connection, [due_run("run-2")])
                assert time.perf_counter() - began < 2
        await plain.dispose()

    async def test_a_transaction_that_has_written_holds_the_lock(self, store: SqlRunStore, file: Path) -> None:
        await created(store)
        plain = create_async_engine(f"sqlite+aiosqlite:///{file}")
        async with plain.begin() as connection:
            await connection.execute(text("UPDATE core_workflow_runs SET priority = 1"))
            assert await store.create_within(connection, [due_run("run-2")]) != [None]
        await plain.dispose()
        assert names(await claimed(store)) == ["run-2"]

    async def test_a_closed_connection_is_refused(self, store: SqlRunStore, engine: AsyncEngine) -> None:
        await created(store)
        async with engine.begin() as connection:
            pass
        with pytest.raises(DefinitionError, match="closed"):
            await store.create_within(connection, [due_run("run-2")])

    async def test_a_database_in_memory_is_refused(self, engine: AsyncEngine) -> None:
        store = SqlRunStore.from_url("sqlite:///:memory:")
        async with engine.begin() as connection:
            with pytest.raises(DefinitionError, match="in memory"):
                await store.create_within(connection, [due_run()])
        await store.close()
