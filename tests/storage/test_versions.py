"""Databases of earlier schema versions, with runs that were interrupted then."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from spine_async import RunStatus, Step, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig
from spine_async.errors import SchemaVersionError
from spine_async.storage.sql.schema.tables import VERSION
from tests.storage.plain_sql import execute, file_of

OLD = range(1, VERSION)
TABLES = ("core_workflow_runs", "core_workflow_steps", "core_workflow_event_log")


@pytest.fixture(params=OLD)
def old_database(request: pytest.FixtureRequest, database_url: str) -> str:
    """A database that the given version of the library wrote."""
    dialect = "sqlite" if database_url.startswith("sqlite") else "postgres"
    script = (Path(__file__).parent / f"version_{request.param}" / f"{dialect}.sql").read_text()
    if dialect == "sqlite":
        with closing(sqlite3.connect(file_of(database_url))) as connection:
            connection.executescript(script)
    else:
        with psycopg.connect(database_url.replace("+asyncpg", ""), autocommit=True) as connection:
            connection.execute(script.encode())
    return database_url


def counts(url: str) -> list[int]:
    """Rows of each table."""
    return [execute(url, f"SELECT count(*) FROM {table}")[0][0] for table in TABLES]


@pytest.mark.anyio
async def test_a_run_that_died_under_an_earlier_schema_is_resumed(old_database: str) -> None:
    entered: list[object] = []

    async def load(context: WorkflowContext, config: object) -> dict[str, int]:
        entered.append("load")
        return {"rows": 3}

    async def double(context: WorkflowContext, config: object) -> dict[str, object]:
        entered.append(context.get_param("item"))
        return {"doubled": 2 * int(str(context.get_param("item")))}

    async def report(context: WorkflowContext, config: object) -> dict[str, object]:
        entered.append("report")
        return {"rows": context.get_output("load", "rows"), "each": context.get_output("each")}

    one = Workflow("one", [Step.lambda_("double", double)])
    each = Step.map("each", items=[0, 1, 2, 3], iterator=one, max_concurrency=1)
    workflow = Workflow("from_version_1", [Step.lambda_("load", load), each, Step.lambda_("report", report)])
    async with WorkflowRunner(config=WorkflowRunnerConfig(database_url=old_database)) as runner:
        result = await runner.resume("interrupted", workflow=workflow)
        assert result.status is RunStatus.COMPLETED
        assert entered == [2, 3, "report"]
        output = result.context.get_output("report")
        assert output["rows"] == 3
        assert [item["doubled"] for item in output["each"]["results"]] == [0, 2, 4, 6]
        assert result.context.params == {"symbol": "IBM", "quote": 'it\'s "so"'}
        events = [event.seq async for event in runner.events("interrupted")]
        assert events == list(range(1, len(events) + 1))

        await runner.execute(workflow, run_id="new")
        assert [run.run_id for run in await runner.list_runs()] == ["new", "interrupted"]
        await runner.delete_run("interrupted")
        await runner.delete_run("new")
    assert counts(old_database) == [0, 0, 0]


@pytest.mark.anyio
async def test_an_earlier_schema_is_left_alone_where_it_may_not_be_changed(old_database: str) -> None:
    before = counts(old_database)
    config = WorkflowRunnerConfig(database_url=old_database, auto_migrate=False)

    async def nothing(context: WorkflowContext, config: object) -> None:
        raise AssertionError("never entered")

    async with WorkflowRunner(config=config) as runner:
        with pytest.raises(SchemaVersionError, match="upgrade_schema"):
            await runner.execute(Workflow("w", [Step.lambda_("nothing", nothing)]))
    assert counts(old_database) == before
