"""Runners for the black-box tests: in memory where durability does not matter, on a database where it does."""

import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, closing
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from spine_async import WorkflowRunner, WorkflowRunnerConfig
from spine_async.storage import MemoryRunStore


@pytest.fixture
def make_runner() -> Callable[..., WorkflowRunner]:
    """Runners that share one memory store, as processes share a database."""
    store = MemoryRunStore()

    def make(*, cls: type[WorkflowRunner] = WorkflowRunner, **settings: Any) -> WorkflowRunner:
        return cls(store=store, **settings)

    return make


@pytest.fixture
def runner(make_runner: Callable[..., WorkflowRunner]) -> WorkflowRunner:
    return make_runner()


@pytest.fixture
async def open_runner(database_url: str) -> AsyncIterator[Callable[..., Awaitable[WorkflowRunner]]]:
    """Runners on the test's database; `config` takes further fields of WorkflowRunnerConfig."""
    async with AsyncExitStack() as stack:

        async def open_one(*, config: dict[str, Any] | None = None, **settings: Any) -> WorkflowRunner:
            chosen = WorkflowRunnerConfig(database_url=database_url, **(config or {}))
            return await stack.enter_async_context(WorkflowRunner(config=chosen, **settings))

        yield open_one


@pytest.fixture
def sql(database_url: str) -> Callable[..., list[dict[str, Any]]]:
    """Plain SQL on the test's database, past the library: a list of rows as dicts."""
    url = make_url(database_url)

    def run(statement: str, *values: Any) -> list[dict[str, Any]]:
        if url.get_backend_name() == "sqlite":
            with closing(sqlite3.connect(str(url.database))) as connection:
                cursor = connection.execute(statement, values)
                names = [column[0] for column in cursor.description]
                return [dict(zip(names, row, strict=True)) for row in cursor]
        plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(plain) as connection:
            cursor = connection.execute(statement.replace("?", "%s"), values)  # type: ignore[arg-type]
            names = [column.name for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    return run


@pytest.fixture
def stored_events(sql: Callable[..., list[dict[str, Any]]]) -> Callable[[str], list[dict[str, Any]]]:
    """The events of a run in the order of their numbers, with `number` added and `metadata` decoded."""

    def read(run_id: str) -> list[dict[str, Any]]:
        rows = sql("SELECT * FROM core_workflow_events WHERE run_id = ?", run_id)
        if not rows:
            return []
        wanted = {str(number) for number in range(1, len(rows) + 1)}
        numbered = [name for name in rows[0] if {str(row[name]) for row in rows} == wanted]
        assert numbered, f"no column numbers the events 1..{len(rows)} without gaps"
        for row in rows:
            row["number"] = int(row[numbered[0]])
            if isinstance(row["metadata"], str):
                row["metadata"] = json.loads(row["metadata"])
        return sorted(rows, key=lambda row: row["number"])

    return read
