"""PostgreSQL: a row that another transaction has locked makes only its own run wait."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import psycopg
import pytest

from spine_async import Step, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig
from spine_async._model.run_claim import Renewal
from spine_async.errors import LeaseLostError, RunConflictError, StoreError, StoreUnavailableError
from spine_async.ports import CommitOutcome, RunIdLockedError
from spine_async.storage.sql.store import SqlRunStore
from spine_async.testing.conformance.rows import change, created, loaded, new_run, taken_over, visit
from tests.servers.postgres import OTHER_CLIENTS


@pytest.fixture
async def store(fresh_postgres_url: str) -> AsyncIterator[SqlRunStore]:
    opened = SqlRunStore(fresh_postgres_url)
    yield opened
    await opened.close()


@asynccontextmanager
async def locked(url: str, run_id: str) -> AsyncIterator[psycopg.AsyncConnection]:
    """A transaction of somebody else that has locked the run's row."""
    dsn = url.replace("postgresql+asyncpg:", "postgresql:")
    async with await psycopg.AsyncConnection.connect(dsn) as other:
        await other.execute("SELECT 1 FROM core_workflow_runs WHERE run_id = %s FOR UPDATE", (run_id,))
        yield other
        await other.rollback()


async def test_the_other_changes_of_a_group_are_committed(store: SqlRunStore, fresh_postgres_url: str) -> None:
    claims = [await created(store, new_run(f"r{number}")) for number in range(5)]
    changes = [change(claim, [visit("fetch", 2)]) for claim in claims]
    async with locked(fresh_postgres_url, "r2"):
        began = time.monotonic()
        outcomes = await store.commit(changes)
        assert time.monotonic() - began < 3
        assert [str(outcome) for outcome in outcomes] == ["committed"] * 2 + ["locked"] + ["committed"] * 2
        assert await store.commit([changes[2]]) == [CommitOutcome.LOCKED]
    assert await store.commit([changes[2]]) == [CommitOutcome.COMMITTED]
    assert await store.commit(changes) == [CommitOutcome.COMMITTED] * 5  # all were committed earlier
    assert [len(await store.visits(claim.run_id)) for claim in claims] == [1] * 5


async def test_a_superseded_change_is_fenced_also_beside_a_locked_one(
    store: SqlRunStore, fresh_postgres_url: str
) -> None:
    claims = [await created(store, new_run(f"r{number}")) for number in range(3)]
    await taken_over(store, "r0")
    async with locked(fresh_postgres_url, "r2"):
        outcomes = await store.commit([change(claim, [visit("fetch", 2)]) for claim in claims])
        assert [str(outcome) for outcome in outcomes] == ["fenced", "committed", "locked"]
    assert await store.visits("r0") == []


async def test_renewals_leave_a_locked_row_out(store: SqlRunStore, fresh_postgres_url: str) -> None:
    claims = [await created(store, new_run(f"r{number}", ttl=0.0)) for number in range(3)]
    await store.request_stop("r1", "user")
    async with locked(fresh_postgres_url, "r1"):
        began = time.monotonic()
        first, second, third = await store.renew(claims, 60)
        assert time.monotonic() - began < 3
        assert first == third == Renewal(is_held=True)
        assert second == Renewal(is_held=True, stop_reason="user", is_extended=False)
        assert [(await loaded(store, f"r{number}")).is_leased for number in range(3)] == [True, False, True]
    assert (await store.renew(claims, 60))[1].is_extended


async def test_a_locked_claim_does_not_hold_up_commits(store: SqlRunStore, fresh_postgres_url: str) -> None:
    await created(store, new_run("r0", ttl=0.0))
    claim = await created(store, new_run("r1"))
    async with locked(fresh_postgres_url, "r0"), anyio.create_task_group() as tasks:
        tasks.start_soon(_claim_in_vain, store)
        await anyio.sleep(0.05)
        began = time.monotonic()
        assert await store.commit([change(claim, [visit("fetch", 2)])]) == [CommitOutcome.COMMITTED]
        assert time.monotonic() - began < 2
        tasks.cancel_scope.cancel()


async def _claim_in_vain(store: SqlRunStore) -> None:
    with pytest.raises(StoreUnavailableError, match="another transaction has locked the row"):
        await store.claim("r0", "worker-2", None, ttl=60)


async def test_only_the_blocked_run_waits(fresh_postgres_url: str) -> None:
    steps, blocked, others_ended = 8, anyio.Event(), anyio.Event()
    ended_at: dict[str, float] = {}

    async def work(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        if context.step_name == "s3" and context.run_id == "r0":
            blocked.set()
        await anyio.sleep(0.1)

    flow = Workflow("w", [Step.lambda_(f"s{number}", work) for number in range(steps)])

    async def execute(run_id: str) -> None:
        (await runner.execute(flow, run_id=run_id)).raise_for_status()
        ended_at[run_id] = time.monotonic()
        if len(ended_at) == 10:
            others_ended.set()

    runner = WorkflowRunner(config=WorkflowRunnerConfig(database_url=fresh_postgres_url, lease_ttl=6))
    async with runner, anyio.create_task_group() as tasks:
        for number in range(11):
            tasks.start_soon(execute, f"r{number}")
        await blocked.wait()
        async with locked(fresh_postgres_url, "r0"):
            with anyio.fail_after(10):
                await others_ended.wait()
            assert "r0" not in ended_at
    assert max(ended_at, key=lambda run_id: ended_at[run_id]) == "r0"
    assert len(ended_at) == 11


async def test_a_run_that_stays_blocked_ends_with_its_lease_and_the_others_keep_theirs(
    fresh_postgres_url: str,
) -> None:
    begun, all_ended, results = anyio.Event(), anyio.Event(), dict[str, object]()

    async def sleep(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        begun.set()
        await anyio.sleep(3)

    flow = Workflow("w", [Step.lambda_("sleep", sleep)])

    async def execute(run_id: str) -> None:
        try:
            results[run_id] = (await runner.execute(flow, run_id=run_id)).status
        except Exception as exc:
            results[run_id] = type(exc).__name__
        if len(results) == 11:
            all_ended.set()

    runner = WorkflowRunner(config=WorkflowRunnerConfig(database_url=fresh_postgres_url, lease_ttl=1.5))
    async with runner, anyio.create_task_group() as tasks:
        for number in range(11):
            tasks.start_soon(partial(execute, f"r{number}"))
        await begun.wait()
        async with locked(fresh_postgres_url, "r0"):
            with anyio.fail_after(15):
                await all_ended.wait()
    assert results.pop("r0") == "LeaseLostError"
    assert set(results.values()) == {"completed"}


async def test_a_locked_change_is_not_sent_after_the_runner_was_left(fresh_postgres_url: str) -> None:
    begun = anyio.Event()

    async def sleep(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        begun.set()
        await anyio.sleep(3)

    async def execute() -> None:
        with pytest.raises((LeaseLostError, StoreUnavailableError)):
            await runner.execute(Workflow("w", [Step.lambda_("sleep", sleep)]), run_id="r0")

    runner = WorkflowRunner(config=WorkflowRunnerConfig(database_url=fresh_postgres_url, lease_ttl=1.5))
    async with runner, anyio.create_task_group() as tasks:
        tasks.start_soon(execute)
        await begun.wait()
        lock = locked(fresh_postgres_url, "r0")
        other = await lock.__aenter__()
    await anyio.sleep(0.7)  # longer than the pause between two attempts

    async def others() -> list[Any]:
        await other.execute("SELECT pg_stat_clear_snapshot()")
        return await (await other.execute(f"SELECT state, wait_event_type, query {OTHER_CLIENTS}")).fetchall()

    found = await others()
    assert not [row for row in found if row[1] == "Lock"]
    with anyio.move_on_after(10):  # the server needs time to detect that a client has disconnected
        while found:
            await anyio.sleep(0.01)
            found = await others()
    assert not found
    await lock.__aexit__(None, None, None)


@asynccontextmanager
async def inserted(url: str, run_id: str, *, ending: str = "rollback") -> AsyncIterator[None]:
    """A transaction of somebody else that has inserted a run with this id, and does not end for now."""
    dsn = url.replace("postgresql+asyncpg:", "postgresql:")
    async with await psycopg.AsyncConnection.connect(dsn) as other:
        await other.execute("CREATE TEMP TABLE copied AS SELECT * FROM core_workflow_runs WHERE run_id = 'template'")
        await other.execute("UPDATE copied SET id = id + 1000, run_id = %s", (run_id,))
        await other.execute("INSERT INTO core_workflow_runs OVERRIDING SYSTEM VALUE SELECT * FROM copied")
        yield
        await (other.rollback() if ending == "rollback" else other.commit())


async def test_a_creation_does_not_wait_long_for_a_locked_id(store: SqlRunStore, fresh_postgres_url: str) -> None:
    await created(store, new_run("template"))
    async with inserted(fresh_postgres_url, "r2"):
        began = time.monotonic()
        with pytest.raises(RunIdLockedError):
            await store.create([new_run(f"r{number}") for number in range(5)])
        assert time.monotonic() - began < 3
        assert await store.load("r1") is None
    assert all(await store.create([new_run(f"r{number}") for number in range(5)]))


@pytest.mark.parametrize("ending", ["rollback", "commit", "delete"])
async def test_only_the_run_whose_id_is_locked_waits_for_its_creation(
    store: SqlRunStore, fresh_postgres_url: str, ending: str
) -> None:
    await created(store, new_run("template"))
    flow = Workflow("w", [Step.lambda_("a", lambda context, config: None)])
    if ending == "delete":
        await created(store, new_run("r2"))
    others_ended, ended = anyio.Event(), dict[str, str]()
    config = WorkflowRunnerConfig(database_url=fresh_postgres_url, lease_ttl=30)

    async def execute(run_id: str) -> None:
        try:
            ended[run_id] = (await runner.execute(flow, run_id=run_id)).status
        except RunConflictError as exc:
            ended[run_id] = type(exc).__name__
        if len(ended) == 5:
            others_ended.set()

    blocking = deleted if ending == "delete" else partial(inserted, ending=ending)
    async with (
        WorkflowRunner(config=config) as runner,
        anyio.create_task_group() as tasks,
        blocking(fresh_postgres_url, "r2"),
    ):
        for number in range(6):
            tasks.start_soon(execute, f"r{number}")
        with anyio.fail_after(10):
            await others_ended.wait()
        assert "r2" not in ended
    assert ended.pop("r2") == ("RunConflictError" if ending == "commit" else "completed")
    assert list(ended.values()) == ["completed"] * 5


@asynccontextmanager
async def deleted(url: str, run_id: str) -> AsyncIterator[None]:
    """A transaction of somebody else that has deleted a run, and does not end for now."""
    dsn = url.replace("postgresql+asyncpg:", "postgresql:")
    async with await psycopg.AsyncConnection.connect(dsn) as other:
        await other.execute("DELETE FROM core_workflow_runs WHERE run_id = %s", (run_id,))
        yield


async def test_a_creation_whose_id_stays_locked_fails_with_one_lease(
    store: SqlRunStore, fresh_postgres_url: str
) -> None:
    await created(store, new_run("template"))
    flow = Workflow("w", [Step.lambda_("a", lambda context, config: None)])
    async with inserted(fresh_postgres_url, "r2"):
        runner = WorkflowRunner(config=WorkflowRunnerConfig(database_url=fresh_postgres_url, lease_ttl=0.5))
        with pytest.raises(StoreError, match="run with this id"), anyio.fail_after(10):
            await runner.execute(flow, run_id="r2")
