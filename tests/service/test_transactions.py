"""Steps that write in the transaction which also commits their end: exactly once, or not at all."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.to_thread
import pytest
from pydantic import BaseModel
from sqlalchemy import Column, Connection, Integer, MetaData, Table, Text, func, insert, make_url, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncTransaction, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from spine_async import (
    END,
    DefinitionError,
    LeaseLostError,
    QualityThresholds,
    RetryPolicy,
    Step,
    StepError,
    StepEvent,
    StepResult,
    Workflow,
    WorkflowContext,
    WorkflowResult,
    WorkflowRunner,
    WorkflowRunnerConfig,
)
from spine_async.storage import MemoryRunStore
from spine_async.storage.sql.sqlite import jobs
from tests.crash.conftest import Rows, plain_query
from tests.service.places import Place

pytestmark = pytest.mark.anyio

Config = Mapping[str, object]
Query = Callable[..., Rows]
AGAIN = RetryPolicy(max_attempts=3, backoff="constant", initial_delay=0.001, jitter=False)
tables = MetaData()
ledger = Table("ledger", tables, Column("id", Integer, primary_key=True), Column("what", Text, unique=True))


class Base(DeclarativeBase): ...


class Entry(Base):
    __tablename__ = "ledger"
    id: Mapped[int] = mapped_column(primary_key=True)
    what: Mapped[str]


def is_sqlite(place: Place) -> bool:
    return str(place.url).startswith("sqlite")


@pytest.fixture
def query(database_url: str) -> Query:
    return lambda statement, *values: plain_query(database_url, statement, *values)


@pytest.fixture(autouse=True)
async def _ledger(request: pytest.FixtureRequest) -> None:
    if "database" in request.fixturenames:
        place: Place = request.getfixturevalue("database")
        driver = "sqlite+aiosqlite" if is_sqlite(place) else "postgresql+asyncpg"
        engine = create_async_engine(make_url(str(place.url)).set(drivername=driver))
        async with engine.begin() as connection:
            await connection.run_sync(tables.create_all)
        await engine.dispose()


def write(context: WorkflowContext, config: Config, connection: Connection) -> dict[str, object]:
    connection.execute(insert(ledger).values(what=f"{context.idempotency_key}"))
    return {"count": connection.execute(select(func.count()).select_from(ledger)).scalar_one()}


def written(query: Query) -> list[str]:
    return sorted(str(row[0]) for row in query("SELECT what FROM ledger"))


async def execute(database: Place, flow: Workflow, **options: Any) -> WorkflowResult:
    async with database.runner(work=False) as runner:
        return await runner.execute(flow, **{"run_id": "r", **options})


async def test_what_it_writes_is_committed_with_its_end(database: Place, query: Query) -> None:
    flow = Workflow("w", [Step.transaction("pay", write), Step.lambda_("last", lambda context, config: None)])
    async with database.runner(work=False) as runner:
        result = await runner.execute(flow, run_id="r")
        events = [event async for event in runner.events("r")]
        checkpoint = await runner.get_checkpoint("r", "pay")
    result.raise_for_status()
    assert written(query) == ["r/pay"]
    assert result.context.get_output("pay") == {"count": 1}
    assert result.completed_steps == ["pay", "last"]
    assert [(event.event_type, event.path) for event in events[:3]] == [
        ("workflow_started", None),
        ("step_started", "pay"),
        ("step_completed", "pay"),
    ]
    assert [event.seq for event in events] == list(range(1, 7))
    assert checkpoint is not None
    assert checkpoint.context_snapshot["outputs"] == {"pay": {"count": 1}}
    assert result.step_metrics[0].step_type == "transaction"


async def test_a_finished_transaction_is_not_repeated_by_a_resume(database: Place, query: Query) -> None:
    is_ready = False

    def last(context: WorkflowContext, config: Config) -> dict[str, object]:
        if not is_ready:
            raise StepError("no")
        return {"paid": context.get_output("pay", "count")}

    flow = Workflow("w", [Step.transaction("pay", write), Step.lambda_("last", last)])
    assert (await execute(database, flow)).status == "failed"
    is_ready = True
    async with database.runner(work=False) as runner:
        result = await runner.resume("r", workflow=flow)
    assert result.context.get_output("last") == {"paid": 1}
    assert written(query) == ["r/pay"]


async def test_a_failed_attempt_leaves_nothing_and_is_retried(database: Place, query: Query) -> None:
    def pay(context: WorkflowContext, config: Config, connection: Connection) -> object:
        write(context, config, connection)
        if context.attempt == 1:
            raise StepError("no", category="TRANSIENT")
        if context.attempt == 2:
            return StepResult.fail("no", "TRANSIENT")
        return {"attempt": context.attempt}

    result = await execute(database, Workflow("w", [Step.transaction("pay", pay, retry=AGAIN)]))
    assert result.context.get_output("pay") == {"attempt": 3}
    assert result.step_metrics[0].attempts == 3
    assert written(query) == ["r/pay"]


async def test_a_failure_for_good_leaves_nothing_and_the_run_may_continue(database: Place, query: Query) -> None:
    def pay(context: WorkflowContext, config: Config, connection: Connection) -> None:
        write(context, config, connection)
        raise StepError("no")

    steps = [Step.transaction("pay", pay, on_error="continue"), Step.transaction("next", write)]
    result = await execute(database, Workflow("w", steps))
    assert (result.completed_steps, result.failed_steps) == (["next"], ["pay"])
    assert written(query) == ["r/next"]


async def test_appended_elements_are_committed_and_ends_and_catches_work(database: Place, query: Query) -> None:
    def add(context: WorkflowContext, config: Config, connection: Connection) -> StepResult:
        write(context, config, connection)
        return StepResult.ok(append={"paid": ["a", "b"]})

    def misfit(context: WorkflowContext, config: Config, connection: Connection) -> StepResult:
        write(context, config, connection)
        return StepResult.ok(append={"name": ["x"]})

    steps = [
        Step.transaction("misfit", misfit, catch={"CONFIGURATION": "add"}),
        Step.lambda_("skipped", lambda context, config: None),
        Step.transaction("add", add, next_step=END),
        Step.lambda_("unreached", lambda context, config: None),
    ]
    result = await execute(database, Workflow("w", steps), params={"name": "n", "paid": ["z"]})
    result.raise_for_status()
    assert result.context.params["paid"] == ["z", "a", "b"]
    assert result.completed_steps == ["add"]
    assert written(query) == ["r/add"]


class Receipt(BaseModel):
    total: int


@pytest.mark.parametrize(
    ("returned", "options", "category"),
    [
        ({"total": object()}, {}, "INTERNAL"),
        ({"total": "x"}, {"output_model": Receipt}, "DATA_QUALITY"),
        ({"total": 1}, {"quality_thresholds": QualityThresholds(min_record_count=1)}, "DATA_QUALITY"),
        ("text", {}, "CONFIGURATION"),
    ],
)
async def test_a_result_that_is_refused_rolls_back(
    database: Place, query: Query, returned: object, options: dict[str, Any], category: str
) -> None:
    def pay(context: WorkflowContext, config: Config, connection: Connection) -> object:
        write(context, config, connection)
        return returned

    result = await execute(database, Workflow("w", [Step.transaction("pay", pay, **options)]))
    assert (result.status, result.error_category) == ("failed", category)
    assert written(query) == []


async def test_skips_stops_updates_models_and_own_events_are_committed(database: Place, query: Query) -> None:
    def pay(context: WorkflowContext, config: Config, connection: Connection) -> StepResult:
        write(context, config, connection)
        return StepResult.ok(
            {"total": 5}, context_updates={"paid": True}, events=[StepEvent("charged", {"by": config["by"]})]
        )

    def skip(context: WorkflowContext, config: Config, connection: Connection) -> StepResult:
        write(context, config, connection)
        return StepResult.skip("nothing to do")

    def stop(context: WorkflowContext, config: Config, connection: Connection) -> StepResult:
        write(context, config, connection)
        return StepResult.stop("enough")

    steps = [
        Step.transaction("pay", pay, {"by": "card"}, output_model=Receipt),
        Step.transaction("skip", skip),
        Step.transaction("stop", stop, next_step="end"),
        Step.lambda_("between", lambda context, config: None),
        Step.lambda_("end", lambda context, config: None),
    ]
    flow = Workflow("w", steps)
    async with database.runner(work=False) as runner:
        result = await runner.execute(flow, run_id="r")
        assert (result.status, result.stop_reason) == ("stopped", "enough")
        assert result.context.params["paid"] is True
        assert result.context.get_output("pay", model=Receipt) == Receipt(total=5)
        resumed = await runner.resume("r", workflow=flow)
        events = [event async for event in runner.events("r")]
    assert resumed.status == "completed"
    assert written(query) == ["r/pay", "r/skip", "r/stop"]
    assert [event.metadata for event in events if event.event_type == "charged"] == [{"by": "card"}]
    assert [event.path for event in events if event.event_type == "step_skipped"] == ["skip", "between"]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


@pytest.mark.parametrize("how", ["commit", "rollback", "begin", "close", "sql", "caught"])
async def test_the_handler_cannot_end_the_transaction(database: Place, query: Query, how: str) -> None:
    def pay(context: WorkflowContext, config: Config, connection: Connection) -> None:
        write(context, config, connection)
        if how == "begin":
            with connection.begin():
                pass
        elif how == "sql":
            connection.execute(text("ROLLBACK"))
        elif how == "caught":
            with pytest.raises(DefinitionError):
                connection.commit()
        else:
            getattr(connection, how)()

    result = await execute(database, Workflow("w", [Step.transaction("pay", pay)]))
    assert result.status == "failed"
    assert written(query) == []
    if how not in {"sql", "begin"}:
        assert "must neither commit nor roll back, nor close" in str(result.error)


async def test_savepoints_and_sessions_work(database: Place, query: Query) -> None:
    def pay(context: WorkflowContext, config: Config, connection: Connection) -> None:
        write(context, config, connection)
        with pytest.raises(IntegrityError), connection.begin_nested():
            write(context, config, connection)
        with Session(connection) as session:
            session.add(Entry(what="by session"))
            session.commit()

    (await execute(database, Workflow("w", [Step.transaction("pay", pay)]))).raise_for_status()
    assert written(query) == ["by session", "r/pay"]


async def test_items_of_a_map_commit_with_their_last_step_and_beside_others(database: Place, query: Query) -> None:
    async def note(context: WorkflowContext, config: Config) -> dict[str, object]:
        context.emit("seen", context.params["item"])
        return {}

    iterator = Workflow(steps=[Step.lambda_("note", note), Step.transaction("pay", write)])
    flow = Workflow("w", [Step.map("each", items=range(20), iterator=iterator, max_concurrency=5)])
    async with database.runner(work=False) as runner:
        result = await runner.execute(flow, run_id="r")
        events = [event async for event in runner.events("r")]
    result.raise_for_status()
    assert result.context.get_output("each", "succeeded") == 20
    assert written(query) == sorted(f"r/each[{index}]/pay" for index in range(20))
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert sum(event.event_type == "map_item_completed" for event in events) == 20


async def test_it_sees_the_context_variables_and_emits_and_reports(database: Place, query: Query) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="")
    variable.set("set")
    seen = list[object]()

    def pay(context: WorkflowContext, config: Config, connection: Connection) -> None:
        seen.append(variable.get())
        context.emit("paying", 1)
        context.progress(1, 2)
        seen.append(context.cancel_reason)

    async with database.runner(work=False) as runner:
        (await runner.execute(Workflow("w", [Step.transaction("pay", pay)]), run_id="r")).raise_for_status()
        types = [event.event_type async for event in runner.events("r")]
    assert seen == ["set", None]
    assert types[1:3] == ["step_started", "paying"]
    assert "step_completed" in types


async def test_middleware_cannot_change_what_is_committed_or_repeat_it(database: Place, query: Query) -> None:
    async with database.runner(work=False) as runner:

        @runner.middleware
        async def twice(step: Step, context: WorkflowContext, next_fn: Any) -> StepResult:
            await next_fn(step, context)
            await next_fn(step, context)
            return StepResult.fail("changed")

        result = await runner.execute(Workflow("w", [Step.transaction("pay", write)]), run_id="r")
    assert result.context.get_output("pay") == {"count": 1}
    assert written(query) == ["r/pay"]


async def test_one_that_takes_too_long_is_rolled_back(database: Place, query: Query) -> None:
    wait = "SELECT pg_sleep(30)"
    if is_sqlite(database):
        wait = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"

    def pay(context: WorkflowContext, config: Config, connection: Connection) -> None:
        write(context, config, connection)
        if context.attempt == 1:
            connection.execute(text(wait))

    step = Step.transaction("pay", pay, retry=AGAIN)
    async with database.runner(work=False, config={"lease_ttl": 3.0}) as runner:
        result = await runner.execute(Workflow("w", [step]), run_id="r")
        retried = [event.metadata async for event in runner.events("r") if event.event_type == "step_retrying"]
    result.raise_for_status()
    assert [each["error_category"] for each in retried] == ["TIMEOUT"]
    assert "took longer than 1 s, a third of lease_ttl" in str(retried[0]["error"])
    assert written(query) == ["r/pay"]


async def test_a_handler_on_a_thread_that_computes_for_too_long_is_rolled_back(sqlite_url: str) -> None:
    go_on = threading.Event()

    def pay(context: WorkflowContext, config: Config, connection: Connection) -> None:
        connection.execute(text("CREATE TABLE IF NOT EXISTS written (n int)"))
        if context.attempt == 1:
            go_on.wait(1.1)

    async with Place(sqlite_url).runner(work=False, config={"lease_ttl": 3.0}) as runner:
        result = await runner.execute(Workflow("w", [Step.transaction("pay", pay, retry=AGAIN)]), run_id="r")
        retried = [event.metadata async for event in runner.events("r") if event.event_type == "step_retrying"]
    result.raise_for_status()
    assert [each["error_category"] for each in retried] == ["TIMEOUT"]


async def test_more_items_than_connections_of_the_pool_take_turns(fresh_postgres_url: str) -> None:
    def pay(context: WorkflowContext, config: Config, connection: Connection) -> None:
        connection.execute(text("SELECT pg_sleep(0.01)"))

    flow = Workflow(
        "w",
        [
            Step.map(
                "each", items=range(100), iterator=Workflow(steps=[Step.transaction("pay", pay)]), max_concurrency=100
            )
        ],
    )
    async with Place(fresh_postgres_url).runner(work=False) as runner:
        (await runner.execute(flow)).raise_for_status()


@pytest.mark.parametrize("how", ["timeout", "stop"])
async def test_one_that_is_cancelled_is_rolled_back(database: Place, query: Query, how: str) -> None:
    is_on_thread = is_sqlite(database)
    began, go_on = anyio.Event(), threading.Event()
    loop_thread = threading.get_ident()

    async with database.runner(work=False) as runner:

        def pay(context: WorkflowContext, config: Config, connection: Connection) -> None:
            write(context, config, connection)
            if is_on_thread:
                assert threading.get_ident() != loop_thread
                loop.call_soon_threadsafe(began.set)
                go_on.wait(20)
            else:
                began.set()
                connection.execute(text("SELECT pg_sleep(20)"))

        loop = asyncio.get_running_loop()
        step = Step.transaction("pay", pay, timeout=0.2 if how == "timeout" else None)
        handle = await runner.start(Workflow("w", [step]), run_id="r")
        await began.wait()
        if how == "stop":
            stopping = asyncio.ensure_future(handle.stop("enough"))
            await anyio.sleep(0.05)
        else:
            await anyio.sleep(0.3)
        go_on.set()
        if how == "stop":
            await stopping
        result = await handle.result(20)
    assert result.status == ("stopped" if how == "stop" else "failed")
    assert written(query) == []


async def test_a_superseded_owner_writes_nothing(database: Place, query: Query) -> None:
    newer = "UPDATE core_workflow_runs SET epoch = epoch + 1 RETURNING epoch"

    def pay(context: WorkflowContext, config: Config, connection: Connection) -> None:
        write(context, config, connection)
        if is_sqlite(database):
            connection.execute(text(newer))  # nobody else can write meanwhile
        else:
            query(newer)

    with pytest.raises(LeaseLostError):
        await execute(database, Workflow("w", [Step.transaction("pay", pay)]))
    assert written(query) == []


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_lost_answer_to_the_commit_neither_loses_nor_repeats_it(
    database: Place, query: Query, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    attempts = list[int]()

    def pay(context: WorkflowContext, config: Config, connection: Connection) -> None:
        attempts.append(context.attempt)
        write(context, config, connection)

    lose_answer(database, monkeypatch, moment, attempts)
    flow = Workflow("w", [Step.transaction("pay", pay, retry=AGAIN), Step.transaction("last", write)])
    async with database.runner(work=False) as runner:
        result = await runner.execute(flow, run_id="r")
        events = [event async for event in runner.events("r")]
    result.raise_for_status()
    assert attempts == ([1, 2] if moment == "before" else [1])
    assert written(query) == ["r/last", "r/pay"]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


def lose_answer(database: Place, monkeypatch: pytest.MonkeyPatch, moment: str, attempts: list[int]) -> None:
    """Let the first commit of a transaction fail, before or after the database has executed it."""
    lost = list[bool]()

    def is_due(when: str) -> bool:
        if when != moment or lost or not attempts:
            return False
        lost.append(True)
        return True

    if is_sqlite(database):
        lose_answer_of_sqlite(monkeypatch, is_due)
        return
    commit = AsyncTransaction.commit

    async def losing_commit(self: AsyncTransaction) -> None:
        if is_due("before"):
            raise ConnectionResetError
        await commit(self)
        if is_due("after"):
            raise ConnectionResetError

    monkeypatch.setattr(AsyncTransaction, "commit", losing_commit)


def lose_answer_of_sqlite(monkeypatch: pytest.MonkeyPatch, is_due: Callable[[str], bool]) -> None:
    in_transaction = jobs.in_transaction

    def transact(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], Any]) -> Any:
        def losing(driver: sqlite3.Connection) -> Any:
            result = work(driver)
            if is_due("before"):
                raise sqlite3.OperationalError("disk I/O error")
            return result

        result = in_transaction(connection, losing)
        if is_due("after"):
            raise sqlite3.OperationalError("disk I/O error")
        return result

    monkeypatch.setattr(jobs, "in_transaction", transact)


async def test_a_constraint_that_is_checked_at_the_commit_fails_the_step(fresh_postgres_url: str) -> None:
    make = "CREATE TABLE IF NOT EXISTS late (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)"

    def pay(context: WorkflowContext, config: Config, connection: Connection) -> None:
        connection.execute(text(make))
        for _ in range(2 if context.attempt == 1 else 1):
            connection.execute(text("INSERT INTO late VALUES (7)"))

    always = RetryPolicy(max_attempts=2, retryable_errors=lambda error: True, initial_delay=0.001)
    step = Step.transaction("pay", pay, retry=always)
    async with Place(fresh_postgres_url).runner(work=False) as runner:
        result = await runner.execute(Workflow("w", [step]), run_id="r")
        retried = [event.metadata async for event in runner.events("r") if event.event_type == "step_retrying"]
    result.raise_for_status()
    assert result.step_metrics[0].attempts == 2
    assert "late_n_key" in str(retried[0]["error"])


async def test_calls_are_refused_inside_of_it(database: Place) -> None:
    def pay(context: WorkflowContext, config: Config, connection: Connection) -> None:
        context.once_in_thread("call", int, 1)

    result = await execute(database, Workflow("w", [Step.transaction("pay", pay)]))
    assert "once cannot be called inside a transaction" in str(result.error)


async def test_without_a_sql_database_it_fails_with_the_way_out() -> None:
    runner = WorkflowRunner(store=MemoryRunStore(), work=False)
    result = await runner.execute(Workflow("w", [Step.transaction("pay", write)]))
    assert (result.status, result.error_category) == ("failed", "CONFIGURATION")
    assert "MemoryRunStore is no SQL database; store the runs in SQLite or PostgreSQL" in str(result.error)
    runner = WorkflowRunner(config=WorkflowRunnerConfig(checkpoint_enabled=False))
    result = await runner.execute(Workflow("w", [Step.transaction("pay", write)]))
    assert "this runner stores nothing" in str(result.error)


async def test_a_dry_run_does_not_call_it() -> None:
    runner = WorkflowRunner(dry_run=True)
    result = await runner.execute(Workflow("w", [Step.transaction("pay", write, output_model=Receipt)]))
    assert result.status == "completed"


async def test_its_handler_is_checked() -> None:
    async def pay(context: WorkflowContext, config: Config, connection: Connection) -> None: ...

    with pytest.raises(DefinitionError, match="it must be a def"):
        Step.transaction("pay", pay)
    with pytest.raises(DefinitionError, match="cannot be called with 3 positional arguments"):
        Step.transaction("pay", lambda context, config: None)  # type: ignore[arg-type,misc]
