"""Retries of a step: when, how often, and the context of each attempt."""

import time
from collections.abc import Mapping
from typing import Any

import anyio
import pytest

from spine_async import (
    ErrorCategory,
    ErrorPolicy,
    RetryPolicy,
    Step,
    StepError,
    StepResult,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
    WorkflowRunnerConfig,
)

pytestmark = pytest.mark.anyio


def at_once(**settings: Any) -> RetryPolicy:
    return RetryPolicy(**{"initial_delay": 0, "jitter": False, **settings})


class Failing:
    """A handler that fails `times` times, by raising or returning `failure`, and then succeeds."""

    def __init__(self, times: int, failure: Any) -> None:
        self.times = times
        self.failure = failure
        self.contexts: list[WorkflowContext] = []
        self.moments: list[float] = []

    @property
    def calls(self) -> int:
        return len(self.contexts)

    @property
    def gaps(self) -> list[float]:
        return [after - before for before, after in zip(self.moments, self.moments[1:], strict=False)]

    async def __call__(self, context: WorkflowContext, config: Mapping[str, Any]) -> Any:
        self.contexts.append(context)
        self.moments.append(time.monotonic())
        if self.calls > self.times:
            return {"calls": self.calls}
        if isinstance(self.failure, Exception):
            raise self.failure
        return self.failure


def workflow_of(handler: Any, **options: Any) -> Workflow:
    return Workflow("w", [Step.lambda_("flaky", handler, **options)])


async def test_without_a_policy_a_step_is_tried_once(runner: WorkflowRunner) -> None:
    handler = Failing(1, ConnectionError("gone"))
    result = await runner.execute(workflow_of(handler))
    assert (result.status, handler.calls) == ("failed", 1)


@pytest.mark.parametrize("on_error", [ErrorPolicy.STOP, ErrorPolicy.RETRY, ErrorPolicy.CONTINUE])
async def test_a_policy_applies_whenever_it_is_set(runner: WorkflowRunner, on_error: ErrorPolicy) -> None:
    handler = Failing(2, ConnectionError("gone"))
    result = await runner.execute(workflow_of(handler, on_error=on_error, retry=at_once(max_attempts=3)))
    assert (result.status, handler.calls) == ("completed", 3)
    assert result.failed_steps == []
    assert result.context.get_output("flaky") == {"calls": 3}


@pytest.mark.parametrize(
    ("on_error", "status"),
    [(ErrorPolicy.STOP, "failed"), (ErrorPolicy.RETRY, "failed"), (ErrorPolicy.CONTINUE, "completed")],
)
async def test_once_attempts_are_used_up(runner: WorkflowRunner, on_error: ErrorPolicy, status: str) -> None:
    handler = Failing(99, ConnectionError("gone"))
    result = await runner.execute(workflow_of(handler, on_error=on_error, retry=at_once(max_attempts=4)))
    assert (result.status, handler.calls) == (status, 4)
    assert result.failed_steps == ["flaky"]
    assert [metric.attempts for metric in result.step_metrics] == [4]


async def test_one_attempt_is_no_retry(runner: WorkflowRunner) -> None:
    handler = Failing(1, ConnectionError("gone"))
    result = await runner.execute(workflow_of(handler, retry=at_once(max_attempts=1)))
    assert (result.status, handler.calls) == ("failed", 1)


async def test_on_error_retry_uses_the_default_policy_of_the_runner(make_runner: Any) -> None:
    runner = make_runner(config=WorkflowRunnerConfig(default_retry_policy=at_once(max_attempts=5)))
    handler = Failing(99, ConnectionError("gone"))
    await runner.execute(workflow_of(handler, on_error=ErrorPolicy.RETRY))
    assert handler.calls == 5


async def test_the_policy_of_the_step_wins_over_the_default(make_runner: Any) -> None:
    runner = make_runner(config=WorkflowRunnerConfig(default_retry_policy=at_once(max_attempts=5)))
    handler = Failing(99, ConnectionError("gone"))
    await runner.execute(workflow_of(handler, on_error=ErrorPolicy.RETRY, retry=at_once(max_attempts=2)))
    assert handler.calls == 2


@pytest.mark.parametrize(
    ("failure", "calls"),
    [
        (ConnectionError("gone"), 2),
        (TimeoutError("late"), 2),
        (StepResult.fail("busy", category="TRANSIENT"), 2),
        (StepResult.fail("late", category=ErrorCategory.TIMEOUT), 2),
        (StepError("busy", category="TRANSIENT"), 2),
        (ValueError("bad"), 1),
        (StepResult.fail("odd"), 1),
        (StepResult.fail("odd", category="DATA_QUALITY"), 1),
        (StepError("down", category="DEPENDENCY"), 1),
        ("not a result", 1),
    ],
)
async def test_what_is_retried_by_default(runner: WorkflowRunner, failure: Any, calls: int) -> None:
    handler = Failing(1, failure)
    await runner.execute(workflow_of(handler, retry=at_once()))
    assert handler.calls == calls


@pytest.mark.parametrize(
    ("retryable", "failure", "calls"),
    [
        (["DEPENDENCY"], StepError("down", category="DEPENDENCY"), 2),
        (["DEPENDENCY"], ConnectionError("gone"), 1),
        ((ErrorCategory.INTERNAL,), ValueError("bad"), 2),
        ((KeyError,), KeyError("k"), 2),
        ((LookupError,), KeyError("k"), 2),
        ((KeyError,), ValueError("bad"), 1),
        ((KeyError, "TRANSIENT"), ConnectionError("gone"), 2),
        (lambda failure: True, ValueError("bad"), 2),
        (lambda failure: False, ConnectionError("gone"), 1),
        ((), ConnectionError("gone"), 1),
    ],
)
async def test_what_is_retried_on_request(
    runner: WorkflowRunner, retryable: Any, failure: Exception, calls: int
) -> None:
    handler = Failing(1, failure)
    await runner.execute(workflow_of(handler, retry=at_once(retryable_errors=retryable)))
    assert handler.calls == calls


@pytest.mark.parametrize(
    ("backoff", "least"),
    [
        ("constant", [0.004, 0.004, 0.004]),
        ("linear", [0.004, 0.008, 0.012]),
        ("exponential", [0.004, 0.008, 0.016]),
    ],
)
async def test_the_delays_are_never_shorter(runner: WorkflowRunner, backoff: str, least: list[float]) -> None:
    handler = Failing(3, ConnectionError("gone"))
    policy: Any = {"max_attempts": 4, "initial_delay": 0.004, "jitter": False, "backoff": backoff}
    result = await runner.execute(workflow_of(handler, retry=RetryPolicy(**policy)))
    assert result.status == "completed"
    clock = 0.0015  # timers of an event loop may fire this much too early
    assert all(gap >= wanted - clock for gap, wanted in zip(handler.gaps, least, strict=True)), handler.gaps


async def test_constant_delays_do_not_grow(runner: WorkflowRunner) -> None:
    """Sixteen retries would take 33 seconds if the delay doubled."""
    handler = Failing(16, ConnectionError("gone"))
    policy = RetryPolicy(max_attempts=17, initial_delay=0.0005, jitter=False, backoff="constant")
    with anyio.fail_after(10):
        result = await runner.execute(workflow_of(handler, retry=policy))
    assert result.status == "completed"


@pytest.mark.parametrize("backoff", ["constant", "linear", "exponential"])
@pytest.mark.parametrize("jitter", [True, False])
async def test_no_delay_is_above_the_maximum(runner: WorkflowRunner, backoff: Any, jitter: bool) -> None:
    handler = Failing(2, ConnectionError("gone"))
    policy = RetryPolicy(initial_delay=60, max_delay=0.002, jitter=jitter, backoff=backoff)
    with anyio.fail_after(10):
        result = await runner.execute(workflow_of(handler, retry=policy))
    assert (result.status, handler.calls) == ("completed", 3)
    if not jitter:
        assert min(handler.gaps) >= 0.0005


async def test_jitter_shortens_delays(runner: WorkflowRunner) -> None:
    handler = Failing(12, ConnectionError("gone"))
    policy = RetryPolicy(max_attempts=13, initial_delay=0.05, backoff="constant")
    await runner.execute(workflow_of(handler, retry=policy))
    assert min(handler.gaps) < 0.05


async def test_a_failure_may_say_when_to_try_again(runner: WorkflowRunner) -> None:
    handler = Failing(1, StepResult.fail("busy", category="TRANSIENT", retry_after=0.01))
    await runner.execute(workflow_of(handler, retry=at_once()))
    assert handler.calls == 2
    assert handler.gaps[0] >= 0.0085


async def test_retry_after_shortens_a_long_delay(runner: WorkflowRunner) -> None:
    handler = Failing(1, StepResult.fail("busy", category="TRANSIENT", retry_after=0))
    with anyio.fail_after(10):
        await runner.execute(workflow_of(handler, retry=RetryPolicy(initial_delay=60, jitter=False)))
    assert handler.calls == 2


async def test_the_context_of_an_attempt(runner: WorkflowRunner) -> None:
    handler = Failing(2, ConnectionError("gone"))
    result = await runner.execute(workflow_of(handler, retry=at_once()))
    attempts = [context.attempt for context in handler.contexts]
    assert [attempt - attempts[0] for attempt in attempts] == [0, 1, 2]
    assert len({context.idempotency_key for context in handler.contexts}) == 1
    assert [metric.attempts for metric in result.step_metrics] == [3]


async def test_a_plain_handler_is_retried_too(runner: WorkflowRunner) -> None:
    calls = []

    def flaky(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, int]:
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionResetError("by peer")
        return {"calls": len(calls)}

    result = await runner.execute(workflow_of(flaky, retry=at_once()))
    assert result.context.get_output("flaky") == {"calls": 3}


async def test_a_map_that_is_tried_again_runs_only_the_items_that_had_not_finished(runner: WorkflowRunner) -> None:
    calls = []

    async def handler(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, int]:
        item = context.params["item"]
        calls.append(item)
        if item == 2 and calls.count(2) == 1:
            raise ConnectionError("gone")
        return {"item": item}

    retry = at_once(retryable_errors=tuple(ErrorCategory))
    step = Step.map("each", items=[0, 1, 2, 3], iterator=handler, max_concurrency=1, retry=retry)
    result = await runner.execute(Workflow("w", [step]))
    assert result.status == "completed"
    assert calls == [0, 1, 2, 2, 3]
    assert result.context.get_output("each", "results") == [{"item": n} for n in range(4)]
