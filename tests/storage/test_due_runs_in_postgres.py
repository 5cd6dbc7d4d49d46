"""Due runs in PostgreSQL: the cost of a claim, races between connections, and pools without a spare connection."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import psycopg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from spine_async._model.due import Delivery
from spine_async._model.run_change import Release
from spine_async._model.run_claim import Claim
from spine_async._model.run_row import DueTime
from spine_async._model.status import RunStatus
from spine_async.errors import SchemaVersionError
from spine_async.ports import CommitOutcome
from spine_async.storage import SqlRunStore
from spine_async.storage.sql.postgres import due_statements, inbox
from spine_async.storage.sql.postgres.changes import is_special
from spine_async.storage.sql.postgres.statements import CommitShape, commit_statement
from spine_async.storage.sql.schema import queries
from spine_async.storage.sql.schema.tables import runs as RUN_TABLE  # noqa: N812
from spine_async.testing.conformance.due_rows import (
    at_seconds,
    claimed,
    due_run,
    in_seconds,
    message,
    names,
    notice,
    park,
    parked,
    request,
    sent,
    state,
)
from spine_async.testing.conformance.rows import change, committed, created, loaded, new_run, visit
from tests.storage.history import advanced, begun, checked_out
from tests.storage.plain_sql import execute

MANY = 20_000
AWAITING = Release(status=RunStatus.WAITING, awaits_messages=True)


@pytest.fixture
async def store(fresh_postgres_url: str) -> AsyncIterator[SqlRunStore]:
    store = SqlRunStore(fresh_postgres_url)
    yield store
    await store.close()


@asynccontextmanager
async def another(url: str) -> AsyncIterator[SqlRunStore]:
    """A store with connections of its own."""
    store = SqlRunStore(url)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def transaction(url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    """A transaction of somebody else, which is rolled back unless the test commits it."""
    async with await psycopg.AsyncConnection.connect(url.replace("+asyncpg", "")) as other:
        yield other
        await other.rollback()


class TestCost:
    """A worker reads index entries of what it may claim, and no others."""

    @pytest.fixture
    async def crowded(self, store: SqlRunStore, fresh_postgres_url: str) -> SqlRunStore:
        """Foreign runs that are ready, delayed runs by both clocks, and a few that matter."""
        kinds = [due_run("f", workflow_name="foreign"), due_run("d", due=at_seconds(3600))]
        await store.create([*kinds, due_run("b", due=in_seconds(3600)), due_run("mine"), new_run("held")])
        for name, count in (("f", MANY), ("d", MANY // 2), ("b", MANY // 2)):
            multiply(fresh_postgres_url, name, count)
        await sent(store, message(run_id="held"))
        return store

    @pytest.mark.parametrize("has_statistics", [False, True])
    async def test_only_the_partial_indexes_are_read(
        self, crowded: SqlRunStore, fresh_postgres_url: str, *, has_statistics: bool
    ) -> None:
        """Also by a plan that a connection has made without the arguments, or while there were no statistics."""
        if has_statistics:
            execute(fresh_postgres_url, "ANALYZE")
        for name, (statement, arguments) in STATEMENTS.items():
            for is_generic in (False, True):
                plan = explained(fresh_postgres_url, statement, arguments, is_generic=is_generic)
                assert read_rows(plan) < 60, (name, is_generic, json.dumps(plan, indent=1))
                assert PARTIAL[name] <= set(indexes(plan)), (name, is_generic)
        assert names(await claimed(crowded)) == ["mine"]
        assert await claimed(crowded) == []

    @pytest.mark.parametrize("count", [500, 5000])
    async def test_a_message_is_never_joined_with_all_runs(
        self, store: SqlRunStore, fresh_postgres_url: str, count: int
    ) -> None:
        """Without statistics of the inbox, the planner expects hundreds of messages."""
        await created(store, new_run("parked"))
        multiply(fresh_postgres_url, "parked", count)
        execute(fresh_postgres_url, "UPDATE core_workflow_runs SET owner = NULL")
        await sent(store, message(run_id="parked"))
        for name in ("LOOK", "READY_BY_NEWS", "OPEN"):
            for is_generic in (False, True):
                plan = explained(fresh_postgres_url, *STATEMENTS[name], is_generic=is_generic)
                assert read_rows(plan) < 20, (name, is_generic, json.dumps(plan, indent=1))


def multiply(url: str, run_id: str, count: int) -> None:
    """Copy a run so many times, each with an id of its own.

    From then on only the test makes statistics: those of a moment in between would lead to plans that no test expects.
    """
    execute(url, "ALTER TABLE core_workflow_runs SET (autovacuum_enabled = off)")
    names = [f'"{each.name}"' for each in RUN_TABLE.columns if each.name not in {"id", "run_id"}]
    columns = ", ".join(names)
    execute(
        url,
        f"INSERT INTO core_workflow_runs (run_id, {columns}) SELECT run_id || n, {columns} "
        f"FROM core_workflow_runs, generate_series(1, {count}) n WHERE run_id = '{run_id}'",
    )


_PLACES = (["orders", "refunds"], [3, 3], ["", "mail"])
STATEMENTS: dict[str, tuple[str, Sequence[object]]] = {
    "CLAIM_DUE": (
        due_statements.CLAIM_DUE,
        ("worker", "token", 10, *_PLACES[:2], at_seconds(0).at, 60.0, _PLACES[2], 30),
    ),
    "LOOK": (due_statements.LOOK, ("boot", 1e9)),
    "READY_BY_WALL": (due_statements.READY_BY_WALL, ("boot",)),
    "READY_IN_BOOT": (due_statements.READY_IN_BOOT, ("boot", 1e9)),
    "READY_BY_NEWS": (due_statements.READY_BY_NEWS, ()),
    "OPEN": (inbox._OPEN, (["1"], ["1"])),
    "LOST": (due_statements.READY_OF_OWNERS, (["gone"], ["lapsed"], ["spared"])),
    "BACKLOG": (str(queries.BACKLOG["postgresql"]).replace(":most", "$1::bigint"), (10,)),
}
PARTIAL = {
    "CLAIM_DUE": {"core_workflow_runs_ready", "core_workflow_runs_held"},
    "LOOK": {"core_workflow_runs_due", "core_workflow_runs_due_in_boot", "core_workflow_runs_held"},
    "READY_BY_WALL": {"core_workflow_runs_due"},
    "READY_IN_BOOT": {"core_workflow_runs_due_in_boot"},
    "READY_BY_NEWS": {"core_workflow_runs_pkey"},
    "OPEN": set(),  # it finds the few held runs by several indexes
    "LOST": {"core_workflow_runs_held"},
    "BACKLOG": {"core_workflow_runs_parked"},
}
_ARRAYS = {list: "text[]", str: "text", int: "bigint", float: "float8"}


def explained(url: str, statement: str, arguments: Sequence[object], *, is_generic: bool = False) -> dict[str, Any]:
    """The plan of a statement with what it really read; its effects are rolled back."""
    mode = "force_generic_plan" if is_generic else "force_custom_plan"
    with psycopg.connect(url.replace("+asyncpg", "")) as connection, connection.cursor() as cursor:
        cursor.execute(f"SET plan_cache_mode = {mode}".encode())
        cursor.execute(f"PREPARE explained AS {statement}".encode())
        values = f"({', '.join(map(_literal, arguments))})" if arguments else ""
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE explained{values}".encode())
        (found,) = cursor.fetchall()
        connection.rollback()
    plan: dict[str, Any] = found[0][0]["Plan"]
    return plan


def _literal(value: object) -> str:
    if isinstance(value, list):
        return f"'{{{','.join(json.dumps(str(each)) for each in value)}}}'"
    return f"'{value}'"


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """The plan's nodes."""
    return [plan, *(each for part in plan.get("Plans", ()) for each in nodes(part))]


def indexes(plan: dict[str, Any]) -> list[str]:
    return [each["Index Name"] for each in nodes(plan) if "Index Name" in each]


def read_rows(plan: dict[str, Any]) -> float:
    """The rows that all scans have read, those included that a filter removed."""
    scans = [each for each in nodes(plan) if "Scan" in each["Node Type"] and "Relation Name" in each]
    return sum(each["Actual Loops"] * (each["Actual Rows"] + each.get("Rows Removed by Filter", 0)) for each in scans)


class TestConcurrentClaims:
    async def test_six_workers_never_claim_a_run_twice(self, store: SqlRunStore, fresh_postgres_url: str) -> None:
        await store.create([due_run(f"r{number}", priority=number % 3) for number in range(600)])
        found: list[str] = []

        async def work(worker: int) -> None:
            async with another(fresh_postgres_url) as own:
                while batch := names(await own.claim_due(request(owner=f"worker-{worker}", limit=7))):
                    found.extend(batch)

        async with anyio.create_task_group() as group:
            for worker in range(6):
                group.start_soon(work, worker)
        assert len(found) == len(set(found))
        assert len(found) >= 590, "a worker stops early only if others are just claiming the last runs"
        await created(store, due_run("last"))
        rest = names(await claimed(store, limit=100))
        assert sorted([*found, *rest]) == sorted([*(f"r{number}" for number in range(600)), "last"])

    async def test_a_locked_run_holds_up_no_worker(self, store: SqlRunStore, fresh_postgres_url: str) -> None:
        await store.create([due_run("locked", priority=-1), due_run("free")])
        async with transaction(fresh_postgres_url) as other:
            await other.execute("SELECT 1 FROM core_workflow_runs WHERE run_id = 'locked' FOR UPDATE")
            assert names(await claimed(store)) == ["free"]
        assert names(await claimed(store)) == ["locked"]

    async def test_a_claim_passes_over_many_locked_runs(self, store: SqlRunStore, fresh_postgres_url: str) -> None:
        await store.create([due_run(f"r{number}", priority=number) for number in range(200)])
        async with transaction(fresh_postgres_url) as other:
            await other.execute("SELECT 1 FROM core_workflow_runs WHERE priority < 150 FOR UPDATE")
            assert names(await claimed(store, limit=3)) == ["r150", "r151", "r152"]

    async def test_an_owner_that_renews_while_its_run_is_claimed_keeps_it_or_learns_it(
        self, store: SqlRunStore, fresh_postgres_url: str
    ) -> None:
        async with another(fresh_postgres_url) as worker:
            for number in range(100):
                claim = await created(store, new_run(f"r{number}", ttl=0.0))
                await worker.sweep(lapsed=["worker-1"])
                taken: list[str] = []
                kept: list[bool] = []

                async def claim_it(taken: list[str] = taken) -> None:
                    taken.extend(names(await worker.claim_due(request())))

                async def renew_it(claim: Claim = claim, kept: list[bool] = kept) -> None:
                    kept.append((await store.renew([claim], 60))[0].is_held)

                async with anyio.create_task_group() as group:
                    for job in (claim_it, renew_it) if number % 2 else (renew_it, claim_it):
                        group.start_soon(job)
                assert bool(taken) is not kept[0]

    async def test_a_run_that_cannot_be_read_is_set_aside(
        self, store: SqlRunStore, fresh_postgres_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        await store.create([due_run("bad", priority=-1), due_run("worse", priority=-1), due_run("good")])
        execute(fresh_postgres_url, "UPDATE core_workflow_runs SET created_at = 'infinity' WHERE run_id = 'bad'")
        execute(fresh_postgres_url, "UPDATE core_workflow_runs SET updated_at = '0044-03-15 BC' WHERE run_id = 'worse'")
        assert "good" in names(await claimed(store))
        assert "run 'bad': column 'created_at'" in caplog.text
        assert await claimed(store) == []
        left = "SELECT status, owner, ready FROM core_workflow_runs WHERE run_id = 'bad'"
        assert execute(fresh_postgres_url, left) == [("pending", None, False)]


class TestParkAndSend:
    async def test_a_message_that_arrives_during_the_park_is_never_lost(
        self, store: SqlRunStore, fresh_postgres_url: str
    ) -> None:
        """A sweep runs beside them, which might mark the message as seen before the run is parked."""
        async with another(fresh_postgres_url) as sender, another(fresh_postgres_url) as sweeper:
            for number in range(300):
                claim = await created(store, new_run(f"r{number}"))
                jobs: list[Callable[[], Coroutine[Any, Any, object]]] = [
                    partial(park, store, claim, AWAITING),
                    partial(sent, sender, message(run_id=claim.run_id)),
                    partial(sweeper.sweep),
                ]
                async with anyio.create_task_group() as group:
                    for job in random.sample(jobs, 3):
                        group.start_soon(job)
                assert names(await claimed(sweeper)) == [claim.run_id]

    async def test_a_message_that_is_committed_between_the_two_statements_of_a_park_wakes_the_run(
        self, store: SqlRunStore, fresh_postgres_url: str
    ) -> None:
        claim = await created(store)
        async with transaction(fresh_postgres_url) as other, anyio.create_task_group() as group:
            # The park waits for the row, and its first statement has its snapshot already.
            await other.execute("SELECT 1 FROM core_workflow_runs WHERE run_id = 'run-1' FOR UPDATE")
            group.start_soon(park, store, claim, AWAITING)
            await until_blocked(fresh_postgres_url)
            await sent(store, message())
            await other.rollback()
        assert (await state(store)).is_due is True, "without a sweep"

    async def test_the_messages_of_a_run_that_is_held_are_not_marked_as_seen(
        self, store: SqlRunStore, fresh_postgres_url: str
    ) -> None:
        claim = await created(store)
        await parked(store, AWAITING, "parked")
        await sent(store, message(), message(run_id="parked"))
        await store.sweep()
        unseen = "SELECT count(*) FROM core_workflow_inbox WHERE unseen"
        assert execute(fresh_postgres_url, unseen) == [(1,)]
        assert names(await claimed(store)) == ["parked"]
        await park(store, claim, Release(status=RunStatus.WAITING))
        assert names(await claimed(store)) == ["run-1"]
        assert execute(fresh_postgres_url, unseen) == [(0,)]

    async def test_a_sweep_looks_again_at_a_run_that_was_locked(
        self, store: SqlRunStore, fresh_postgres_url: str
    ) -> None:
        await parked(store, AWAITING)
        await sent(store, message())
        async with transaction(fresh_postgres_url) as other:
            await other.execute("SELECT 1 FROM core_workflow_runs FOR UPDATE")
            with anyio.fail_after(5):
                assert await claimed(store) == []
        assert names(await claimed(store)) == ["run-1"]

    async def test_sending_waits_for_no_lock_of_the_run(self, store: SqlRunStore, fresh_postgres_url: str) -> None:
        claim = await created(store)
        async with transaction(fresh_postgres_url) as other:
            await other.execute("SELECT 1 FROM core_workflow_runs FOR UPDATE")
            with anyio.fail_after(5):
                await sent(store, message())
                assert len((await notice(store, claim)).messages) == 1

    async def test_two_senders_of_one_key_wait_for_each_other(
        self, store: SqlRunStore, fresh_postgres_url: str
    ) -> None:
        """Meanwhile others commit."""
        claim = await begun(store)
        answers: list[Delivery] = []

        async def send() -> None:
            answers.append(await store.send(message(key="k")))

        async with transaction(fresh_postgres_url) as other, anyio.create_task_group() as group:
            await other.execute(
                "INSERT INTO core_workflow_inbox (run, name, value, received_at, token, idempotency_key) "
                "SELECT id, 'n', '1', now(), 'theirs', 'k' FROM core_workflow_runs"
            )
            group.start_soon(send)
            await until_blocked(fresh_postgres_url)
            with anyio.fail_after(2):
                await advanced(store, claim)
            await other.commit()
        assert answers == [Delivery.DUPLICATE]

    async def test_a_message_of_a_run_that_was_deleted_meanwhile_is_cleared_away(
        self, store: SqlRunStore, fresh_postgres_url: str
    ) -> None:
        await created(store)
        execute(
            fresh_postgres_url,
            "INSERT INTO core_workflow_inbox (run, name, value, received_at, token) VALUES (-1, 'n', '1', now(), 't')",
        )
        await store.sweep()
        assert execute(fresh_postgres_url, "SELECT count(*) FROM core_workflow_inbox") == [(0,)]


async def until_blocked(url: str) -> None:
    """Wait until a session waits for a lock."""
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with anyio.fail_after(10):
        while not await anyio.to_thread.run_sync(execute, url, waiting):
            await anyio.lowlevel.checkpoint()


class TestCommits:
    async def test_an_ordinary_step_has_a_statement_of_its_own(self) -> None:
        """Nothing of the inbox, of notifications and of due times is in it."""
        ordinary = change(Claim("r", 1, 1, 2), [visit("fetch", 2)])
        assert not is_special(ordinary)
        for is_single in (True, False):
            text = commit_statement(CommitShape(is_single=is_single, has_visits=True, has_events=False))
            assert not any(word in text for word in ("inbox", "notify", "due_at"))

    async def test_a_locked_run_is_released_later(self, store: SqlRunStore, fresh_postgres_url: str) -> None:
        first, second = await created(store), await created(store, new_run("run-2"))
        changes = [replace(change(each, [visit("fetch", 2)]), release=AWAITING) for each in (first, second)]
        async with transaction(fresh_postgres_url) as other:
            await other.execute("SELECT 1 FROM core_workflow_runs WHERE run_id = 'run-1' FOR UPDATE")
            assert await store.commit(changes) == [CommitOutcome.LOCKED, CommitOutcome.COMMITTED]
        assert await store.commit(changes) == [CommitOutcome.COMMITTED] * 2
        assert (await loaded(store)).status is RunStatus.WAITING

    async def test_a_run_that_is_restored_by_a_commit_has_ended(self, store: SqlRunStore) -> None:
        claim = await created(store)
        made = replace(change(claim), release=Release(due=DueTime(at_seconds(0).at), counts=True))
        await committed(store, made)
        assert names(await claimed(store)) == ["run-1"]
        assert (await loaded(store)).claims_since_progress == 1


async def test_runs_of_another_boot_are_due_by_the_clock_of_the_server(
    store: SqlRunStore, fresh_postgres_url: str
) -> None:
    await store.create([due_run(name, due=in_seconds(600)) for name in ("here", "past", "future")])
    execute(
        fresh_postgres_url,
        "UPDATE core_workflow_runs SET due_boot = 'another', "
        "due_seconds = CASE run_id WHEN 'past' THEN 1e12 ELSE 0 END, "
        "due_at = now() + CASE run_id WHEN 'past' THEN -1 ELSE 1 END * interval '1 hour' WHERE run_id <> 'here'",
    )
    assert names(await claimed(store)) == ["past"]
    assert [(await state(store, each)).is_due for each in ("here", "future")] == [False, False]


async def test_a_pool_of_three_suffices_for_a_store_that_listens(fresh_postgres_url: str) -> None:
    engine = create_async_engine(fresh_postgres_url, pool_size=3, max_overflow=0)
    store = SqlRunStore(engine)
    claim = await created(store)
    listener = await store.listen(lambda: None)
    await store.renew([claim], 60)
    assert checked_out(engine) == 3
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(store.sweep)
                group.start_soon(store.load, "run-1")
                group.start_soon(sent, store, message())
    assert len((await notice(store, claim)).messages) == 10
    await listener.close()
    await store.close()
    assert checked_out(engine) == 0
    await engine.dispose()


async def test_a_process_of_version_2_beside_an_upgrade_is_told(store: SqlRunStore, fresh_postgres_url: str) -> None:
    """Each of its statements that creates, claims, renews or ends a run names a column that is called otherwise now."""
    claim = await begun(store)
    execute(fresh_postgres_url, "ALTER TABLE core_workflow_runs RENAME COLUMN leased_until TO lease_until")
    execute(fresh_postgres_url, "UPDATE core_workflow_schema SET version = 4")
    for call in (
        partial(store.renew, [claim], 60),
        partial(store.commit, [change(claim, [visit("fetch", 9)])]),
        partial(store.create, [new_run("new")]),
        partial(store.claim, "run-1", "me", None, ttl=9),
        partial(store.claim_due, request()),
        partial(store.sweep),
        partial(store.release_run, claim, Release()),
    ):
        with pytest.raises(SchemaVersionError):
            await call()
