"""PgBouncer between the library and PostgreSQL: a plain URL works in both pool modes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from spine_async import RunStatus, Step, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig
from spine_async._model.run_claim import Renewal
from spine_async.storage import SqlRunStore
from spine_async.storage.sql.driver.time_limit import TimeLimit
from spine_async.testing.conformance.rows import created, loaded, new_run
from tests.conftest import Databases
from tests.servers import pgbouncer
from tests.storage.history import advanced, assert_whole, begun, store_without_leaks

MODES = ["transaction", "session"]
if pgbouncer.program() is None:
    pytest.skip("pgbouncer is not installed (Debian: apt-get install pgbouncer)", allow_module_level=True)


@pytest.fixture(scope="module", params=MODES)
def pooler(request: pytest.FixtureRequest, _module_databases: Databases) -> Iterator[pgbouncer.PgBouncer]:
    if request.config.getoption("--no-services"):
        pytest.skip("--no-services")
    started = pgbouncer.launch(_module_databases.server(is_durable=False).dsn, request.param)
    yield started
    started.stop()


@pytest.fixture
def url(pooler: pgbouncer.PgBouncer, fresh_postgres_url: str) -> str:
    return pooler.url_of(fresh_postgres_url.replace("+asyncpg", ""))


@pytest.fixture
async def stores(url: str) -> AsyncIterator[list[SqlRunStore]]:
    """More stores than PgBouncer has connections, each with its own connections."""
    made = [SqlRunStore(url) for _ in range(6)]
    yield made
    for each in made:
        await each.close()


async def step(context: WorkflowContext, config: object) -> dict[str, Any]:
    await anyio.sleep(0.001)
    return {"n": context.get_param("n")}


async def test_a_plain_url_executes_many_runs_at_once(url: str) -> None:
    workflow = Workflow("w", [Step.lambda_(f"s{number}", step) for number in range(4)])
    runners = [WorkflowRunner(config=WorkflowRunnerConfig(database_url=url)) for _ in range(6)]
    found: list[RunStatus] = []

    async def execute(runner: WorkflowRunner, number: int) -> None:
        found.append((await runner.execute(workflow, params={"n": number}, run_id=f"r{number}")).status)

    async with anyio.create_task_group() as tasks:
        for number in range(60):
            tasks.start_soon(execute, runners[number % len(runners)], number)
    assert found == [RunStatus.COMPLETED] * 60
    async with runners[0] as runner:
        assert len(await runner.list_runs()) == 60
        assert [each.step_name for each in await runner.list_checkpoints("r7")] == ["s0", "s1", "s2", "s3"]


async def test_stores_that_alternate_on_the_server_s_connections(stores: list[SqlRunStore]) -> None:
    claims = [await begun(store, f"run-{number}") for number, store in enumerate(stores)]
    for _ in range(10):
        for number, store in enumerate(stores):
            claims[number] = await advanced(store, claims[number])
    for number, store in enumerate(stores):
        await assert_whole(store, claims[number])


async def test_renewals_have_a_connection_of_their_own(url: str) -> None:
    async with store_without_leaks(url.replace("postgresql:", "postgresql+asyncpg:")) as store:
        claims = [await begun(store, f"run-{number}") for number in range(3)]
        for _ in range(10):
            assert await store.renew(claims, 60) == [Renewal(is_held=True)] * 3
            claims = [await advanced(store, claim) for claim in claims]
        assert await store.renew(claims, 0) == [Renewal(is_held=True)] * 3
        assert (await loaded(store, "run-0")).owner is None
        for claim in claims:
            await assert_whole(store, claim)


@pytest.mark.parametrize("options", ["?statement_cache_size=0", "?pgbouncer=true", "?prepared_statement_cache_size=0"])
async def test_options_for_poolers_are_accepted(url: str, options: str) -> None:
    store = SqlRunStore(url + options)
    await assert_whole(store, await begun(store))
    await store.close()


async def test_an_engine_without_named_statements_works(url: str) -> None:
    arguments = {"statement_cache_size": 0, "prepared_statement_cache_size": 0, "prepared_statement_name_func": str}
    engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"), connect_args=arguments)
    stores = [SqlRunStore(engine) for _ in range(2)]
    claims = [await begun(store, f"run-{number}") for number, store in enumerate(stores)]
    for _ in range(5):
        claims = [await advanced(store, claim) for store, claim in zip(stores, claims, strict=True)]
    for store, claim in zip(stores, claims, strict=True):
        await assert_whole(store, claim)
        await store.close()
    await engine.dispose()


async def test_without_a_pooler_statements_keep_their_names(postgres_url: str) -> None:
    store = SqlRunStore(postgres_url)
    await created(store, new_run("direct"))
    database = await store._database.for_writing()
    (count,) = await database._writer.write(  # type: ignore[attr-defined]
        lambda driver: driver.fetchrow("SELECT count(*) FROM pg_prepared_statements WHERE name LIKE '__asyncpg%'"),
        TimeLimit("the test's database", 10).call("read"),
    )
    assert count > 1
    await store.close()
