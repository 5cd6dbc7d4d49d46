"""PostgreSQL ends connections, loses replies or restarts: no row is lost or stored twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from functools import partial

import anyio
import anyio.to_thread
import psycopg
import pytest

from spine_async._model.run_claim import Claim, Renewal
from spine_async._model.visit_row import EventRow
from spine_async.errors import StoreUnavailableError
from spine_async.ports import CommitOutcome, RunStore
from spine_async.storage.sql.driver import retry
from spine_async.testing.conformance.rows import (
    change,
    created,
    event,
    loaded,
    moment,
    moved,
    new_run,
    taken_over,
    visit,
)
from tests.servers import postgres
from tests.servers.postgres import OTHER_CLIENTS, PostgresServer
from tests.servers.process import _is_alive
from tests.storage.history import advanced, assert_whole, begun, store_without_leaks
from tests.storage.reply_dropper import reply_dropper

_RESUMED = EventRow("workflow_resumed", None, moment(90))


def _terminate_others(dsn: str) -> int:
    """End every other connection to the database; returns how many."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        ended = connection.execute(f"SELECT pg_terminate_backend(pid) {OTHER_CLIENTS}").fetchall()
    return len(ended)


def _dsn(url: str) -> str:
    return url.replace("postgresql+asyncpg:", "postgresql:")


async def _has_no_open_transactions(url: str) -> bool:
    """Whether no transactions of others wait for their client; the server needs time to detect that one is gone."""

    def ask() -> int:
        with psycopg.connect(_dsn(url), autocommit=True) as connection:
            found = connection.execute(
                f"SELECT count(*) {OTHER_CLIENTS} AND state LIKE 'idle in transaction%'"
            ).fetchone()
        return int(found[0]) if found else 0

    with anyio.move_on_after(10):
        while await anyio.to_thread.run_sync(ask) > 0:  # noqa: ASYNC110 - the server changes it
            await anyio.sleep(0.05)
        return True
    return False


class TestTerminatedConnections:
    async def test_between_two_commits(self, fresh_postgres_url: str) -> None:
        async with store_without_leaks(fresh_postgres_url) as store:
            claim = await begun(store)
            for _ in range(5):
                assert await anyio.to_thread.run_sync(_terminate_others, _dsn(fresh_postgres_url)) > 0
                claim = await advanced(store, claim)
            await assert_whole(store, claim)

    async def test_while_a_commit_waits_for_the_run_s_row(self, fresh_postgres_url: str) -> None:
        async with store_without_leaks(fresh_postgres_url) as store:
            claim = await begun(store)
            async with await psycopg.AsyncConnection.connect(_dsn(fresh_postgres_url)) as other:
                await other.execute("SELECT 1 FROM core_workflow_runs FOR UPDATE")
                done = asyncio.create_task(_advanced_once_unlocked(store, claim))
                assert await _terminate_blocked(other) == 1
                await other.rollback()
                claim = await done
            await assert_whole(store, claim)

    async def test_at_any_time_while_many_runs_go_on(self, fresh_postgres_url: str) -> None:
        async with store_without_leaks(fresh_postgres_url) as store:
            claims = [await begun(store, f"run-{number}") for number in range(10)]
            progress = _Progress()
            async with _repeated_termination(_dsn(fresh_postgres_url), progress) as ended:
                claims = await _advanced_together(store, claims, progress, steps=15)
            assert sum(ended) > 0
            for claim in claims:
                await assert_whole(store, claim)
        assert await _has_no_open_transactions(fresh_postgres_url)


class TestLostAnswers:
    """The server executes the request; the proxy closes the connection instead of forwarding the reply."""

    @pytest.mark.parametrize("after", [0, 1])
    async def test_of_commits(self, fresh_postgres_url: str, after: int) -> None:
        async with reply_dropper(fresh_postgres_url) as (dropper, url), store_without_leaks(url) as store:
            claim = await begun(store)
            for number in range(1, 11):
                dropper.drop_next(after=after)
                claim = await advanced(store, claim)
                if after == 0:
                    assert dropper.dropped == number
            await assert_whole(store, claim)
        assert await _has_no_open_transactions(fresh_postgres_url)

    async def test_of_a_commit_that_was_written_is_no_refusal(self, fresh_postgres_url: str) -> None:
        async with reply_dropper(fresh_postgres_url) as (dropper, url), store_without_leaks(url) as store:
            claim = await begun(store)
            dropper.drop_next()
            claim = await advanced(store, claim)
            assert dropper.dropped == 1
            run = await loaded(store)
            assert run.next_seq == claim.next_seq == 6

    async def test_of_a_commit_that_is_refused(self, fresh_postgres_url: str) -> None:
        async with reply_dropper(fresh_postgres_url) as (dropper, url), store_without_leaks(url) as store:
            old = await begun(store)
            await taken_over(store)
            dropper.drop_next()
            assert await store.commit([change(old, [visit("late", old.next_seq)])]) == [CommitOutcome.FENCED]
            assert dropper.dropped == 1
            assert [row.path for row in await store.visits("run-1")] == ["step-2"]

    async def test_of_one_commit_of_many_runs(self, fresh_postgres_url: str) -> None:
        async with reply_dropper(fresh_postgres_url) as (dropper, url), store_without_leaks(url) as store:
            claims = [await begun(store, f"run-{number}") for number in range(4)]
            await taken_over(store, "run-2")
            changes = [change(claim, [visit("more", claim.next_seq)]) for claim in claims]
            await store.commit([change(await begun(store, name), [visit("x", 4)]) for name in ("a", "b")])
            dropper.drop_next()
            outcomes = await store.commit(changes)
            assert dropper.dropped == 1
            assert [str(outcome) for outcome in outcomes] == ["committed", "committed", "fenced", "committed"]
            assert [len(await store.visits(claim.run_id)) for claim in claims] == [2, 2, 1, 2]

    @pytest.mark.parametrize("after", [0, 1, 2])
    async def test_of_creations(self, fresh_postgres_url: str, after: int) -> None:
        async with reply_dropper(fresh_postgres_url) as (dropper, url), store_without_leaks(url) as store:
            await created(store, new_run("taken"))
            for number in range(5):
                dropper.drop_next(after=after)
                made = await store.create([new_run(f"a{number}"), new_run("taken"), new_run(f"a{number}")])
                assert [each and (each.run_id, each.epoch) for each in made] == [(f"a{number}", 1), None, None]
                assert len(await store.events(f"a{number}", 0, 10)) == 1
            assert dropper.dropped > 0

    @pytest.mark.parametrize("after", [0, 1, 2])
    async def test_of_claims(self, fresh_postgres_url: str, after: int) -> None:
        async with reply_dropper(fresh_postgres_url) as (dropper, url), store_without_leaks(url) as store:
            await begun(store)
            await taken_over(store, event=_RESUMED)
            for number in range(5):
                epoch = 2 + number
                dropper.drop_next(after=after)
                claim = await store.claim("run-1", f"worker-{number}", _RESUMED, ttl=60, over_epoch=epoch)
                assert isinstance(claim, Claim)
                assert claim.epoch == epoch + 1
                await assert_whole(store, claim, extra_events=2 + number)
            assert dropper.dropped > 0
            assert (await loaded(store)).claims_since_progress == 6

    async def test_of_renewals_and_stops(self, fresh_postgres_url: str) -> None:
        async with reply_dropper(fresh_postgres_url) as (dropper, url), store_without_leaks(url) as store:
            claim = await begun(store)
            for _ in range(3):
                dropper.drop_next()
                assert await store.request_stop("run-1", "user") is True
                dropper.drop_next()
                assert await store.renew([claim], 60) == [Renewal(is_held=True, stop_reason="user")]
            assert dropper.dropped == 6


@pytest.mark.slow
@pytest.mark.kills_servers
class TestRestartedServers:
    async def test_runs_go_on_after_an_immediate_restart(self, postgres_to_kill: PostgresServer) -> None:
        url = postgres.async_url(postgres_to_kill.create_database())
        async with store_without_leaks(url) as store:
            claims = [await begun(store, f"run-{number}") for number in range(5)]
            for _ in range(2):
                before = claims[0].next_seq
                claims = await _advanced_while(store, claims, partial(_restart, postgres_to_kill))
                assert claims[0].next_seq > before
            for claim in claims:
                await assert_whole(store, claim)

    async def test_a_server_that_stays_away_is_said_to_be_unavailable(
        self, postgres_to_kill: PostgresServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retry, "DELAYS", (0.01, 0.02))
        async with store_without_leaks(postgres.async_url(postgres_to_kill.create_database())) as store:
            claim = await begun(store)
            await anyio.to_thread.run_sync(_shut_down, postgres_to_kill)
            with pytest.raises(StoreUnavailableError):
                await advanced(store, claim)
            await anyio.to_thread.run_sync(_start, postgres_to_kill)
            await assert_whole(store, await advanced(store, claim))


def _shut_down(server: PostgresServer) -> None:
    """Shut the server down in immediate mode, which ends connections without a message."""
    assert server.process is not None
    os.kill(
        server.process.pid, signal.SIGQUIT
    )  # after SIGKILL its orphaned processes would prevent a new server from starting
    give_up_at = time.monotonic() + 20
    while _is_alive(server.process.pid) and time.monotonic() < give_up_at:
        time.sleep(0.01)
    server.process.kill()


def _start(server: PostgresServer) -> None:
    assert server.process is not None
    server.process.start()


def _restart(server: PostgresServer) -> None:
    _shut_down(server)
    _start(server)


async def _terminate_blocked(other: psycopg.AsyncConnection[tuple[object, ...]]) -> int:
    """End the connections that wait for a lock, as soon as there are any; returns their number."""
    blocked = f"{OTHER_CLIENTS} AND wait_event_type = 'Lock'"
    with anyio.fail_after(20):
        while True:
            await other.execute("SELECT pg_stat_clear_snapshot()")
            ended = await (await other.execute(f"SELECT pg_terminate_backend(pid) {blocked}")).fetchall()
            if ended:
                return len(ended)
            await anyio.sleep(0.01)


async def _advanced_once_unlocked(store: RunStore, claim: Claim) -> Claim:
    """Commit one further step, again and again while the run's row is locked, as a runner does."""
    number = claim.next_seq
    made = change(claim, [visit(f"step-{number}", number)], [event("noted", number + 1)])
    while (outcomes := await store.commit([made])) == [CommitOutcome.LOCKED]:  # noqa: ASYNC110 - the row is polled
        await anyio.sleep(0.01)
    assert outcomes == [CommitOutcome.COMMITTED]
    return moved(claim, made)


class _Progress:
    """Commits that succeed while somebody waits for the next one."""

    def __init__(self) -> None:
        self._grown = anyio.Event()

    def add(self) -> None:
        self._grown.set()
        self._grown = anyio.Event()

    async def grows(self) -> None:
        await self._grown.wait()


@contextlib.asynccontextmanager
async def _repeated_termination(dsn: str, progress: _Progress) -> AsyncIterator[list[int]]:
    """End other connections every few milliseconds; yields how many each time.

    Only after a commit, so that a machine on which a new connection takes longer than the pause does not wait for ever.
    """
    ended: list[int] = []

    async def go_on() -> None:
        while True:
            ended.append(await anyio.to_thread.run_sync(_terminate_others, dsn))
            await progress.grows()
            await anyio.sleep(0.03)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(go_on)
        yield ended
        tasks.cancel_scope.cancel()


async def _advanced_while(store: RunStore, claims: list[Claim], work: Callable[[], None]) -> list[Claim]:
    """Commit further steps to every run until the work, in a thread, has ended."""
    is_done = anyio.Event()
    done: dict[str, Claim] = {}

    async def go_on(claim: Claim) -> None:
        while not is_done.is_set():
            claim = await advanced(store, claim)
        done[claim.run_id] = await advanced(store, claim)

    async with anyio.create_task_group() as tasks:
        for claim in claims:
            tasks.start_soon(go_on, claim)
        await anyio.sleep(0.05)
        await anyio.to_thread.run_sync(work)
        is_done.set()
    return [done[claim.run_id] for claim in claims]


async def _advanced_together(store: RunStore, claims: list[Claim], progress: _Progress, *, steps: int) -> list[Claim]:
    """Commit this number of further steps to every run, concurrently."""
    done: dict[str, Claim] = {}

    async def go_on(claim: Claim) -> None:
        for _ in range(steps):
            claim = await advanced(store, claim)
            progress.add()
        done[claim.run_id] = claim

    async with anyio.create_task_group() as tasks:
        for claim in claims:
            tasks.start_soon(go_on, claim)
    return [done[claim.run_id] for claim in claims]
