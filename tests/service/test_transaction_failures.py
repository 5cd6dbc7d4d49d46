"""Transactions that fail, are cancelled, take too long, or whose commit is uncertain: they leave nothing, or all."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import anyio
import anyio.to_thread
import pytest
from pydantic import BaseModel
from sqlalchemy import Connection, text

from spine_async import (
    LeaseLostError,
    QualityThresholds,
    RetryPolicy,
    Step,
    StepError,
    StepResult,
    Workflow,
    WorkflowContext,
)
from tests.service.ledger import AGAIN, Config, Query, execute, is_sqlite, lose_answer, write, written
from tests.service.places import Place
from tests.service.services import until

pytestmark = pytest.mark.anyio


async def test_a_failed_attempt_leaves_nothing_and_is_retried(bank: Place, query: Query) -> None:
    def pay(context: WorkflowContext, config: Config, connection: Connection) -> object:
        write(context, config, connection)
        if context.attempt == 1:
            raise StepError("no", category="TRANSIENT")
        if context.attempt == 2:
            return StepResult.fail("no", "TRANSIENT")
        return {"attempt": context.attempt}

    result = await execute(bank, Workflow("w", [Step.transaction("pay", pay, retry=AGAIN)]))
    assert result.context.get_output("pay") == {"attempt": 3}
    assert result.step_metrics[0].attempts == 3
    assert written(query) == ["r/pay"]


async def test_a_failure_for_good_leaves_nothing_and_the_run_may_continue(bank: Place, query: Query) -> None:
    def pay(context: WorkflowContext, config: Config, connection: Connection) -> None:
        write(context, config, connection)
        raise StepError("no")

    steps = [Step.transaction("pay", pay, on_error="continue"), Step.transaction("next", write)]
    result = await execute(bank, Workflow("w", steps))
    assert (result.completed_steps, result.failed_steps) == (["next"], ["pay"])
    assert written(query) == ["r/next"]


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
    bank: Place, query: Query, returned: object, options: dict[str, Any], category: str
) -> None:
    def pay(context: WorkflowContext, config: Config, connection: Connection) -> object:
        write(context, config, connection)
        return returned

    result = await execute(bank, Workflow("w", [Step.transaction("pay", pay, **options)]))
    assert (result.status, result.error_category) == ("failed", category)
    assert written(query) == []


async def test_one_that_takes_too_long_is_rolled_back(bank: Place, query: Query) -> None:
    wait = "SELECT pg_sleep(30)"
    if is_sqlite(bank):
        wait = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"

    def pay(context: WorkflowContext, config: Config, connection: Connection) -> None:
        write(context, config, connection)
        if context.attempt == 1:
            connection.execute(text(wait))

    step = Step.transaction("pay", pay, retry=AGAIN)
    async with bank.runner(work=False, config={"lease_ttl": 3.0}) as runner:
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


@pytest.mark.parametrize("how", ["timeout", "stop"])
async def test_one_that_is_cancelled_is_rolled_back(bank: Place, query: Query, how: str) -> None:
    is_on_thread = is_sqlite(bank)
    began, go_on = anyio.Event(), threading.Event()
    loop_thread = threading.get_ident()
    contexts: list[WorkflowContext] = []

    async with bank.runner(work=False) as runner:

        def pay(context: WorkflowContext, config: Config, connection: Connection) -> None:
            contexts.append(context)
            write(context, config, connection)
            if is_on_thread:
                assert threading.get_ident() != loop_thread
                loop.call_soon_threadsafe(began.set)
                go_on.wait(20)
            else:
                began.set()
                connection.execute(text("SELECT pg_sleep(20)"))

        loop = asyncio.get_running_loop()
        step = Step.transaction("pay", pay, timeout=2.0 if how == "timeout" else None)
        handle = await runner.start(Workflow("w", [step]), run_id="r")
        with anyio.fail_after(20):
            await began.wait()
        if how == "stop":
            stopping = asyncio.ensure_future(handle.stop("enough"))
        await until(lambda: contexts[0].cancel_reason)
        go_on.set()
        if how == "stop":
            await stopping
        result = await handle.result(20)
    assert result.status == ("stopped" if how == "stop" else "failed")
    assert written(query) == []


async def test_a_superseded_owner_writes_nothing(bank: Place, query: Query) -> None:
    newer = "UPDATE core_workflow_runs SET epoch = epoch + 1 RETURNING epoch"

    def pay(context: WorkflowContext, config: Config, connection: Connection) -> None:
        write(context, config, connection)
        if is_sqlite(bank):
            connection.execute(text(newer))  # nobody else can write meanwhile
        else:
            query(newer)

    with pytest.raises(LeaseLostError):
        await execute(bank, Workflow("w", [Step.transaction("pay", pay)]))
    assert written(query) == []


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_lost_answer_to_the_commit_neither_loses_nor_repeats_it(
    bank: Place, query: Query, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    attempts = list[int]()

    def pay(context: WorkflowContext, config: Config, connection: Connection) -> None:
        attempts.append(context.attempt)
        write(context, config, connection)

    lose_answer(bank, monkeypatch, moment, attempts)
    flow = Workflow("w", [Step.transaction("pay", pay, retry=AGAIN), Step.transaction("last", write)])
    async with bank.runner(work=False) as runner:
        result = await runner.execute(flow, run_id="r")
        events = [event async for event in runner.events("r")]
    result.raise_for_status()
    assert attempts == ([1, 2] if moment == "before" else [1])
    assert written(query) == ["r/last", "r/pay"]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


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
