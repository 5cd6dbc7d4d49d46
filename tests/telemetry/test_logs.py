"""The filter that puts run and step on each log record of a handler."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import anyio
import pytest

from spine_async import LocalDispatcher, Step, StepResult, Workflow, WorkflowContext
from spine_async.telemetry import RunContextFilter
from spine_async.telemetry.log_context import Use
from tests.service.places import Place
from tests.telemetry.conftest import Telemetry

pytestmark = pytest.mark.anyio

log = logging.getLogger("app.orders")


class Lines(logging.Handler):
    """Keeps formatted records."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.addFilter(RunContextFilter())
        self.setFormatter(logging.Formatter("%(run_id)s %(step_path)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    logger = logging.getLogger("app")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    Use.is_needed = False


@pytest.mark.parametrize("is_traced", [True, False])
async def test_records_name_the_run_and_the_step(
    memory: Place, telemetry: Telemetry, lines: Lines, *, is_traced: bool
) -> None:
    dispatcher = LocalDispatcher()

    async def handler(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        async def child() -> None:
            log.info("task")

        log.info("async")
        async with anyio.create_task_group() as group:
            group.start_soon(child)

    def thread(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        log.info("thread")

    @dispatcher.pipeline("load")
    def load(params: Mapping[str, Any]) -> dict[str, Any]:
        log.info("pipeline")
        return {}

    async def item(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        log.info("item %d", context.params["item"])

    steps = [
        Step.lambda_("handler", handler),
        Step.lambda_("thread", thread),
        Step.pipeline("pipeline", "load"),
        Step.map("each", items=[1, 2], max_concurrency=1, iterator=Workflow(steps=[Step.lambda_("inner", item)])),
        Step.lambda_("after", thread),
    ]
    settings: dict[str, Any] = {"dispatcher": dispatcher, "config": {"trace_enabled": is_traced}}
    runner = telemetry.runner(memory, **settings) if is_traced else memory.runner(**settings)
    log.info("before")
    await runner.execute(Workflow("orders", steps), run_id="r-1")
    log.info("after")
    assert lines.texts == [
        "- - before",
        "r-1 handler async",
        "r-1 handler task",
        "r-1 thread thread",
        "r-1 pipeline pipeline",
        "r-1 each[0]/inner item 1",
        "r-1 each[1]/inner item 2",
        "r-1 after thread",
        "- - after",
    ]


async def test_runs_at_the_same_time_are_told_apart(memory: Place, lines: Lines) -> None:
    both = anyio.Event()
    waiting: list[str] = []

    async def meet(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        waiting.append(context.run_id)
        if len(waiting) == 2:
            both.set()
        await both.wait()
        log.info("met %s", context.run_id)

    runner = memory.runner()
    flow = Workflow("orders", [Step.lambda_("meet", meet)])
    async with anyio.create_task_group() as group:
        for run_id in ("a", "b"):
            group.start_soon(partial(runner.execute, flow, run_id=run_id))
    assert sorted(lines.texts) == ["a meet met a", "b meet met b"]


async def test_a_step_that_executes_another_run_keeps_its_own_place(memory: Place, lines: Lines) -> None:
    runner = memory.runner()

    async def inner(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        log.info("inner")

    async def outer(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        log.info("first")
        await runner.execute(Workflow("other", [Step.lambda_("inner", inner)]), run_id="b")
        log.info("then")

    await runner.execute(Workflow("orders", [Step.lambda_("outer", outer)]), run_id="a")
    assert lines.texts == ["a outer first", "b inner inner", "a outer then"]


async def test_middleware_and_failures(memory: Place, lines: Lines) -> None:
    runner = memory.runner()

    @runner.middleware
    async def look(step: Step, context: WorkflowContext, next_fn: Any) -> StepResult:
        log.info("around")
        result: StepResult = await next_fn(step, context)
        return result

    def raises(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        raise ValueError

    await runner.execute(Workflow("orders", [Step.lambda_("raises", raises)]), run_id="a")
    log.info("after")
    assert lines.texts == ["a raises around", "- - after"]


async def test_without_a_filter_no_step_enters_a_context(memory: Place) -> None:
    observer = memory.runner()._runtime.observer
    step = Step.lambda_("only", lambda context, config: None)
    assert Use.is_needed is False
    assert observer.step("r", "only", step) is observer.step("r", "only", step), "one object serves all steps"
