"""Steps that write in the transaction which also commits their end: exactly once, or not at all."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from spine_async import (
    END,
    DefinitionError,
    Step,
    StepError,
    StepEvent,
    StepResult,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
    WorkflowRunnerConfig,
)
from spine_async.storage import MemoryRunStore
from tests.service.ledger import Config, Entry, Query, execute, write, written
from tests.service.places import Place

pytestmark = pytest.mark.anyio


async def test_what_it_writes_is_committed_with_its_end(bank: Place, query: Query) -> None:
    flow = Workflow("w", [Step.transaction("pay", write), Step.lambda_("last", lambda context, config: None)])
    async with bank.runner(work=False) as runner:
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


async def test_a_finished_transaction_is_not_repeated_by_a_resume(bank: Place, query: Query) -> None:
    is_ready = False

    def last(context: WorkflowContext, config: Config) -> dict[str, object]:
        if not is_ready:
            raise StepError("no")
        return {"paid": context.get_output("pay", "count")}

    flow = Workflow("w", [Step.transaction("pay", write), Step.lambda_("last", last)])
    assert (await execute(bank, flow)).status == "failed"
    is_ready = True
    async with bank.runner(work=False) as runner:
        result = await runner.resume("r", workflow=flow)
    assert result.context.get_output("last") == {"paid": 1}
    assert written(query) == ["r/pay"]


async def test_appended_elements_are_committed_and_ends_and_catches_work(bank: Place, query: Query) -> None:
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
    result = await execute(bank, Workflow("w", steps), params={"name": "n", "paid": ["z"]})
    result.raise_for_status()
    assert result.context.params["paid"] == ["z", "a", "b"]
    assert result.completed_steps == ["add"]
    assert written(query) == ["r/add"]


class Receipt(BaseModel):
    total: int


async def test_skips_stops_updates_models_and_own_events_are_committed(bank: Place, query: Query) -> None:
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
    async with bank.runner(work=False) as runner:
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
async def test_the_handler_cannot_end_the_transaction(bank: Place, query: Query, how: str) -> None:
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

    result = await execute(bank, Workflow("w", [Step.transaction("pay", pay)]))
    assert result.status == "failed"
    assert written(query) == []
    if how not in {"sql", "begin"}:
        assert "must neither commit nor roll back, nor close" in str(result.error)


async def test_savepoints_and_sessions_work(bank: Place, query: Query) -> None:
    def pay(context: WorkflowContext, config: Config, connection: Connection) -> None:
        write(context, config, connection)
        with pytest.raises(IntegrityError), connection.begin_nested():
            write(context, config, connection)
        with Session(connection) as session:
            session.add(Entry(what="by session"))
            session.commit()

    (await execute(bank, Workflow("w", [Step.transaction("pay", pay)]))).raise_for_status()
    assert written(query) == ["by session", "r/pay"]


async def test_items_of_a_map_commit_with_their_last_step_and_beside_others(bank: Place, query: Query) -> None:
    async def note(context: WorkflowContext, config: Config) -> dict[str, object]:
        context.emit("seen", context.params["item"])
        return {}

    iterator = Workflow(steps=[Step.lambda_("note", note), Step.transaction("pay", write)])
    flow = Workflow("w", [Step.map("each", items=range(20), iterator=iterator, max_concurrency=5)])
    async with bank.runner(work=False) as runner:
        result = await runner.execute(flow, run_id="r")
        events = [event async for event in runner.events("r")]
    result.raise_for_status()
    assert result.context.get_output("each", "succeeded") == 20
    assert written(query) == sorted(f"r/each[{index}]/pay" for index in range(20))
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert sum(event.event_type == "map_item_completed" for event in events) == 20


async def test_it_sees_the_context_variables_and_emits_and_reports(bank: Place, query: Query) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="")
    variable.set("set")
    seen = list[object]()

    def pay(context: WorkflowContext, config: Config, connection: Connection) -> None:
        seen.append(variable.get())
        context.emit("paying", 1)
        context.progress(1, 2)
        seen.append(context.cancel_reason)

    async with bank.runner(work=False) as runner:
        (await runner.execute(Workflow("w", [Step.transaction("pay", pay)]), run_id="r")).raise_for_status()
        types = [event.event_type async for event in runner.events("r")]
    assert seen == ["set", None]
    assert types[1:3] == ["step_started", "paying"]
    assert "step_completed" in types


async def test_middleware_cannot_change_what_is_committed_or_repeat_it(bank: Place, query: Query) -> None:
    async with bank.runner(work=False) as runner:

        @runner.middleware
        async def twice(step: Step, context: WorkflowContext, next_fn: Any) -> StepResult:
            await next_fn(step, context)
            await next_fn(step, context)
            return StepResult.fail("changed")

        result = await runner.execute(Workflow("w", [Step.transaction("pay", write)]), run_id="r")
    assert result.context.get_output("pay") == {"count": 1}
    assert written(query) == ["r/pay"]


async def test_more_items_than_connections_of_the_pool_take_turns(fresh_postgres_url: str) -> None:
    def pay(context: WorkflowContext, config: Config, connection: Connection) -> None:
        connection.execute(text("SELECT pg_sleep(0.01)"))

    flow = Workflow(
        "w",
        [
            Step.map(
                "each", items=range(30), iterator=Workflow(steps=[Step.transaction("pay", pay)]), max_concurrency=30
            )
        ],
    )
    async with Place(fresh_postgres_url).runner(work=False) as runner:
        (await runner.execute(flow)).raise_for_status()


async def test_calls_are_refused_inside_of_it(bank: Place) -> None:
    def pay(context: WorkflowContext, config: Config, connection: Connection) -> None:
        context.once_in_thread("call", int, 1)

    result = await execute(bank, Workflow("w", [Step.transaction("pay", pay)]))
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
