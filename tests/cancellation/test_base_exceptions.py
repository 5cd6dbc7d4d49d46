"""Exceptions of user code that are no `Exception`: the step fails, in every place that calls user code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Annotated, Any

import anyio
import pytest
from pydantic import AfterValidator, BaseModel, create_model

from spine_async import RetryPolicy, RunStatus, Step, StepFunction, StepResult, Workflow, WorkflowContext
from tests.cancellation.conftest import MakeRunner

pytestmark = pytest.mark.anyio

Config = Mapping[str, Any]


class Own(BaseException):
    """An exception of a user's own."""


def nested() -> BaseException:
    return BaseExceptionGroup("outer", [BaseExceptionGroup("inner", [Own("own"), GeneratorExit()])])


MAKERS: list[Callable[[], BaseException]] = [Own, GeneratorExit, asyncio.CancelledError, nested]


class Items:
    """An asynchronous iterator that raises while it is read or closed, or while it is read the second time."""

    def __init__(self, reading: BaseException | None = None, closing: BaseException | None = None) -> None:
        self._reading = reading
        self._closing = closing
        self._count = 0

    def __aiter__(self) -> AsyncIterator[int]:
        return self

    async def __anext__(self) -> int:
        self._count += 1
        if self._count == 2 and self._reading is not None:
            raise self._reading
        if self._count > 3:
            raise StopAsyncIteration
        return self._count

    async def aclose(self) -> None:
        if self._closing is not None:
            raise self._closing


async def nothing(context: WorkflowContext, config: Config) -> None:
    return None


def raising(make: Callable[[], BaseException]) -> Callable[..., Any]:
    def function(*arguments: Any) -> Any:
        raise make()

    return function


def steps(make: Callable[[], BaseException]) -> dict[str, Step]:
    async def handler(context: WorkflowContext, config: Config) -> None:
        raise make()

    async def once(context: WorkflowContext, config: Config) -> Any:
        return {"value": await context.once("call", raising(make))}

    def generated() -> Iterator[int]:
        yield 1
        raise make()

    fails = raising(make)
    child = Workflow("child", [Step.lambda_("a", handler)])
    return {
        "async": Step.lambda_("odd", handler),
        "thread": Step.lambda_("odd", fails),
        "timeout": Step.lambda_("odd", handler, timeout=9),
        "once": Step.lambda_("odd", once),
        "condition": Step.choice("odd", fails, "after", "after"),
        "until": Step.wait("odd", until=fails),
        "item": Step.map("odd", items=[1, 2], iterator=handler),
        "items": Step.map("odd", items=fails, iterator=nothing),
        "generator": Step.map("odd", items=lambda context: generated(), iterator=nothing),
        "reading": Step.map("odd", items=lambda context: Items(reading=make()), iterator=nothing),
        "closing": Step.map("odd", items=lambda context: Items(closing=make()), iterator=nothing),
        "limit": Step.map("odd", items=[1], iterator=nothing, max_concurrency=fails),
        "branch": Step.parallel("odd", {"a": handler, "b": nothing}),
        "branch with items": Step.parallel(
            "odd", {"a": [Step.map("m", items=lambda context: Items(reading=make()), iterator=nothing)]}
        ),
        "child": Step.workflow("odd", child),
        "params": Step.workflow("odd", child, fails),
    }


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("place", sorted(steps(Own)))
async def test_the_step_fails_and_the_worker_goes_on(
    make_runner: MakeRunner, place: str, make: Callable[[], BaseException]
) -> None:
    odd = Workflow("odd", [steps(make)[place], Step.lambda_("after", nothing)])
    fine = Workflow("fine", [Step.lambda_("a", nothing)])
    async with make_runner([odd, fine], work=True) as runner:
        result = await (await runner.enqueue(odd)).result(timeout=60)
        assert (result.status, result.error_step, result.failed_steps) == ("failed", "odd", ["odd"])
        assert result.error
        assert (await (await runner.start(fine)).result(timeout=60)).status == "completed"


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
async def test_middleware(make_runner: MakeRunner, make: Callable[[], BaseException]) -> None:
    async def middleware(step: Step, context: WorkflowContext, next_fn: StepFunction) -> StepResult:
        await next_fn(step, context)
        raise make()

    runner = make_runner()
    runner.middleware(middleware)
    result = await runner.execute(Workflow("w", [Step.lambda_("odd", nothing)]))
    assert (result.status, result.failed_steps) == ("failed", ["odd"])


@pytest.mark.parametrize("make", [*MAKERS, ValueError], ids=lambda make: make.__name__)
async def test_a_stop_is_not_lost_while_the_items_are_closed(
    make_runner: MakeRunner, make: Callable[[], BaseException]
) -> None:
    async def stops(context: WorkflowContext, config: Config) -> StepResult:
        return StepResult.stop("enough")

    step = Step.map("m", items=lambda context: Items(closing=make()), iterator=stops)
    result = await make_runner().execute(Workflow("w", [step]))
    assert (result.status, result.stop_reason, result.failed_steps) == ("stopped", "enough", [])


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("place", ["handler", "items"])
async def test_a_cancellation_decides_the_outcome(
    make_runner: MakeRunner, place: str, make: Callable[[], BaseException]
) -> None:
    started = anyio.Event()

    async def hangs(context: WorkflowContext, config: Config) -> None:
        started.set()
        try:
            await anyio.sleep_forever()
        finally:
            if place == "handler":
                raise make()

    closing = make() if place == "items" else None
    step = Step.map("m", items=lambda context: Items(closing=closing), iterator=hangs)
    workflow = Workflow("w", [step if place == "items" else Step.lambda_("m", hangs)])
    async with make_runner([workflow]) as runner:
        handle = await runner.start(workflow)
        await started.wait()
        await handle.stop("why")
        result = await handle.result(timeout=60)
        assert (result.status, result.stop_reason, result.failed_steps) == ("stopped", "why", [])


class UnprintableError(Exception):
    """Its text cannot be formed."""

    def __init__(self, make: Callable[[], BaseException]) -> None:
        self.make = make

    def __str__(self) -> str:
        raise self.make()


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("place", ["handler", "middleware"])
async def test_an_exception_whose_text_cannot_be_formed_is_named(
    make_runner: MakeRunner, place: str, make: Callable[[], BaseException]
) -> None:
    async def handler(context: WorkflowContext, config: Config) -> None:
        if place == "handler":
            raise UnprintableError(make)

    async def middleware(step: Step, context: WorkflowContext, next_fn: StepFunction) -> StepResult:
        result = await next_fn(step, context)
        if place == "middleware":
            raise UnprintableError(make)
        return result

    runner = make_runner()
    runner.middleware(middleware)
    result = await runner.execute(Workflow("w", [Step.lambda_("odd", handler)]), run_id="r")
    assert (result.status, result.error) == ("failed", "UnprintableError")
    assert (await runner.get_run("r")).status is RunStatus.FAILED


class Rows(Mapping[str, Any]):
    """A mapping that cannot be read, as one whose connection is closed."""

    def __init__(self, make: Callable[[], BaseException]) -> None:
        self._make = make

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        raise self._make()

    def __getitem__(self, key: str) -> int:
        raise KeyError(key)


def model_that_raises(make: Callable[[], BaseException]) -> type[BaseModel]:
    def refuse(value: int) -> int:
        raise make()

    return create_model("Answer", n=(Annotated[int, AfterValidator(refuse)], ...))


@pytest.mark.parametrize("make", [*MAKERS, ConnectionError, RecursionError], ids=lambda make: make.__name__)
@pytest.mark.parametrize("place", ["mapping", "validator", "large validator"])
@pytest.mark.parametrize("has_middleware", [False, True])
async def test_a_returned_value_that_raises_fails_its_attempt(
    make_runner: MakeRunner, place: str, make: Callable[[], BaseException], has_middleware: bool
) -> None:
    results: list[StepResult] = []

    async def middleware(step: Step, context: WorkflowContext, next_fn: StepFunction) -> StepResult:
        results.append(await next_fn(step, context))
        return results[-1]

    async def handler(context: WorkflowContext, config: Config) -> object:
        if place == "mapping":
            return Rows(make)
        return {"n": 1, "text": "x" * (1_000_000 if place == "large validator" else 1)}

    runner = make_runner()
    if has_middleware:
        runner.middleware(middleware)
    model = None if place == "mapping" else model_that_raises(make)
    retry = RetryPolicy(2, initial_delay=0, retryable_errors=lambda error: True)
    step = Step.lambda_("odd", handler, output_model=model, retry=retry)
    result = await runner.execute(Workflow("w", [step]))
    assert (result.status, result.failed_steps) == ("failed", ["odd"])
    assert str(result.error).startswith("step 'odd' returned a value that cannot be stored: ")
    assert "changed while" not in str(result.error)
    assert result.error_category == ("TRANSIENT" if make is ConnectionError else "INTERNAL")
    assert result.step_metrics[0].attempts == 2
    assert [each.success for each in results] == [False] * has_middleware


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
async def test_a_retry_predicate_hides_no_error(make_runner: MakeRunner, make: Callable[[], BaseException]) -> None:
    def predicate(error: BaseException) -> bool:
        raise make()

    async def fails(context: WorkflowContext, config: Config) -> None:
        raise ValueError("the reason")

    policy = RetryPolicy(2, initial_delay=0, retryable_errors=predicate)
    result = await make_runner().execute(Workflow("w", [Step.lambda_("odd", fails, retry=policy)]))
    assert result.status == "failed"
    assert str(result.error).startswith("ValueError: the reason; the retry predicate ")
