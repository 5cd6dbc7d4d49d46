"""Pages over many runs and over a map of ten thousand items: few queries, and answers of limited size."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing

import anyio.to_thread
import httpx
import psycopg
import pytest

from benchmarks import stock
from spine_async import WorkflowRunner, WorkflowRunnerConfig
from spine_async.storage import SqlRunStore
from spine_async.storage.sql.postgres.database import PostgresDatabase
from spine_async.storage.sql.sqlite.database import SqliteDatabase
from spine_async.testing.conformance.rows import new_run
from tests.dashboard.board import Board, Elements
from tests.dashboard.flows import MAPPED
from tests.plain_http import NO_CERTIFICATES
from tests.storage.plain_sql import execute, file_of

pytestmark = pytest.mark.anyio

RUNS = 20_000
ITEMS = 10_000
FAILED_EVERY = 1_000
SECONDS = 20.0
"""An idle machine answers within a tenth of a second. The limit is for a loaded one."""

MOST_BYTES = 150_000
QUERIES = {
    "/": 6,
    "/runs": 1,
    "/runs?status=failed": 1,
    "/runs?workflow=rare&order=oldest": 1,
    f"/run?id={stock.run_id(1)}": 8,
    f"/run/events?id={stock.run_id(1)}": 5,
    f"/run/context?id={stock.run_id(1)}": 9,
    "/queues": 1,
    "/signals": 2,
    "/workers": 1,
    "/run?id=big": 10,
    "/run/map?id=big&path=each": 5,
    "/run/map?id=big&path=each&from=8000": 5,
    "/run/map?id=big&path=each&item=9999": 8,
}


@pytest.fixture(params=["sqlite", "postgres"])
def stocked_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "fresh_postgres_url"))


@pytest.fixture
async def crowded(stocked_url: str) -> AsyncIterator[Board]:
    """The dashboard of a database with many runs, one of them with a large map."""
    store = SqlRunStore.from_url(stocked_url)
    await store.create([new_run("big", workflow="mapped")])
    await anyio.to_thread.run_sync(fill, stocked_url)
    config = WorkflowRunnerConfig(database_url=stocked_url, trace_enabled=False)
    async with (
        WorkflowRunner(config=config, work=False, workflows=[MAPPED]) as runner,
        httpx.AsyncClient(verify=NO_CERTIFICATES) as client,
    ):
        yield Board(runner, client)
    await store.close()


def fill(url: str) -> None:
    is_sqlite = url.startswith("sqlite")
    name = str(file_of(url)) if is_sqlite else url.replace("+asyncpg", "")
    stock.fill("sqlite" if is_sqlite else "postgres", name, RUNS)
    numbers = f"WITH RECURSIVE numbers(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM numbers WHERE i < {ITEMS - 1})"
    run = "(SELECT id FROM core_workflow_runs WHERE run_id = 'big')"
    at = "(SELECT created_at FROM core_workflow_runs WHERE run_id = 'big')"
    columns = {
        "run": run,
        **dict.fromkeys(("started_at", "completed_at"), at),
        "duration_ms": "i % 50 + 0.5",
        "seq": "3 * i + 5",
        "started_seq": "3 * i + 4",
        "item_seq": "3 * i + 6",
        "item_index": "i",
        **dict.fromkeys(("epoch", "attempts"), "1"),
        "output_size": "8",
        **dict.fromkeys(("ends_item", "records_events"), "(1 = 1)"),
        "path": "'each[' || CAST(i AS TEXT) || ']/item'",
        "scope": "'each[' || CAST(i AS TEXT) || ']'",
        "step_name": "'item'",
        "step_type": "'lambda'",
        "status": "'completed'",
        "commit_id": "'0123456789ab'",
        "output": "'{\"i\":1}'",
    }
    names = ", ".join(columns)
    chosen = f"FROM numbers WHERE i % {FAILED_EVERY} <> 7"
    run_sql(url, f"INSERT INTO core_workflow_steps ({names}) {numbers} SELECT {', '.join(columns.values())} {chosen}")
    metadata = '\'{"index":\' || CAST(i AS TEXT) || \',"error":"no price","category":"DATA_QUALITY"}\''
    run_sql(
        url,
        'INSERT INTO core_workflow_event_log (run, seq, "timestamp", event_type, step_name, path, metadata) '
        f"{numbers} SELECT {run}, 3 * i + 6, {at}, 'map_item_failed', 'each', 'each[' || CAST(i AS TEXT) || ']', "
        f"{metadata} FROM numbers WHERE i % {FAILED_EVERY} = 7",
    )
    run_sql(url, f"UPDATE core_workflow_runs SET next_seq = {3 * ITEMS + 4} WHERE run_id = 'big'")
    if not is_sqlite:
        execute(url, "ANALYZE")


def run_sql(url: str, statement: str) -> None:
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(file_of(url), isolation_level=None)) as connection:
            connection.execute(statement)
        return
    with psycopg.connect(url.replace("+asyncpg", ""), autocommit=True) as driver:
        driver.execute(statement.encode())


@pytest.fixture
def queries(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The queries since the fixture was requested."""
    seen: list[str] = []
    for database in (SqliteDatabase, PostgresDatabase):
        original = database.read

        async def counting(self: object, query: object, values: object, original: object = original) -> object:
            seen.append(str(query))
            return await original(self, query, values)  # type: ignore[operator]

        monkeypatch.setattr(database, "read", counting)
    return seen


async def test_pages_are_small_and_need_few_queries(crowded: Board, queries: list[str]) -> None:
    await crowded.page("/")  # opens the database
    for path, most in QUERIES.items():
        queries.clear()
        began = time.monotonic()
        text = await crowded.page(path)
        assert time.monotonic() - began < SECONDS, path
        assert len(queries) <= most, (path, len(queries), queries)
        assert len(text) < MOST_BYTES, (path, len(text))
    overview = Elements(await crowded.page("/"))
    assert "10,000+ completed" in overview.text


async def test_a_map_of_ten_thousand_items_stays_readable(crowded: Board) -> None:
    failed = ITEMS // FAILED_EVERY
    run = Elements(await crowded.page("/run", id="big"))
    assert "The run has 30,003 events" in run.text
    assert next(each["class"] for each in run.named("g")) == "frame kind-map state-running"
    page = Elements(await crowded.page("/run/map", id="big", path="each"))
    assert f"{ITEMS - failed:,} completed" in page.text
    assert f"{failed} failed" in page.text
    assert "Items 0 to 1,999" in page.text
    assert len(page.named("rect")) == 2
    assert {each["class"] for each in page.named("path")} == {f"cell-heat-{number}" for number in range(1, 6)}
    last = Elements(await crowded.page("/run/map", id="big", path="each", item="9999"))
    assert "Items 8,000 to 9,999" in last.text
    assert "each[9999]/item" in last.text
