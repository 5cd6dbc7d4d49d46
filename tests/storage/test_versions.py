"""Databases of earlier schema versions, with runs that were interrupted then."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from spine_async import RunStatus, Step, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig
from spine_async._model.due import DueRequest
from spine_async.errors import SchemaVersionError
from spine_async.storage import SqlRunStore, upgrade_schema
from spine_async.storage.sql.schema.tables import VERSION
from tests.storage.plain_sql import execute, file_of

OLD = range(1, VERSION)
TABLES = (
    *("core_workflow_runs", "core_workflow_steps", "core_workflow_event_log", "core_workflow_inbox"),
    *("core_workflow_queues", "core_workflow_first_claims", "core_workflow_schedules"),
)


@pytest.fixture(params=OLD)
def old_database(request: pytest.FixtureRequest, empty_database_url: str) -> str:
    """A database that the given version of the library wrote."""
    return write_old(empty_database_url, request.param)


@pytest.fixture
def version_2(empty_database_url: str) -> str:
    """A database that version 2 of the library wrote."""
    return write_old(empty_database_url, 2)


def write_old(empty_database_url: str, version: int) -> str:
    """Fill an empty database with what that version left."""
    dialect = "sqlite" if empty_database_url.startswith("sqlite") else "postgres"
    script = (Path(__file__).parent / f"version_{version}" / f"{dialect}.sql").read_text()
    if dialect == "sqlite":
        with closing(sqlite3.connect(file_of(empty_database_url))) as connection:
            connection.executescript(script)
    else:
        with psycopg.connect(empty_database_url.replace("+asyncpg", ""), autocommit=True) as connection:
            connection.execute(script.encode())
    return empty_database_url


def counts(url: str, tables: Sequence[str] = TABLES) -> list[int]:
    """Rows of each table."""
    return [execute(url, f"SELECT count(*) FROM {table}")[0][0] for table in tables]


def all_runs(url: str) -> set[str]:
    """The ids of the stored runs."""
    return {run_id for (run_id,) in execute(url, "SELECT run_id FROM core_workflow_runs")}


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

        before = all_runs(old_database)
        await runner.execute(workflow, run_id="new")
        assert {run.run_id for run in await runner.list_runs()} == before | {"new"}
        for run_id in (*before, "new"):
            await runner.delete_run(run_id, force=True)
    assert counts(old_database, TABLES[:4]) == [0, 0, 0, 0]


@pytest.mark.anyio
async def test_an_earlier_schema_is_left_alone_where_it_may_not_be_changed(old_database: str) -> None:
    before = counts(old_database, TABLES[:3])
    config = WorkflowRunnerConfig(database_url=old_database, auto_migrate=False)

    async def nothing(context: WorkflowContext, config: object) -> None:
        raise AssertionError("never entered")

    async with WorkflowRunner(config=config) as runner:
        with pytest.raises(SchemaVersionError, match="upgrade_schema"):
            await runner.execute(Workflow("w", [Step.lambda_("nothing", nothing)]))
    assert counts(old_database, TABLES[:3]) == before


async def load(context: WorkflowContext, config: object) -> dict[str, int]:
    raise AssertionError("entered again")


async def report(context: WorkflowContext, config: object) -> dict[str, object]:
    return {"rows": context.get_output("load", "rows")}


async def hang(context: WorkflowContext, config: object) -> None:
    return None


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["waiting", "released", "stopped"])
async def test_runs_of_version_2_continue_after_their_stored_steps(version_2: str, name: str) -> None:
    last = Step.wait("pause", seconds=4) if name != "stopped" else Step.lambda_("hang", hang)
    steps = [Step.lambda_("load", load), last, Step.lambda_("report", report)]
    workflow = Workflow("stopped" if name == "stopped" else "waiting", steps)
    async with WorkflowRunner(config=WorkflowRunnerConfig(database_url=version_2)) as runner:
        result = await runner.resume(name, workflow=workflow)
        assert result.status is RunStatus.COMPLETED
        assert result.context.get_output("report") == {"rows": 3}


@pytest.mark.anyio
async def test_a_run_that_version_2_released_is_due(version_2: str) -> None:
    await upgrade_schema(version_2)
    due = "SELECT run_id FROM core_workflow_runs WHERE ready AND due_at IS NOT NULL AND turn < 0 AND due_boot IS NULL"
    assert execute(version_2, due) == [("released",)]
    store = SqlRunStore(version_2)
    run = await store.load("released")
    assert run is not None
    assert run.due_at is not None
    assert (run.queue, run.priority, run.started_by, run.request_hash) == ("", 0, "execute", None)
    await store.close()


@pytest.mark.anyio
async def test_a_worker_takes_over_what_version_2_left(version_2: str) -> None:
    store = SqlRunStore(version_2)
    (owner,) = (await store.sweep()).owners
    await store.sweep(gone=[owner])
    request = DueRequest(
        owner="me",
        workflows={"waiting": 1, "from_version_1": 1},
        queues=frozenset(),
        limit=9,
        ttl=60,
        at=datetime.now(UTC),
    )
    assert {each.run.run_id for each in await store.claim_due(request)} == {"interrupted", "waiting", "released"}
    await store.close()


def schema_of(url: str) -> list[str]:
    """The columns and indexes of a database, in a form that does not depend on their order."""
    if url.startswith("sqlite"):
        columns = [
            (table, *column[1:])
            for table in TABLES
            for column in execute(url, f"SELECT 0, name, type, [notnull], dflt_value FROM pragma_table_info('{table}')")
        ]
        indexes = execute(url, "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
    else:
        columns = execute(
            url,
            "SELECT table_name, column_name, data_type, is_nullable, column_default, collation_name "
            "FROM information_schema.columns WHERE table_name LIKE 'core_workflow_%'",
        )
        indexes = execute(url, "SELECT indexname, indexdef FROM pg_indexes WHERE tablename LIKE 'core_workflow_%'")
    return sorted(map(str, columns)) + sorted(str(each) for each in indexes)


@pytest.mark.anyio
async def test_a_migrated_schema_is_that_of_a_new_database(old_database: str, tmp_path: Path) -> None:
    await upgrade_schema(old_database)
    migrated = schema_of(old_database)
    if old_database.startswith("sqlite"):
        new = f"sqlite+aiosqlite:///{tmp_path / 'new.db'}"
    else:
        new = old_database
        tables = ", ".join((*TABLES, "core_workflow_schema"))
        execute(new, f"DROP TABLE {tables} CASCADE")
    await upgrade_schema(new)
    assert migrated == schema_of(new)
