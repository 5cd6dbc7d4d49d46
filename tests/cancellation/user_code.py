"""User code that reacts to its cancellation in many ways: bodies of handlers, middleware, and workflows around them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio

from spine_async import Step, StepError, StepResult, Workflow, WorkflowContext, WorkflowResult, WorkflowRunner

Config = Mapping[str, object]
Cleanup = Callable[[], Awaitable[object]]


class CustomInterrupt(BaseException):
    """An exception of a user's own that `except Exception` does not catch."""


class CustomCancellation(asyncio.CancelledError):
    """An exception of a user's own that looks like a cancellation."""


async def rollback_fails() -> None:
    try:
        await anyio.sleep_forever()
    finally:
        raise ConnectionResetError("the rollback failed")


async def asyncio_group() -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(rollback_fails())
        await anyio.sleep_forever()


async def anyio_group() -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rollback_fails)
        await anyio.sleep_forever()


async def nested_groups() -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(anyio_group())
        tasks.create_task(asyncio_group())
        await anyio.sleep_forever()


async def gathered() -> None:
    await asyncio.gather(rollback_fails(), rollback_fails())


def replaces_by(error: BaseException) -> Cleanup:
    async def clean_up() -> None:
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            raise error from None

    return clean_up


async def shielded_cleanup_fails() -> None:
    try:
        await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(1)
        raise OSError("the cleanup failed")


async def returns_a_failure() -> object:
    try:
        await anyio.sleep_forever()
    except BaseException as exc:
        return StepResult.fail(exc, "DEPENDENCY")
    return None


async def returns_a_stop() -> object:
    try:
        await anyio.sleep_forever()
    except asyncio.CancelledError:
        return StepResult.stop("of the handler's own")
    return None


async def returns_rubbish() -> object:
    try:
        await anyio.sleep_forever()
    except asyncio.CancelledError:
        return object()
    return None


async def fails_with_a_timeout() -> None:
    async with asyncio.timeout(50):
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            raise TimeoutError("of the handler's own") from None


async def uncancels_its_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    try:
        await anyio.sleep_forever()
    except asyncio.CancelledError:
        task.uncancel()
        raise ValueError("after uncancel()") from None


async def behaves() -> None:
    await anyio.sleep_forever()


BODIES: dict[str, Cleanup] = {
    "behaves": behaves,
    "asyncio_group": asyncio_group,
    "anyio_group": anyio_group,
    "nested_groups": nested_groups,
    "gathered": gathered,
    "value_error": replaces_by(ValueError("in the cleanup")),
    "step_error": replaces_by(StepError("in the cleanup", "TRANSIENT", retry_after=0)),
    "custom_interrupt": replaces_by(CustomInterrupt("in the cleanup")),
    "custom_cancellation": replaces_by(CustomCancellation("in the cleanup")),
    "another_cancellation": replaces_by(asyncio.CancelledError("in the cleanup")),
    "group_of_interrupts": replaces_by(BaseExceptionGroup("g", [CustomInterrupt(), asyncio.CancelledError()])),
    "shielded_cleanup_fails": shielded_cleanup_fails,
    "returns_a_failure": returns_a_failure,
    "returns_a_stop": returns_a_stop,
    "returns_rubbish": returns_rubbish,
    "own_timeout": fails_with_a_timeout,
    "uncancels": uncancels_its_task,
}


async def no_middleware(step: Step, context: WorkflowContext, next_fn: Any) -> Any:
    return await next_fn(step, context)


async def opens_asyncio_group(step: Step, context: WorkflowContext, next_fn: Any) -> Any:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(anyio.lowlevel.checkpoint())
        return await tasks.create_task(next_fn(step, context))


async def opens_asyncio_group_around(step: Step, context: WorkflowContext, next_fn: Any) -> Any:
    async with asyncio.TaskGroup() as tasks:
        beside = tasks.create_task(anyio.sleep_forever())
        result = await next_fn(step, context)
        beside.cancel()
        return result


async def opens_anyio_group(step: Step, context: WorkflowContext, next_fn: Any) -> Any:
    results = []

    async def call() -> None:
        results.append(await next_fn(step, context))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
    return results[0]


async def catches_all_and_fails(step: Step, context: WorkflowContext, next_fn: Any) -> Any:
    try:
        return await next_fn(step, context)
    except BaseException as exc:
        return StepResult.fail(exc, "TRANSIENT")


async def catches_all_and_succeeds(step: Step, context: WorkflowContext, next_fn: Any) -> Any:
    try:
        return await next_fn(step, context)
    except BaseException:
        return StepResult.ok({"by": "middleware"})


async def catches_all_and_raises(step: Step, context: WorkflowContext, next_fn: Any) -> Any:
    try:
        return await next_fn(step, context)
    except BaseException:
        raise ValueError("by middleware") from None


async def catches_all_and_interrupts(step: Step, context: WorkflowContext, next_fn: Any) -> Any:
    try:
        return await next_fn(step, context)
    except BaseException:
        raise CustomInterrupt from None


async def tries_again(step: Step, context: WorkflowContext, next_fn: Any) -> Any:
    with contextlib.suppress(BaseException):
        return await next_fn(step, context)
    return await next_fn(step, context)


async def own_task(step: Step, context: WorkflowContext, next_fn: Any) -> Any:
    return await asyncio.create_task(next_fn(step, context))


MIDDLEWARE: dict[str, Any] = {
    function.__name__: function
    for function in (
        no_middleware,
        opens_asyncio_group,
        opens_asyncio_group_around,
        opens_anyio_group,
        catches_all_and_fails,
        catches_all_and_succeeds,
        catches_all_and_raises,
        catches_all_and_interrupts,
        tries_again,
        own_task,
    )
}
FEW_BODIES = ("behaves", "asyncio_group", "value_error", "custom_interrupt", "returns_a_failure")
SHAPES = ("plain", "item", "nested")
CASES = [
    *(("no_middleware", body, shape) for body in BODIES for shape in SHAPES),
    *((name, body, shape) for name in MIDDLEWARE if name != "no_middleware" for body in FEW_BODIES for shape in SHAPES),
]


@dataclass
class Scene:
    """A workflow whose step waits in `body`, in one of the shapes.

    Attributes:
        started: Set once the step executes.
        is_over: The body is not executed any more.
        runs: How often the step was executed.
    """

    body: Cleanup
    shape: str
    timeout: float | None = None
    on_error: Any = "continue"
    started: anyio.Event = field(default_factory=anyio.Event)
    is_over: bool = False
    runs: int = 0

    async def handler(self, context: WorkflowContext, config: Config) -> object:
        self.runs += 1
        self.started.set()
        if self.is_over:
            return {"done": True}
        return await self.body()

    def workflow(self) -> Workflow:
        step: Step = Step.lambda_("hang", self.handler, timeout=self.timeout, on_error=self.on_error)
        for name in {"plain": (), "item": ("each",), "nested": ("inner", "each")}[self.shape]:
            step = Step.map(name, items=[1], iterator=Workflow(steps=[step]), on_error=self.on_error)
        return Workflow("w", [Step.lambda_("before", nothing), step, Step.lambda_("after", nothing)])

    @property
    def last_step(self) -> str:
        return "hang" if self.shape == "plain" else "each"


async def nothing(context: WorkflowContext, config: Config) -> None:
    return None


async def settled(runner: WorkflowRunner) -> list[str]:
    """Paths of the steps that have a checkpoint or an event that says that they ended."""
    ends = ("step_completed", "step_failed", "step_skipped", "map_item_failed", "map_item_completed")
    return [str(event.path) async for event in runner.events("r") if event.event_type in ends]


async def resumed(runner: WorkflowRunner, scene: Scene) -> WorkflowResult:
    runs, scene.is_over = scene.runs, True
    result = await runner.resume("r", workflow=scene.workflow())
    assert scene.runs == runs + 1
    return result
