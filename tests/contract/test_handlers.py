"""Handlers: their kinds, the place where they run, and the values that they may return."""

import asyncio
import functools
import re
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from spine_async import Step, StepResult, Workflow, WorkflowContext, WorkflowRunner

pytestmark = pytest.mark.anyio

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


class Price(BaseModel):
    symbol: str
    cents: int


@dataclass
class Count:
    rows: int


class AsyncCallable:
    async def __call__(self, context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"thread": threading.get_ident()}

    async def method(self, context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"thread": threading.get_ident()}


class PlainCallable:
    def __call__(self, context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"thread": threading.get_ident()}

    def method(self, context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"thread": threading.get_ident()}


async def on_the_loop(context: WorkflowContext, config: Mapping[str, Any], extra: int = 0) -> dict[str, Any]:
    return {"thread": threading.get_ident()}


def in_a_thread(context: WorkflowContext, config: Mapping[str, Any], extra: int = 0) -> dict[str, Any]:
    return {"thread": threading.get_ident()}


async def run_one(runner: WorkflowRunner, handler: Any, config: Any = None) -> Any:
    return await runner.execute(Workflow("w", [Step.lambda_("only", handler, config)]))


@pytest.mark.parametrize(
    "handler",
    [
        on_the_loop,
        functools.partial(on_the_loop, extra=1),
        functools.partial(functools.partial(on_the_loop), extra=1),
        AsyncCallable(),
        functools.partial(AsyncCallable()),
        AsyncCallable().method,
    ],
)
async def test_an_async_handler_runs_on_the_loop(runner: WorkflowRunner, handler: Any) -> None:
    result = await run_one(runner, handler)
    assert result.error is None
    assert result.context.get_output("only", "thread") == threading.get_ident()


@pytest.mark.parametrize(
    "handler",
    [
        in_a_thread,
        functools.partial(in_a_thread, extra=1),
        PlainCallable(),
        functools.partial(PlainCallable()),
        PlainCallable().method,
        lambda context, config: {"thread": threading.get_ident()},
    ],
)
async def test_a_plain_handler_runs_in_a_worker_thread(runner: WorkflowRunner, handler: Any) -> None:
    result = await run_one(runner, handler)
    assert result.error is None
    assert isinstance(result.context.get_output("only", "thread"), int)
    assert result.context.get_output("only", "thread") != threading.get_ident()


async def test_the_loop_keeps_running_while_a_plain_handler_blocks(runner: WorkflowRunner) -> None:
    loop = asyncio.get_running_loop()
    started = anyio.Event()
    release = threading.Event()

    def blocks(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, bool]:
        loop.call_soon_threadsafe(started.set)
        return {"released": release.wait(5)}

    async def on_loop() -> None:
        await started.wait()
        release.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(on_loop)
        result = await run_one(runner, blocks)
    assert result.context.get_output("only") == {"released": True}


async def test_a_plain_handler_sees_the_callers_context_variables(runner: WorkflowRunner) -> None:
    def reads(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, str]:
        return {"tenant": tenant.get()}

    token = tenant.set("acme")
    try:
        result = await run_one(runner, reads)
    finally:
        tenant.reset(token)
    assert result.context.get_output("only", "tenant") == "acme"


async def test_an_async_handler_sees_the_callers_context_variables(runner: WorkflowRunner) -> None:
    async def reads(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, str]:
        return {"tenant": tenant.get()}

    token = tenant.set("acme")
    try:
        result = await run_one(runner, reads)
    finally:
        tenant.reset(token)
    assert result.context.get_output("only", "tenant") == "acme"


async def test_the_default_executor_of_the_loop_is_left_alone(runner: WorkflowRunner) -> None:
    submitted = []

    class Watched(ThreadPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Any:
            submitted.append(args)
            return super().submit(*args, **kwargs)

    with Watched(1) as executor:
        asyncio.get_running_loop().set_default_executor(executor)
        result = await run_one(runner, in_a_thread)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    assert result.status == "completed"
    assert submitted == []


async def test_the_handler_receives_its_config(runner: WorkflowRunner) -> None:
    async def reads(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"limit": config["limit"], "where": context.step_name}

    result = await run_one(runner, reads, {"limit": 7})
    assert result.context.get_output("only") == {"limit": 7, "where": "only"}


@pytest.mark.parametrize(
    ("returned", "output"),
    [
        (StepResult.ok({"a": 1}), {"a": 1}),
        ({"a": 1}, {"a": 1}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        ({}, {}),
        (Price(symbol="X", cents=5), {"symbol": "X", "cents": 5}),
        (Count(rows=3), {"rows": 3}),
    ],
)
@pytest.mark.parametrize("kind", ["async def", "def"])
async def test_what_a_handler_may_return(runner: WorkflowRunner, kind: str, returned: Any, output: Any) -> None:
    async def coroutine(context: WorkflowContext, config: Mapping[str, Any]) -> Any:
        return returned

    def plain(context: WorkflowContext, config: Mapping[str, Any]) -> Any:
        return returned

    result = await run_one(runner, coroutine if kind == "async def" else plain)
    assert result.status == "completed"
    assert result.context.get_output("only") == output
    assert result.completed_steps == ["only"]


async def test_a_handler_may_return_nothing(runner: WorkflowRunner) -> None:
    result = await run_one(runner, lambda context, config: None)
    assert result.status == "completed"
    assert result.completed_steps == ["only"]
    assert not result.context.get_output("only")


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ([1, 2], "list"),
        ("hunter2", "str"),
        (42, "int"),
        (True, "bool"),
        (frozenset(), "frozenset"),
        (b"hunter2", "bytes"),
        (object(), "object"),
        ((1,), "tuple"),
        (Price, "Price|ModelMetaclass|type|class"),
        (Count, "Count|type|class"),
    ],
)
async def test_a_wrong_return_type_is_a_configuration_failure(runner: WorkflowRunner, returned: Any, said: str) -> None:
    async def wrong(context: WorkflowContext, config: Mapping[str, Any]) -> Any:
        return returned

    result = await run_one(runner, wrong)
    assert result.status == "failed"
    assert result.error_step == "only"
    assert result.error_category == "CONFIGURATION"
    assert re.search(said, result.error)
    assert "hunter2" not in result.error


async def test_which_kind_a_handler_is_was_settled_when_it_was_built(runner: WorkflowRunner) -> None:
    pending = on_the_loop(None, {})  # type: ignore[arg-type]
    result = await run_one(runner, lambda context, config: pending)
    pending.close()
    assert result.error_category == "CONFIGURATION"
    assert "coroutine" in result.error
