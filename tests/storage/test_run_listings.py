"""Listings, counts and views among many stored runs: what the databases read does not grow with the number of runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial

import anyio.to_thread
import pytest
from sqlalchemy import make_url

from benchmarks import stock
from spine_async._model.run_filter import RunCursor, RunFilter
from spine_async._model.status import RunStatus
from spine_async.storage import SqlRunStore
from spine_async.storage.sql.driver.compiled import CompiledQueries
from spine_async.storage.sql.schema.queries import BACKLOG, ITEM_STATES, OPEN_WAITS, VISIT_OUTLINES, Query
from spine_async.storage.sql.schema.run_queries import BoundQuery, count_runs, list_runs
from spine_async.testing.conformance.rows import new_run
from tests.storage.plain_sql import file_of
from tests.storage.test_due_runs_in_postgres import explained, indexes, nodes, read_rows
from tests.storage.test_queue_costs import Counted

pytestmark = pytest.mark.anyio

FILTERS: Mapping[str, RunFilter] = {
    "all": RunFilter(),
    "under way": RunFilter(is_under_way=True),
    **{status.value: RunFilter(status=status) for status in RunStatus},
    "workflow": RunFilter("flow-3"),
    "rare workflow": RunFilter("rare"),
    "no workflow": RunFilter("nothing"),
    "workflow and rare status": RunFilter("flow-0", RunStatus.FAILED),
    "children": RunFilter(parent_run_id="nobody"),
    "children of a workflow": RunFilter("flow-3", parent_run_id="nobody"),
    "owner": RunFilter(owner="nobody"),
    "owner of a workflow": RunFilter("flow-3", RunStatus.RUNNING, owner="nobody"),
    "prefix": RunFilter(run_id_prefix=stock.run_id(100)[:-1]),
    "prefix and frequent status": RunFilter(status=RunStatus.COMPLETED, run_id_prefix=stock.run_id(100)[:-1]),
    "rare workflow and frequent status": RunFilter("rare", RunStatus.COMPLETED),
}
MOST_ROWS = 1_000  # of a page of 100, or of a count up to 100, among 20,000 runs
MOST_INSTRUCTIONS = 40_000


@pytest.mark.parametrize("runs", [20_000, pytest.param(200_000, marks=pytest.mark.long)])
async def test_postgres_reads_an_index(fresh_postgres_url: str, runs: int) -> None:
    """Also by a plan that a connection has made without the arguments."""
    store = SqlRunStore.from_url(fresh_postgres_url)
    middle = await fill(store, "postgres", fresh_postgres_url.replace("+asyncpg", ""), runs)
    compiled = CompiledQueries(make_url(fresh_postgres_url).get_dialect()())
    for name, chosen in variants(middle).items():
        for query in (list_runs(chosen, "postgresql"), count_runs(chosen, "postgresql")):
            for is_generic in (False, True):
                plan = explained(fresh_postgres_url, *bound(compiled, query), is_generic=is_generic)
                assert read_rows(plan) <= MOST_ROWS, (name, is_generic, plan)
                assert indexes(plan), (name, is_generic)
                assert "Seq Scan" not in {each["Node Type"] for each in nodes(plan)}, (name, is_generic)
    for view in ("core_workflow_events", "core_workflow_checkpoints"):
        plan = explained(fresh_postgres_url, f"SELECT * FROM {view} WHERE run_id = $1", [stock.run_id(runs // 2)])
        assert read_rows(plan) < MOST_ROWS, (view, plan)
        assert "Seq Scan" not in {each["Node Type"] for each in nodes(plan)}, view
    for overview, values in overviews("postgresql", runs):
        plan = explained(fresh_postgres_url, *compiled.bind(overview, values))
        assert read_rows(plan) <= MOST_ROWS * 5, plan
        scanned = {each.get("Relation Name") for each in nodes(plan) if each["Node Type"] == "Seq Scan"}
        assert scanned <= {"core_workflow_queues"}, plan
    await check_pages(store, runs)
    await store.close()


@pytest.mark.parametrize("runs", [20_000, pytest.param(200_000, marks=pytest.mark.long)])
async def test_sqlite_reads_an_index(sqlite_url: str, runs: int) -> None:
    store = SqlRunStore.from_url(sqlite_url)
    middle = await fill(store, "sqlite", str(file_of(sqlite_url)), runs)
    compiled = CompiledQueries(make_url(sqlite_url).get_dialect()())
    await anyio.to_thread.run_sync(partial(check_sqlite, sqlite_url, compiled, middle, runs))
    await check_pages(store, runs)
    await store.close()


def check_sqlite(url: str, compiled: CompiledQueries, middle: RunCursor, runs: int) -> None:
    with closing(sqlite3.connect(file_of(url), isolation_level=None)) as connection:
        for name, chosen in variants(middle).items():
            for query in (list_runs(chosen, "sqlite"), count_runs(chosen, "sqlite")):
                counted = Counted(connection)
                connection.execute(*bound(compiled, query)).fetchall()
                assert counted.count <= MOST_INSTRUCTIONS, (name, query.text.text)
        for overview, values in overviews("sqlite", runs):
            counted = Counted(connection)
            connection.execute(*compiled.bind(overview, {**values, "boot": "", "seconds": 0.0})).fetchall()
            assert counted.count <= MOST_INSTRUCTIONS, str(overview)
        for view in ("core_workflow_events", "core_workflow_checkpoints"):
            counted = Counted(connection)
            found = connection.execute(f"SELECT * FROM {view} WHERE run_id = ?", (stock.run_id(runs // 2),)).fetchall()
            assert len(found) >= stock.STEPS
            assert counted.count <= MOST_INSTRUCTIONS, view


def overviews(dialect: str, runs: int) -> Iterator[tuple[Query, Mapping[str, object]]]:
    """The queries of pages about all runs, and about one in the middle."""
    run_id = stock.run_id(runs // 2)
    yield BACKLOG[dialect], {"most": 500}
    yield OPEN_WAITS[dialect], {"ids": f'["{run_id}", "unknown"]'}
    yield VISIT_OUTLINES, {"run_id": run_id, "after": 0, "most": 100}
    yield ITEM_STATES, {"run_id": run_id, "path": "each", "from_path": "each[", "to_path": "each\\"}


async def fill(store: SqlRunStore, backend: str, name: str, runs: int) -> RunCursor:
    """Store the runs; returns the cursor of the one in the middle."""
    await store.create([new_run("first")])
    await store.delete(["first"])
    await anyio.to_thread.run_sync(stock.fill, backend, name, runs)
    run = await store.load(stock.run_id(runs // 2))
    assert run is not None
    return RunCursor(run.created_at, run.key)


def variants(middle: RunCursor) -> dict[str, RunFilter]:
    """The filters in both orders, from the start and from the middle."""
    return {
        f"{name}, oldest first: {is_oldest_first}, from the middle: {cursor is not None}": replace(
            chosen, is_oldest_first=is_oldest_first, cursor=cursor, with_documents=False
        )
        for name, chosen in FILTERS.items()
        for is_oldest_first in (False, True)
        for cursor in (None, middle)
    }


def bound(compiled: CompiledQueries, query: BoundQuery) -> tuple[str, Sequence[object]]:
    return compiled.bind(query.text, {**query.values, "boot": "", "seconds": 0.0})


async def check_pages(store: SqlRunStore, runs: int) -> None:
    """The pages are those that a scan of all runs would give."""
    newest = [stock.run_id(number) for number in range(runs, runs - 5, -1)]
    assert [run.run_id for run in await store.runs(RunFilter(limit=5))] == newest
    failed = [stock.run_id(number) for number in range(50, 251, 50)]
    chosen = RunFilter(status=RunStatus.FAILED, is_oldest_first=True, limit=5)
    assert [run.run_id for run in await store.runs(chosen)] == failed
    counts = await store.count_runs(RunFilter("rare"))
    assert sum(counts.values()) == stock.RARE
    assert (await store.count_runs(RunFilter("flow-3", limit=7)))[RunStatus.COMPLETED] == 7
    entry = RunFilter(partition={"symbol": '"S77"'}, run_id_prefix=stock.run_id(1)[:-3], limit=5)
    assert [run.run_id for run in await store.runs(entry)] == [stock.run_id(77)]
