"""`connection=`: the run exists if and only if the caller's own transaction commits."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from spine_async import (
    DefinitionError,
    Enqueued,
    InvalidSignalError,
    RunConflictError,
    RunNotFoundError,
    SpineError,
    Step,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
)
from tests.service.flows import Config
from tests.service.places import Place

SOON = 5.0
"""Seconds; half of the time limit of the store, after which a call that waits for the lock of the caller fails."""


@pytest.fixture(params=["sqlite", "postgres"])
def empty_database(request: pytest.FixtureRequest) -> Place:
    """A database of each kind in turn, without the library's tables."""
    return Place(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "fresh_postgres_url"))


@pytest.fixture
async def engine(database: Place, observer: WorkflowRunner) -> AsyncIterator[AsyncEngine]:
    """The caller's own engine on the test's database, with the schema and with a table of the caller's."""
    assert database.url is not None
    await create_schema(observer)
    engine = create_async_engine(database.url)
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE IF EXISTS orders"))
        await connection.execute(text("CREATE TABLE orders (id TEXT PRIMARY KEY)"))
    yield engine
    await engine.dispose()


async def create_schema(runner: WorkflowRunner) -> None:
    await runner.enqueue("nobody", run_id="first write")
    await runner.delete_run("first write", force=True)


async def begin(connection: AsyncConnection | AsyncSession) -> None:
    """Begin the caller's transaction; with IMMEDIATE on SQLite."""
    bind = connection.engine if isinstance(connection, AsyncConnection) else connection.bind
    assert bind is not None
    if bind.dialect.name == "sqlite":
        await connection.execute(text("BEGIN IMMEDIATE"))
    else:
        await connection.begin()


async def orders(engine: AsyncEngine) -> list[str]:
    async with engine.connect() as connection:
        return [row.id for row in await connection.execute(text("SELECT id FROM orders ORDER BY id"))]


async def insert(connection: Any, order: str) -> None:
    await connection.execute(text("INSERT INTO orders VALUES (:id)"), {"id": order})


@pytest.fixture
def begun() -> list[str]:
    return []


@pytest.fixture
def flow(begun: list[str]) -> Workflow:
    async def note(context: WorkflowContext, config: Config) -> None:
        begun.append(context.run_id)

    return Workflow("flow", [Step.lambda_("step", note)])


@pytest.mark.parametrize("kind", [AsyncConnection, AsyncSession])
async def test_a_commit_makes_the_run_exist(  # noqa: PLR0917 (fixtures)
    database: Place, engine: AsyncEngine, observer: WorkflowRunner, flow: Workflow, begun: list[str], kind: Any
) -> None:
    async with database.runner(workflows=[flow]), kind(engine) as connection:
        await begin(connection)
        await insert(connection, "o1")
        handle = await observer.enqueue(flow, run_id="r", params={"order": "o1"}, connection=connection)
        assert (handle.run_id, begun) == ("r", [])
        await connection.commit()
        assert (await handle.result(timeout=10)).status == "completed"
    assert (await orders(engine), begun) == (["o1"], ["r"])


@pytest.mark.parametrize("kind", [AsyncConnection, AsyncSession])
async def test_a_rollback_leaves_nothing(  # noqa: PLR0917 (fixtures)
    database: Place, engine: AsyncEngine, observer: WorkflowRunner, flow: Workflow, begun: list[str], kind: Any
) -> None:
    async with database.runner(workflows=[flow]):
        async with kind(engine) as connection:
            await begin(connection)
            await insert(connection, "o1")
            handle = await observer.enqueue(flow, run_id="r", connection=connection)
            await connection.rollback()
        with pytest.raises(RunNotFoundError, match="r"):
            await handle.status()
        again = await observer.enqueue(flow, run_id="r", params={"other": 1})
        assert (await again.result(timeout=10)).status == "completed"
    assert (await orders(engine), begun) == ([], ["r"])


async def test_the_first_use_of_a_runner_is_inside_of_the_callers_transaction(
    database: Place, engine: AsyncEngine, flow: Workflow
) -> None:
    """The schema exists; the runner has not opened its own connection yet."""
    runner = database.runner(work=False)
    async with engine.connect() as connection:
        await begin(connection)
        with anyio.fail_after(5):
            handle = await runner.enqueue(flow, run_id="r", connection=connection)
        await connection.commit()
    assert (await handle.record()).status == "pending"


@pytest.mark.parametrize("ending", ["commit", "rollback"])
async def test_the_first_use_of_a_database_is_inside_of_the_callers_transaction(
    empty_database: Place, flow: Workflow, ending: str
) -> None:
    """The schema does not exist yet; on SQLite only the caller's transaction can create it."""
    assert empty_database.url is not None
    engine = create_async_engine(empty_database.url)
    runner = empty_database.runner(work=False)
    async with engine.connect() as connection:
        await begin(connection)
        with anyio.fail_after(SOON):
            handle = await runner.enqueue(flow, run_id="r", connection=connection)
        await getattr(connection, ending)()
    await engine.dispose()
    async with empty_database.runner(workflows=[flow]):
        if ending == "commit":
            assert (await handle.result(timeout=10)).status == "completed"
        else:
            with pytest.raises(RunNotFoundError):
                await handle.record()


@pytest.mark.parametrize("how", ["deferred", "no migration"])
async def test_the_tables_are_not_created_in_an_sqlite_transaction(sqlite_url: str, flow: Workflow, how: str) -> None:
    engine = create_async_engine(sqlite_url)
    runner = Place(sqlite_url).runner(work=False, config={"auto_migrate": how == "deferred"})
    async with engine.connect() as connection:
        await connection.execute(text("BEGIN" if how == "deferred" else "BEGIN IMMEDIATE"))
        asked_at = time.perf_counter()
        with pytest.raises(DefinitionError, match="write lock" if how == "deferred" else "upgrade_schema"):
            await runner.enqueue(flow, run_id="r", connection=connection)
        assert time.perf_counter() - asked_at < SOON
        assert (await connection.execute(text("SELECT count(*) FROM sqlite_master"))).scalar_one() == 0
        await connection.rollback()
    await engine.dispose()


async def test_several_runs_by_name_in_one_transaction(
    database: Place, engine: AsyncEngine, observer: WorkflowRunner, flow: Workflow, begun: list[str]
) -> None:
    async with database.runner(workflows=[flow]):
        async with engine.connect() as connection:
            await begin(connection)
            handles = [
                await observer.enqueue("flow", run_id=f"r{number}", connection=connection) for number in range(5)
            ]
            await connection.commit()
        for handle in handles:
            assert (await handle.result(timeout=10)).status == "completed"
    assert sorted(begun) == [f"r{number}" for number in range(5)]


async def test_a_stored_id_in_the_callers_transaction(
    engine: AsyncEngine, observer: WorkflowRunner, flow: Workflow
) -> None:
    await observer.enqueue(flow, run_id="r", params={"a": 1})
    async with engine.connect() as connection:
        await begin(connection)
        await insert(connection, "o1")
        handle = await observer.enqueue(flow, run_id="r", params={"a": 1}, connection=connection)
        assert handle.run_id == "r"
        with pytest.raises(RunConflictError, match="r"):
            await observer.enqueue(flow, run_id="r", params={"a": 2}, connection=connection)
        await insert(connection, "o2")  # the error left the transaction usable
        await connection.commit()
    assert await orders(engine) == ["o1", "o2"]


async def test_the_same_id_twice_in_one_transaction(
    engine: AsyncEngine, observer: WorkflowRunner, flow: Workflow
) -> None:
    async with engine.connect() as connection:
        await begin(connection)
        for _ in range(2):
            await observer.enqueue(flow, run_id="r", connection=connection)
        await connection.commit()
    assert [record.run_id for record in await observer.list_runs()] == ["r"]


async def test_the_same_id_with_other_params_in_one_transaction(
    engine: AsyncEngine, observer: WorkflowRunner, flow: Workflow
) -> None:
    """The row is visible to the transaction of the caller only."""
    async with engine.connect() as connection:
        await begin(connection)
        await observer.enqueue(flow, run_id="r", params={"a": 1}, connection=connection)
        with pytest.raises(RunConflictError, match="'r' was started with other params"):
            await observer.enqueue(flow, run_id="r", params={"a": 2}, connection=connection)
        with pytest.raises(RunConflictError, match="belongs to workflow 'flow', not to 'other'"):
            await observer.enqueue("other", run_id="r", params={"a": 1}, connection=connection)
        await observer.enqueue(flow, run_id="r", params={"a": 1}, connection=connection)
        await observer.enqueue("flow", run_id="r", params={"a": 1}, connection=connection)
        await insert(connection, "o1")  # the errors left the transaction usable
        await connection.commit()
    assert await orders(engine) == ["o1"]
    assert (await observer.get_run("r")).params == {"a": 1}


@pytest.mark.parametrize("second", [{"a": 1}, {"a": 2}])
async def test_the_same_id_twice_in_one_call(observer: WorkflowRunner, flow: Workflow, second: dict[str, int]) -> None:
    runs = [Enqueued(params={"a": 1}, run_id="r"), Enqueued(run_id="s"), Enqueued(params=second, run_id="r")]
    if second == {"a": 1}:
        handles = await observer.enqueue_many(flow, runs)
        assert [handle.run_id for handle in handles] == ["r", "s", "r"]
    else:
        with pytest.raises(RunConflictError, match="'r' was started with other params"):
            await observer.enqueue_many(flow, runs)
    assert sorted(record.run_id for record in await observer.list_runs()) == ["r", "s"]
    assert (await observer.get_run("r")).params == {"a": 1}


@pytest.mark.parametrize("kind", [AsyncConnection, AsyncSession])
async def test_an_id_is_free_again_after_a_savepoint_is_rolled_back(
    engine: AsyncEngine, observer: WorkflowRunner, flow: Workflow, kind: Any
) -> None:
    async with kind(engine) as connection:
        await begin(connection)
        await connection.execute(text("SAVEPOINT mine"))
        await observer.enqueue(flow, run_id="r", params={"a": 1}, connection=connection)
        await connection.execute(text("ROLLBACK TO mine"))
        await observer.enqueue(flow, run_id="r", params={"a": 2}, connection=connection)
        with pytest.raises(RunConflictError, match="'r'"):
            await observer.enqueue(flow, run_id="r", params={"a": 1}, connection=connection)
        await connection.commit()
    assert (await observer.get_run("r")).params == {"a": 2}


async def test_an_id_of_a_transaction_that_was_rolled_back_is_free(
    engine: AsyncEngine, observer: WorkflowRunner, flow: Workflow
) -> None:
    async with engine.connect() as connection:
        for ending, params in (("rollback", {"a": 1}), ("commit", {"a": 2})):
            await begin(connection)
            await observer.enqueue(flow, run_id="r", params=params, connection=connection)
            await getattr(connection, ending)()
    assert (await observer.get_run("r")).params == {"a": 2}


async def test_a_signal_to_a_run_of_the_same_transaction_is_checked(database: Place, engine: AsyncEngine) -> None:
    class Answer(BaseModel):
        yes: bool

    waits = Workflow("waits", [Step.wait_for_signal("ask", model=Answer)])
    async with database.runner(workflows=[waits]) as runner:
        async with engine.connect() as connection:
            await begin(connection)
            handle = await runner.enqueue(waits, run_id="r", connection=connection)
            with pytest.raises(InvalidSignalError, match="yes"):
                await runner.signal("r", "ask", {"no": 1}, connection=connection)
            await runner.signal("r", "ask", Answer(yes=True), connection=connection)
            await connection.commit()
        assert (await handle.result(timeout=10)).status == "completed"


async def test_options_hold_in_the_callers_transaction(
    engine: AsyncEngine, observer: WorkflowRunner, flow: Workflow
) -> None:
    async with engine.connect() as connection:
        await begin(connection)
        options: dict[str, Any] = {"queue": "mail", "key": "k", "priority": 3, "delay": 60, "partition": {"day": 1}}
        handle = await observer.enqueue(flow, connection=connection, **options)
        with pytest.raises(SpineError, match="delay"):
            await observer.enqueue(flow, connection=connection, delay=-1)
        await connection.commit()
    record = await handle.record()
    assert (record.queue, record.key, record.priority, record.partition) == ("mail", "k", 3, {"day": 1})
    assert record.due_at is not None
    assert 50 < (record.due_at - record.created_at).total_seconds() < 70


async def test_the_runner_is_refused_inside_of_an_sqlite_transaction(
    database: Place, engine: AsyncEngine, observer: WorkflowRunner, flow: Workflow
) -> None:
    """It would wait for the caller's own lock until its time limit."""
    if engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL locks no other row")
    async with engine.connect() as connection:
        await begin(connection)
        await observer.enqueue(flow, run_id="inside", connection=connection)
        for call in (observer.enqueue(flow), observer.execute(flow), observer.stop("inside")):
            asked_at = time.perf_counter()
            with pytest.raises(SpineError):
                await call
            assert time.perf_counter() - asked_at < SOON
        await connection.commit()
    assert [record.run_id for record in await observer.list_runs()] == ["inside"]
    assert (await observer.execute(flow)).status == "completed"


@pytest.mark.parametrize("how", ["connection", "session", "insert"])
@pytest.mark.parametrize("is_first_use", [False, True])
async def test_a_call_without_the_connection_is_refused_inside_of_an_sqlite_transaction(
    database: Place, engine: AsyncEngine, flow: Workflow, how: str, is_first_use: bool
) -> None:
    """Also if no call has got the connection before; a plain INSERT begins a transaction too."""
    if engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL locks no other row")
    runner = database.runner(work=False)
    if not is_first_use:
        await runner.list_runs()
    caller = AsyncSession(engine) if how == "session" else AsyncConnection(engine)
    async with caller as connection:
        if how == "connection":
            await begin(connection)
        else:
            await insert(connection, "o1")
        for call in (runner.enqueue(flow), runner.execute(flow), runner.signal("r", "go"), runner.handle("r").stop()):
            asked_at = time.perf_counter()
            with pytest.raises(DefinitionError, match="connection"):
                await call
            assert time.perf_counter() - asked_at < SOON
        await runner.enqueue(flow, run_id="inside", connection=connection)
        await connection.commit()
        await runner.enqueue(flow, run_id="afterwards")
    assert {record.run_id for record in await runner.list_runs()} == {"inside", "afterwards"}


async def test_an_sqlite_transaction_that_only_reads_keeps_no_call_from_writing(
    database: Place, engine: AsyncEngine, observer: WorkflowRunner, flow: Workflow
) -> None:
    async with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            await connection.execute(text("BEGIN"))
        await connection.execute(text("SELECT * FROM orders"))
        assert (await observer.execute(flow)).status == "completed"


async def test_the_transaction_of_another_database_keeps_no_call_from_writing(
    observer: WorkflowRunner, flow: Workflow, tmp_path: Path
) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'other.db'}")
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE orders (id TEXT PRIMARY KEY)"))
        await insert(connection, "o1")
        assert (await observer.execute(flow)).status == "completed"
    await engine.dispose()


async def test_other_tasks_use_the_runner_meanwhile(
    engine: AsyncEngine, observer: WorkflowRunner, flow: Workflow
) -> None:
    """On SQLite they wait for the caller's lock; the caller commits while they wait."""
    statuses: list[str] = []

    async def other() -> None:
        statuses.append((await observer.execute(flow)).status)

    async with anyio.create_task_group() as tasks, engine.connect() as connection:
        await begin(connection)
        await observer.enqueue(flow, run_id="inside", connection=connection)
        tasks.start_soon(other)
        await anyio.lowlevel.checkpoint()
        await connection.commit()
    assert statuses == ["completed"]


# --- wrong connections ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["object", "engine", "sync connection", "text", "closed"])
async def test_what_is_no_connection(engine: AsyncEngine, observer: WorkflowRunner, flow: Workflow, kind: str) -> None:
    async with engine.connect() as connection:
        wrong = {
            "object": object(),
            "engine": engine,
            "sync connection": connection.sync_connection,
            "text": "sqlite://",
            "closed": connection,
        }[kind]
        if kind == "closed":
            await connection.close()
        with pytest.raises(SpineError, match="connection"):
            await observer.enqueue(flow, connection=wrong)
    assert await observer.list_runs() == []


async def test_a_connection_of_another_database(
    observer: WorkflowRunner, flow: Workflow, tmp_path: Path, database: Place
) -> None:
    await database.runner(work=False).list_runs()
    other_url = f"sqlite+aiosqlite:///{tmp_path / 'other.db'}"
    other = Place(other_url).runner(work=False)
    await other.list_runs()
    engine = create_async_engine(other_url)
    async with engine.connect() as connection:
        await begin(connection)
        with pytest.raises(SpineError, match="database"):
            await observer.enqueue(flow, connection=connection)
        await connection.rollback()
    await engine.dispose()
    assert await observer.list_runs() == []
    assert await other.list_runs() == []


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
@pytest.mark.parametrize("kind", [AsyncConnection, AsyncSession])
async def test_a_transaction_in_which_a_statement_has_failed(
    engine: AsyncEngine, observer: WorkflowRunner, flow: Workflow, kind: Any
) -> None:
    await observer.enqueue(flow, run_id="known")
    async with kind(engine) as connection:
        with pytest.raises(ProgrammingError):
            await connection.execute(text("SELECT 1 FROM missing"))
        with pytest.raises(DefinitionError, match="begin another one"):
            await observer.enqueue(flow, run_id="r", connection=connection)
        with pytest.raises(DefinitionError, match="begin another one"):
            await observer.signal("known", "go", connection=connection)
        await connection.rollback()
        await connection.execute(text("SELECT 1"))
        await observer.enqueue(flow, run_id="r", connection=connection)
        await connection.commit()
    assert await observer.handle("r").status() == "pending"


async def test_a_deferred_sqlite_transaction(engine: AsyncEngine, observer: WorkflowRunner, flow: Workflow) -> None:
    if engine.dialect.name != "sqlite":
        pytest.skip("only SQLite has deferred transactions")
    for statement in ("BEGIN", "BEGIN DEFERRED", "SELECT 1"):
        async with engine.connect() as connection:
            await connection.execute(text(statement))
            with pytest.raises(SpineError, match="IMMEDIATE"):
                await observer.enqueue(flow, connection=connection)
            await connection.rollback()
    assert await observer.list_runs() == []


async def test_a_store_without_sql(engine: AsyncEngine, flow: Workflow) -> None:
    runner = Place(None).runner(work=False)
    async with engine.connect() as connection:
        await begin(connection)
        with pytest.raises(SpineError, match="connection"):
            await runner.enqueue(flow, connection=connection)
        await connection.rollback()
    assert await runner.list_runs() == []
