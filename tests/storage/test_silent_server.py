"""PostgreSQL behind a network that stops forwarding without closing: every call ends, and names store and duration."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
import pytest
from sqlalchemy.engine import URL

from spine_async import Step, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig
from spine_async._model.run_filter import RunFilter
from spine_async.errors import LeaseLostError, StoreUnavailableError
from spine_async.ports import CommitOutcome, RunStore
from spine_async.storage.sql.postgres import connections
from spine_async.storage.sql.store import SqlRunStore
from spine_async.testing.conformance.rows import change, created, loaded, new_run, visit
from tests.storage.silent_proxy import SilentProxy, silent_proxy

TIMEOUT = 1.0


@pytest.fixture
async def proxied(fresh_postgres_url: str) -> AsyncIterator[tuple[SilentProxy, URL]]:
    async with silent_proxy(fresh_postgres_url) as pair:
        yield pair


@pytest.fixture
async def store(proxied: tuple[SilentProxy, URL]) -> AsyncIterator[SqlRunStore]:
    opened = SqlRunStore(proxied[1], timeout=TIMEOUT)
    yield opened
    await opened.close()


CALLS: dict[str, Callable[[RunStore], Awaitable[object]]] = {
    "create": lambda store: store.create([new_run("other")]),
    "load": lambda store: store.load("run-1"),
    "runs": lambda store: store.runs(RunFilter(limit=10)),
    "visits": lambda store: store.visits("run-1"),
    "claim": lambda store: store.claim("run-1", "worker-2", None, ttl=60, over_epoch=1),
    "request_stop": lambda store: store.request_stop("run-1", "user"),
    "events": lambda store: store.events("run-1", 0, 10),
    "delete": lambda store: store.delete(["run-1"]),
}


class TestCalls:
    @pytest.mark.sample(every=3)
    @pytest.mark.parametrize("name", CALLS)
    async def test_each_call_ends_with_the_store_and_the_duration(
        self, name: str, store: SqlRunStore, proxied: tuple[SilentProxy, URL]
    ) -> None:
        proxy, url = proxied
        await created(store)
        proxy.fall_silent()
        began = time.monotonic()
        with pytest.raises(StoreUnavailableError) as raised:
            await CALLS[name](store)
        assert time.monotonic() - began < 5 * TIMEOUT
        assert f"PostgreSQL database {url.database} at 127.0.0.1:{url.port}: no answer within" in str(raised.value)

    async def test_opening_ends(self, proxied: tuple[SilentProxy, URL]) -> None:
        proxy, url = proxied
        proxy.fall_silent()
        opening = SqlRunStore(url, timeout=TIMEOUT)
        began = time.monotonic()
        results = await asyncio.gather(*(opening.load("r") for _ in range(20)), return_exceptions=True)
        assert {type(result) for result in results} == {StoreUnavailableError}
        assert time.monotonic() - began < 5 * TIMEOUT

    @pytest.mark.sample(every=3)
    @pytest.mark.parametrize("statement", [b"CREATE TABLE", b"CREATE INDEX", b"COMMIT"])
    async def test_the_creation_of_the_tables_ends(
        self, proxied: tuple[SilentProxy, URL], monkeypatch: pytest.MonkeyPatch, statement: bytes
    ) -> None:
        """Only the migration of tables that exist may take an hour."""
        monkeypatch.setattr(connections, "CREATION_SECONDS", TIMEOUT)
        proxy, url = proxied
        proxy.silent_at = statement
        opening = SqlRunStore(url, timeout=TIMEOUT)
        with anyio.fail_after(30), pytest.raises(StoreUnavailableError, match=r"no answer within|connect"):
            await opening.load("r")
        await opening.close()

    async def test_many_calls_do_not_add_up(self, store: SqlRunStore, proxied: tuple[SilentProxy, URL]) -> None:
        await created(store)
        proxied[0].fall_silent()
        began = time.monotonic()
        calls = (store.claim("run-1", f"worker-{number}", None, ttl=60) for number in range(20))
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(result) for result in results} == {StoreUnavailableError}
        assert time.monotonic() - began < 5 * TIMEOUT

    async def test_a_silent_connection_is_replaced(
        self, store: SqlRunStore, proxied: tuple[SilentProxy, URL], caplog: pytest.LogCaptureFixture
    ) -> None:
        proxy, _ = proxied
        claim = await created(store)
        proxy.fall_silent()
        proxy.speak()  # only on new connections
        assert await store.commit([change(claim, [visit("fetch", 2)])]) == [CommitOutcome.COMMITTED]
        assert (await loaded(store)).next_seq == 3

    async def test_closing_ends(self, proxied: tuple[SilentProxy, URL]) -> None:
        proxy, url = proxied
        store = SqlRunStore(url, timeout=TIMEOUT)
        claim = await created(store)
        await store.renew([claim], 60)
        proxy.fall_silent()
        began = time.monotonic()
        await store.close()
        assert time.monotonic() - began < 5 * TIMEOUT

    async def test_closing_leaves_no_connection_open(self, proxied: tuple[SilentProxy, URL]) -> None:
        proxy, url = proxied
        store = SqlRunStore(url, timeout=TIMEOUT)
        claim = await created(store)
        await store.renew([claim], 60)
        await asyncio.gather(*(store.load("run-1") for _ in range(4)))
        listener = await store.listen(lambda: None)
        proxy.fall_silent()
        began = time.monotonic()
        await store.close()
        assert time.monotonic() - began < 5 * TIMEOUT
        del store, listener
        gc.collect()  # a connection that is still open is reported when it is collected

    async def test_a_slow_call_is_reported(
        self, proxied: tuple[SilentProxy, URL], caplog: pytest.LogCaptureFixture
    ) -> None:
        proxy, url = proxied
        caplog.set_level(logging.WARNING, "spine_async")
        store = SqlRunStore(url, timeout=3.0)
        claim = await created(store)
        proxy.fall_silent()
        proxy.speak()
        await store.commit([change(claim, [visit("fetch", 2)])])
        await store.close()
        assert re.search(rf"at 127\.0\.0\.1:{url.port} has not answered for \d+\.\d s \(commit\)", caplog.text)


def _flow(ended: list[object], begin: Callable[[], None]) -> Workflow:
    async def sleep(context: WorkflowContext, config: object) -> None:
        begin()
        try:
            await anyio.sleep(60)
        finally:
            ended.append(context.cancel_reason)

    return Workflow("w", [Step.lambda_("quick", lambda context, config: None), Step.lambda_("sleep", sleep)])


class TestRuns:
    async def test_a_running_step_stops_when_its_lease_ends(self, proxied: tuple[SilentProxy, URL]) -> None:
        proxy, url = proxied
        ended: list[object] = []
        config = WorkflowRunnerConfig(database_url=url.render_as_string(hide_password=False), lease_ttl=1.0)
        began = time.monotonic()
        with pytest.raises(LeaseLostError):
            await WorkflowRunner(config=config).execute(_flow(ended, proxy.fall_silent), run_id="r")
        assert ended == ["lease_lost"]
        assert time.monotonic() - began < 15

    async def test_a_run_whose_commit_gets_no_answer_ends(self, proxied: tuple[SilentProxy, URL]) -> None:
        proxy, url = proxied
        config = WorkflowRunnerConfig(
            database_url=url.render_as_string(hide_password=False), lease_ttl=30, store_timeout=TIMEOUT
        )

        async def silence(context: WorkflowContext, config: object) -> None:
            proxy.fall_silent()

        began = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="no answer within"):
            await WorkflowRunner(config=config).execute(Workflow("w", [Step.lambda_("silence", silence)]), run_id="r")
        assert time.monotonic() - began < 10 * TIMEOUT
