"""The cost of claims within limits, past many queued runs, and their locks."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.to_thread
import asyncpg
import pytest

from spine_async._model.due import DueRequest, DueRuns
from spine_async._model.queue import Queue, RateLimit
from spine_async._model.run_claim import NoRoom
from spine_async.storage import SqlRunStore
from spine_async.storage.sql.postgres import queue_statements
from spine_async.storage.sql.postgres.errors import is_transient_on_postgres
from spine_async.storage.sql.postgres.queues import locked
from spine_async.storage.sql.sqlite import due_runs, queues, turns
from spine_async.testing.conformance.due_rows import due_run, names, request
from tests.storage.plain_sql import execute
from tests.storage.test_due_runs_in_postgres import explained, indexes, multiply, read_rows

pytestmark = pytest.mark.anyio

QUEUED = 50_000
KEYS = 4
MAIL = Queue("mail", concurrency=20, per_process=10, per_key=2, rate=RateLimit(100, per=60))


def within() -> DueRequest:
    """The request of a worker that gives its queue limits."""
    return replace(request(queues=frozenset({"mail"})), limits=(MAIL,))


_GIVEN = (
    "given AS (SELECT 'new' AS run_id, 'mail' AS queue, 'k1' AS queue_key, 0 AS priority, 1.0::float8 AS turn, "
    "true AS ready, 1 AS place)"
)
_KNOWN = (["orders", "refunds"], [3, 3])
STATEMENTS: dict[str, tuple[str, Sequence[object]]] = {
    "WAITING": (queue_statements.WAITING, (["mail"], *_KNOWN)),
    "HELD": (queue_statements.HELD, (["mail"], "worker", "")),
    "BEGUN": (queue_statements.BEGUN, (["mail"], [60.0])),
    "CANDIDATES": (queue_statements.CANDIDATES, (*_KNOWN, ["mail"], 30)),
    "CONTINUING": (queue_statements.CONTINUING, (*_KNOWN, ["mail"], 30)),
    "BY_KEY": (queue_statements.BY_KEY, (*_KNOWN, "mail", 2, ["k1"], 30)),
    "TURNS": (f"WITH {_GIVEN}, {queue_statements.turns('given', 'run_id', 'ready')} SELECT * FROM given_turns", ()),
    "UNLISTED": (queue_statements.UNLISTED, (["other"], 60.0)),
}
READ_BY = {
    "WAITING": "ready",
    "HELD": "held",
    "CANDIDATES": "ready",
    "CONTINUING": "ready_again",
    "BY_KEY": "ready_keys",
    "TURNS": "ready_keys",
    "UNLISTED": "ready",
}


async def test_postgres_reads_few_rows(fresh_postgres_url: str) -> None:
    """Also by a plan that a connection has made without the arguments, or while there were no statistics."""
    store = SqlRunStore(fresh_postgres_url)
    await store.create([due_run(f"k{key}", queue="mail", queue_key=f"k{key}") for key in range(KEYS)])
    await store.create([due_run("foreign", queue="mail", workflow_name="foreign"), due_run("held", queue="mail")])
    await store.claim("held", "worker", None, ttl=60)
    for key in range(KEYS):
        multiply(fresh_postgres_url, f"k{key}", QUEUED // KEYS)
    multiply(fresh_postgres_url, "foreign", 5000)
    check_plans(fresh_postgres_url)
    execute(fresh_postgres_url, "ANALYZE")
    check_plans(fresh_postgres_url)
    assert len(await store.claim_due(within())) == 2 * KEYS
    await store.close()


def check_plans(url: str) -> None:
    for name, (statement, arguments) in STATEMENTS.items():
        for is_generic in (False, True):
            plan = explained(url, statement, arguments, is_generic=is_generic)
            assert read_rows(plan) < 120, (name, is_generic, json.dumps(plan, indent=1))
            if name in READ_BY:
                assert f"core_workflow_runs_{READ_BY[name]}" in indexes(plan), (name, is_generic, indexes(plan))


@pytest.fixture
async def crowded(tmp_path: Path) -> AsyncIterator[SqlRunStore]:
    """A store with many queued runs of a few keys."""
    store = SqlRunStore.from_url(f"sqlite:///{tmp_path / 'runs.db'}", durability="process")
    runs = [due_run(f"k{number}", queue="mail", queue_key=f"k{number % KEYS}") for number in range(QUEUED // 5)]
    await store.create(runs)
    await store.create([due_run("foreign", queue="mail", workflow_name="foreign"), due_run("held", queue="mail")])
    await store.claim("held", "worker", None, ttl=60)
    yield store
    await store.close()


class Counted:
    """Counts the instructions of SQLite's virtual machine; they do not depend on the load of the host."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.count = 0
        connection.set_progress_handler(self._add, 100)

    def _add(self) -> int:
        self.count += 100
        return 0


def instructions(file: Path) -> tuple[bool, int]:
    """Whether a worker would claim a run, and the instructions for that and for the turn of another run."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        counted = Counted(connection)
        is_any = due_runs.look(connection, within()) is None
        turns.Turns(connection).take("mail", "k1", 0, 1.0)
        queues.unlisted_queues(connection, [])
    return is_any, counted.count


async def test_sqlite_executes_few_instructions(crowded: SqlRunStore, tmp_path: Path) -> None:
    is_any, count = await anyio.to_thread.run_sync(instructions, tmp_path / "runs.db")
    assert (is_any, count < 60_000) == (True, True), count
    assert len(names(await crowded.claim_due(within()))) == 2 * KEYS
    is_any, count = await anyio.to_thread.run_sync(instructions, tmp_path / "runs.db")
    assert (is_any, count < 60_000) == (False, True), count


class TestLocks:
    """On PostgreSQL a claim locks its queue in a statement of its own."""

    @pytest.fixture
    async def store(self, fresh_postgres_url: str) -> AsyncIterator[SqlRunStore]:
        store = SqlRunStore(fresh_postgres_url)
        await store.create([due_run("limited", queue="mail", queue_key="k"), due_run("free")])
        yield store
        await store.close()

    async def test_a_locked_queue_keeps_no_other_run_from_being_claimed(
        self, store: SqlRunStore, fresh_postgres_url: str
    ) -> None:
        driver = await asyncpg.connect(fresh_postgres_url.replace("+asyncpg", ""))
        async with locked(driver, [MAIL]):
            found = await store.claim_due(within())
            assert names(found) == ["free"]
            assert isinstance(found, DueRuns)
            assert found.room_in is not None
            refused = await store.claim_queued("limited", "worker", None, limits=MAIL, ttl=60)
            assert isinstance(refused, NoRoom)
        assert names(await store.claim_due(within())) == ["limited"]
        await driver.close()

    async def test_a_process_that_stands_still_during_its_claim_loses_the_lock(
        self, store: SqlRunStore, fresh_postgres_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("spine_async.storage.sql.postgres.queues._IDLE_MS", "20")
        driver = await asyncpg.connect(fresh_postgres_url.replace("+asyncpg", ""))
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)) as caught:  # noqa: PT012
            async with locked(driver, [MAIL]):
                while not (found := names(await store.claim_due(within()))) or found == ["free"]:  # noqa: ASYNC110
                    await anyio.sleep(0.005)
                assert found[-1] == "limited"
                await driver.fetchval("SELECT 1")
        assert is_transient_on_postgres(caught.value), "the claim is tried again on another connection"
        driver.terminate()
