"""Recorded calls and transactions inside of parallel branches and of workflows that are steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from sqlalchemy import Connection, text

from spine_async import Step, StepError, Workflow, WorkflowContext
from tests.crash.conftest import Rows, plain_query
from tests.service.places import Place

pytestmark = pytest.mark.anyio

Config = Mapping[str, object]


@pytest.fixture
def query(database_url: str) -> Callable[..., Rows]:
    return lambda statement, *values: plain_query(database_url, statement, *values)


class Shop:
    """Steps that make a call, write in a transaction, and fail until the shop is open."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.is_open = False

    async def call(self, what: str) -> str:
        self.calls.append(what)
        return what.upper()

    async def ask(self, context: WorkflowContext, config: Config) -> dict[str, Any]:
        answer = await context.once("call", self.call, str(context.idempotency_key))
        if not self.is_open:
            raise StepError("closed")
        return {"answer": answer}

    def write(self, context: WorkflowContext, config: Config, connection: Connection) -> dict[str, Any]:
        connection.execute(text("CREATE TABLE IF NOT EXISTS sold (entry TEXT)"))
        connection.execute(text("INSERT INTO sold VALUES (:entry)"), {"entry": context.idempotency_key})
        return {"written": True}

    def steps(self) -> list[Step]:
        return [Step.transaction("write", self.write), Step.lambda_("ask", self.ask)]


@pytest.mark.parametrize("kind", ["parallel", "workflow", "nested"])
async def test_a_resume_repeats_neither_calls_nor_transactions(
    database: Place, query: Callable[..., Rows], kind: str
) -> None:
    shop = Shop()
    inner = Workflow("inner", shop.steps())
    both = Step.parallel("both", {"a": inner, "b": Workflow("b", shop.steps())})
    step = {
        "parallel": both,
        "workflow": Step.workflow("child", inner),
        "nested": Step.map("each", items=[1, 2], iterator=Workflow(steps=[both]), max_concurrency=1),
    }[kind]
    flow = Workflow("w", [step])
    paths = {
        "parallel": ["r/both[a]", "r/both[b]"],
        "workflow": ["r/child"],
        "nested": [f"r/each[{index}]/both[{branch}]" for index in (0, 1) for branch in "ab"],
    }[kind]
    async with database.runner(work=False) as runner:
        assert (await runner.execute(flow, run_id="r")).status == "failed"
    shop.is_open = True
    async with database.runner(work=False) as runner:
        result = await runner.resume("r", workflow=flow)
        events = [event async for event in runner.events("r")]
    result.raise_for_status()
    assert sorted(shop.calls) == [f"{path}/ask" for path in paths]
    assert sorted(str(row[0]) for row in query("SELECT entry FROM sold")) == [f"{path}/write" for path in paths]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
