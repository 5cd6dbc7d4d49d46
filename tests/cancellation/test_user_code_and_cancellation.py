"""User code that raises or returns something of its own while it is cancelled: the cancellation decides the outcome."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import anyio
import pytest

from spine_async import RetryPolicy, Step, StepResult, Workflow, WorkflowContext, WorkflowRunner
from spine_async.storage import MemoryRunStore
from tests.cancellation.conftest import MakeRunner
from tests.cancellation.user_code import (
    BODIES,
    CASES,
    MIDDLEWARE,
    SHAPES,
    Config,
    CustomCancellation,
    CustomInterrupt,
    Scene,
    resumed,
    settled,
)

pytestmark = pytest.mark.anyio


@pytest.mark.pairs
@pytest.mark.parametrize(("middleware", "body", "shape"), CASES)
@pytest.mark.parametrize("how", ["stop", "leave", "cancel", "run_timeout"])
async def test_a_run_that_is_cancelled_is_stored_as_the_cancellation_says(
    make_runner: MakeRunner, middleware: str, body: str, shape: str, how: str
) -> None:
    runner = make_runner(drain_timeout=1, cancel_grace=30, workflow_timeout=5 if how == "run_timeout" else None)
    runner.middleware(MIDDLEWARE[middleware])
    scene = Scene(BODIES[body], shape)
    async with runner:
        task = asyncio.create_task(runner.execute(scene.workflow(), run_id="r"))
        await scene.started.wait()
        await anyio.sleep(1)
        if how == "stop":
            await runner.stop("r", "enough")
        elif how == "cancel":
            task.cancel()
        elif how == "run_timeout":
            await asyncio.wait([task])
    if how == "cancel":
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        result = await task
        received = {"stop": ("stopped", "enough"), "leave": ("stopped", "shutdown"), "run_timeout": ("failed", None)}
        assert (result.status, result.stop_reason) == received[how]
    run = await runner.get_run("r")
    wanted = {
        "stop": ("stopped", "enough", None),
        "leave": ("pending", None, None),
        "cancel": ("stopped", "cancelled", None),
        "run_timeout": ("failed", None, "TIMEOUT"),
    }
    assert (run.status, run.stop_reason, run.error_category) == wanted[how]
    assert await settled(runner) == ["before"]
    result = await resumed(make_runner(), scene)
    assert (result.status, result.failed_steps) == ("completed", [])


@pytest.mark.pairs
@pytest.mark.parametrize(("middleware", "body", "shape"), CASES)
async def test_a_step_timeout_has_its_category_whatever_the_handler_raises(
    make_runner: MakeRunner, middleware: str, body: str, shape: str
) -> None:
    runner = make_runner(cancel_grace=30)
    runner.middleware(MIDDLEWARE[middleware])
    scene = Scene(BODIES[body], shape, timeout=2, on_error="stop")
    result = await runner.execute(scene.workflow(), run_id="r")
    assert (result.status, result.error_category) == ("failed", "TIMEOUT")
    assert "step 'hang' timed out after 2 s" in str(result.error)
    assert (await resumed(make_runner(), scene)).status == "completed"


@pytest.mark.parametrize(("middleware", "body"), sorted({(middleware, body) for middleware, body, _ in CASES}))
async def test_the_failure_of_a_sibling_decides_the_outcome_of_a_map(
    make_runner: MakeRunner, middleware: str, body: str
) -> None:
    runner = make_runner(cancel_grace=30)
    runner.middleware(MIDDLEWARE[middleware])
    scene = Scene(BODIES[body], "plain")
    failing = True

    async def each(context: WorkflowContext, config: Config) -> object:
        if context.params["item"] == 0:
            return await scene.handler(context, config)
        await scene.started.wait()
        return StepResult.fail("broken", "DATA_QUALITY") if failing else {}

    item = Workflow(steps=[Step.lambda_("step", each, on_error="stop")])
    inner = Workflow(steps=[Step.map("inner", items=[0, 1], iterator=item)])
    flow = Workflow("w", [Step.map("outer", items=[0], iterator=inner)])
    result = await runner.execute(flow, run_id="r")
    assert (result.status, result.error_category, result.error_step) == ("failed", "DATA_QUALITY", "outer")
    assert "inner[0]" not in " ".join(await settled(runner))
    failing, scene.is_over = False, True
    assert (await make_runner().resume("r", workflow=flow)).status == "completed"
    assert scene.runs == 2


@pytest.mark.parametrize("middleware", ["no_middleware", "opens_asyncio_group", "opens_anyio_group", "own_task"])
@pytest.mark.parametrize("error", [CustomInterrupt("mine"), CustomCancellation("mine")], ids=["interrupt", "cancelled"])
@pytest.mark.parametrize("shape", SHAPES)
async def test_an_exception_of_the_users_own_is_a_failure_of_its_step(
    make_runner: MakeRunner, middleware: str, error: BaseException, shape: str
) -> None:
    async def raises() -> None:
        raise error

    runner = make_runner()
    runner.middleware(MIDDLEWARE[middleware])
    result = await runner.execute(Scene(raises, shape, on_error="stop").workflow(), run_id="r")
    assert (result.status, result.error_category) == ("failed", "INTERNAL")
    tolerated = await runner.execute(Scene(raises, shape).workflow())
    assert (tolerated.status, tolerated.completed_steps[-1]) == ("completed", "after")


@pytest.mark.parametrize("middleware", ["opens_asyncio_group", "opens_asyncio_group_around", "own_task"])
async def test_no_attempt_follows_once_the_run_is_cancelled(make_runner: MakeRunner, middleware: str) -> None:
    runner = make_runner()
    runner.middleware(MIDDLEWARE[middleware])
    scene = Scene(BODIES["asyncio_group"], "plain")
    retry = RetryPolicy(max_attempts=5, initial_delay=0, retryable_errors=("TRANSIENT", "INTERNAL"))
    flow = Workflow("w", [Step.lambda_("hang", scene.handler, retry=retry)])
    task = asyncio.create_task(runner.execute(flow, run_id="r"))
    await scene.started.wait()
    await runner.stop("r", "enough")
    result = await task
    assert (result.status, result.stop_reason, scene.runs) == ("stopped", "enough", 1)


@pytest.mark.parametrize("body", sorted(BODIES.keys() - {"uncancels"}))  # withdrawn by its own handler
@pytest.mark.parametrize("shape", SHAPES)
def test_an_event_loop_that_ends_leaves_a_run_that_goes_on(body: str, shape: str) -> None:
    """`asyncio.run` cancels all tasks natively, those of the runs too."""
    store, scene = MemoryRunStore(), Scene(BODIES[body], shape)

    async def serve() -> None:
        runner = WorkflowRunner(store=store)
        _tasks.append(asyncio.create_task(runner.execute(scene.workflow(), run_id="r")))
        await scene.started.wait()

    asyncio.run(serve())

    async def later() -> None:
        runner = WorkflowRunner(store=store)
        run = await runner.get_run("r")
        assert (run.status, run.stop_reason) == ("pending", None)
        assert await settled(runner) == ["before"]
        assert (await resumed(runner, scene)).status == "completed"

    if body == "shielded_cleanup_fails":
        scene.body = BODIES["value_error"]
    asyncio.run(later())


_tasks: list[Any] = []


async def test_what_was_raised_is_logged_with_its_step(
    make_runner: MakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    runner, scene = make_runner(), Scene(BODIES["asyncio_group"], "item")
    task = asyncio.create_task(runner.execute(scene.workflow(), run_id="r"))
    await scene.started.wait()
    await runner.stop("r")
    await task
    (record,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert "run r: step each[0]/hang raised ExceptionGroup while it was being cancelled" in record.getMessage()
    assert "the rollback failed" in str(record.exc_text or record.exc_info)


@pytest.mark.parametrize("way", ["anyio", "asyncio"])
@pytest.mark.parametrize("body", ["behaves", "asyncio_group", "value_error", "returns_a_failure"])
async def test_middleware_may_time_out_an_attempt_by_itself(make_runner: MakeRunner, way: str, body: str) -> None:
    async def limits(step: Step, context: WorkflowContext, next_fn: Any) -> Any:
        with contextlib.suppress(TimeoutError, ExceptionGroup, ValueError):
            if way == "anyio":
                with anyio.move_on_after(2):
                    return await next_fn(step, context)
            else:
                async with asyncio.timeout(2):
                    return await next_fn(step, context)
        return StepResult.ok({"by": "middleware"})

    runner = make_runner()
    runner.middleware(limits)
    scene = Scene(BODIES[body], "plain")
    result = await runner.execute(scene.workflow(), run_id="r")
    assert (result.status, anyio.current_time()) == ("completed", 2)
    assert result.context.get_output("hang") == {"by": "middleware"}
