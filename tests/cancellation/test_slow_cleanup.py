"""Cleanup that takes longer than `cancel_grace` after a step timeout, or after the failure of another item."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import anyio
import pytest

from spine_async import RetryPolicy, Step, StepResult, Workflow, WorkflowContext, WorkflowRunner
from tests.cancellation.conftest import MakeRunner

pytestmark = pytest.mark.anyio

Config = Mapping[str, object]
RETRY = RetryPolicy(max_attempts=2, initial_delay=1, jitter=False, retryable_errors=("TIMEOUT", "DATA_QUALITY"))


class SlowCleanup:
    """A handler whose first attempts hang, and then clean up for a long time."""

    def __init__(self, seconds: float, attempts: int = 1) -> None:
        self.seconds = seconds
        self.attempts = attempts
        self.runs = 0
        self.active = 0
        self.begun = anyio.Event()

    async def __call__(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        assert self.active == 0, "two attempts overlap"
        self.active, self.runs = 1, self.runs + 1
        self.begun.set()
        try:
            if self.runs <= self.attempts:
                await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(self.seconds if self.runs <= self.attempts else 0)
            self.active = 0
        return {"runs": self.runs}


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if "has not ended" in each.getMessage()]


async def test_a_retry_follows_and_each_grace_period_has_one_warning(
    make_runner: MakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    runner, slow = make_runner(cancel_grace=2), SlowCleanup(9)
    flow = Workflow("w", [Step.lambda_("slow", slow, timeout=3, retry=RETRY)])
    result = await runner.execute(flow, run_id="r")
    assert (result.status, result.step_metrics[0].attempts) == ("completed", 2)
    assert anyio.current_time() == pytest.approx(3 + 9 + 1, abs=0.1)
    assert len(warnings(caplog)) == 4  # 2, 4, 6 and 8 seconds after the timeout
    assert all("run r: step 'slow' has not ended" in text for text in warnings(caplog))


async def test_the_run_fails_after_the_grace_where_no_attempt_is_left(make_runner: MakeRunner) -> None:
    runner, slow = make_runner(cancel_grace=2), SlowCleanup(50, attempts=2)
    flow = Workflow("w", [Step.lambda_("slow", slow, timeout=3, retry=RETRY)])
    result = await runner.execute(flow, run_id="r")
    assert (result.status, result.error_category, slow.runs) == ("failed", "TIMEOUT", 2)
    assert anyio.current_time() == pytest.approx(3 + 50 + 1 + 3 + 2, abs=0.6)
    assert "step 'slow' did not end within 2 s" in str(result.error)
    await anyio.sleep(60)


@pytest.mark.parametrize(
    "retry",
    [
        None,
        RetryPolicy(max_attempts=1),
        RetryPolicy(retryable_errors=("TRANSIENT",)),
        RetryPolicy(retryable_errors=lambda error: not isinstance(error, TimeoutError)),
        RetryPolicy(retryable_errors=lambda error: 1 / 0 > 0),
    ],
)
async def test_the_run_fails_after_the_grace_where_a_timeout_is_not_retried(
    make_runner: MakeRunner, retry: RetryPolicy | None
) -> None:
    runner, slow = make_runner(cancel_grace=2), SlowCleanup(50)
    result = await runner.execute(Workflow("w", [Step.lambda_("slow", slow, timeout=3, retry=retry)]))
    assert (result.status, slow.runs) == ("failed", 1)
    assert anyio.current_time() == pytest.approx(5, abs=0.6)
    await anyio.sleep(60)


async def test_a_retry_of_timeout_errors_by_type_follows(make_runner: MakeRunner) -> None:
    runner, slow = make_runner(cancel_grace=2), SlowCleanup(9)
    retry = RetryPolicy(max_attempts=2, initial_delay=0, retryable_errors=(TimeoutError,))
    result = await runner.execute(Workflow("w", [Step.lambda_("slow", slow, timeout=3, retry=retry)]))
    assert (result.status, slow.runs) == ("completed", 2)


async def test_the_next_step_follows_with_on_error_continue(make_runner: MakeRunner) -> None:
    runner, slow = make_runner(cancel_grace=2), SlowCleanup(9)
    steps = [Step.lambda_("slow", slow, timeout=3, on_error="continue"), Step.lambda_("next", slow)]
    result = await runner.execute(Workflow("w", steps))
    assert (result.status, result.failed_steps, result.completed_steps) == ("completed", ["slow"], ["next"])


@pytest.mark.parametrize("how", ["tolerated", "fraction", "retried", "continue", "outer"])
async def test_an_item_with_a_slow_cleanup_is_waited_for_where_the_run_continues(
    make_runner: MakeRunner, how: str
) -> None:
    runner, slow = make_runner(cancel_grace=2), SlowCleanup(9)
    by_name: dict[str, dict[str, Any]] = {
        "tolerated": {"tolerated_failures": 1},
        "fraction": {"tolerated_failures": 1.0},
        "retried": {"retry": RETRY},
        "continue": {"on_error": "continue"},
        "outer": {},
    }
    item = Workflow(steps=[Step.lambda_("slow", slow, timeout=3)])
    step: Step = Step.map("each", items=[0], iterator=item, **by_name[how])
    if how == "outer":
        step = Step.map("outer", items=[0], iterator=Workflow(steps=[step]), retry=RETRY)
    result = await runner.execute(Workflow("w", [step]))
    assert (result.status, slow.runs) == ("completed", 2 if how in {"retried", "outer"} else 1)
    assert anyio.current_time() == pytest.approx(13 if how in {"retried", "outer"} else 12, abs=0.1)


async def test_an_item_beyond_the_tolerated_ones_fails_the_run_after_the_grace(make_runner: MakeRunner) -> None:
    runner, slow = make_runner(cancel_grace=2), SlowCleanup(50)

    async def each(context: WorkflowContext, config: Config) -> object:
        if context.params["item"] == 0:
            return StepResult.fail("first")
        return await slow(context, config)

    step = Step.map("each", items=[0, 1], iterator=Workflow(steps=[Step.lambda_("s", each, timeout=3)]))
    tolerant = Step.map("each", items=[0, 1], iterator=step.item_workflow, tolerated_failures=1)
    result = await runner.execute(Workflow("w", [tolerant]))
    assert (result.status, result.error_step) == ("failed", "each")
    assert anyio.current_time() == pytest.approx(5, abs=0.6)
    await anyio.sleep(60)


def sibling_flow(slow: SlowCleanup, ending: StepResult, **options: Any) -> Workflow:
    fails = [True]

    async def each(context: WorkflowContext, config: Config) -> object:
        if context.params["item"] == 0:
            return await slow(context, config)
        await slow.begun.wait()
        return ending if fails and fails.pop() else {}

    return Workflow("w", [Step.map("each", items=[0, 1], iterator=each, **options)])


@pytest.mark.parametrize("options", [{"retry": RETRY}, {"on_error": "continue"}], ids=["retry", "continue"])
async def test_items_with_a_slow_cleanup_after_a_siblings_failure_are_waited_for(
    make_runner: MakeRunner, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    runner, slow = make_runner(cancel_grace=2), SlowCleanup(9)
    flow = sibling_flow(slow, StepResult.fail("broken", "DATA_QUALITY"), **options)
    result = await runner.execute(flow, run_id="r")
    assert (result.status, slow.runs) == ("completed", 2 if "retry" in options else 1)
    assert len(warnings(caplog)) == 4
    assert "step 'each' has not ended" in warnings(caplog)[0]


async def test_items_that_do_not_end_after_a_siblings_failure_fail_the_run_where_nothing_follows(
    make_runner: MakeRunner,
) -> None:
    runner, slow = make_runner(cancel_grace=2), SlowCleanup(50)
    flow = sibling_flow(slow, StepResult.fail("broken", "INTERNAL"), retry=RETRY)
    result = await runner.execute(flow, run_id="r")
    assert (result.status, result.error_step) == ("failed", "each")
    assert anyio.current_time() == pytest.approx(2, abs=0.6)
    assert "'each[0]/" in str(result.error)
    await anyio.sleep(60)


async def test_a_stop_inside_an_item_keeps_its_reason_although_another_item_does_not_end(
    make_runner: MakeRunner,
) -> None:
    runner, slow = make_runner(cancel_grace=2), SlowCleanup(50)
    result = await runner.execute(sibling_flow(slow, StepResult.stop("enough")), run_id="r")
    assert (result.status, result.stop_reason) == ("stopped", "enough")
    assert anyio.current_time() == pytest.approx(2, abs=0.6)
    await anyio.sleep(60)


async def test_a_stop_is_not_delayed_by_a_cleanup_that_is_waited_for(make_runner: MakeRunner) -> None:
    runner, slow = make_runner(cancel_grace=2), SlowCleanup(1000)
    flow = Workflow("w", [Step.lambda_("slow", slow, timeout=3, retry=RETRY)])
    task = asyncio.create_task(runner.execute(flow, run_id="r"))
    await anyio.sleep(20)
    await runner.stop("r", "enough")
    result = await task
    assert (result.status, result.stop_reason) == ("stopped", "enough")
    assert anyio.current_time() == pytest.approx(22, abs=0.6)
    await anyio.sleep(1000)


async def test_items_of_a_run_that_leaves_a_step_behind_are_cancelled(make_runner: MakeRunner) -> None:
    runner, slow, reasons = make_runner(cancel_grace=2), SlowCleanup(50), list[str | None]()

    async def each(context: WorkflowContext, config: Config) -> object:
        if context.params["item"] == 0:
            return await slow(context, config)
        try:
            await anyio.sleep(40)
        except BaseException:
            reasons.append(context.cancel_reason)
            raise
        return None

    choice = Step.choice("which", lambda context: context.params["item"] == 0, "timed", "free")
    iterator = Workflow(steps=[choice, Step.lambda_("timed", each, timeout=3), Step.lambda_("free", each)])
    flow = Workflow("w", [Step.map("outer", items=[0, 1], iterator=iterator)])
    result = await runner.execute(flow, run_id="r")
    assert (result.status, result.error_step) == ("failed", "outer")
    await anyio.sleep(1)
    assert reasons == ["sibling_failed"]
    await anyio.sleep(60)


class TestConcurrencySlots:
    async def test_a_step_that_is_left_behind_gives_its_slot_to_others(self, make_runner: MakeRunner) -> None:
        runner, slow = make_runner(cancel_grace=2, max_concurrent_steps=1), SlowCleanup(1000)
        flow = Workflow("w", [Step.lambda_("slow", slow, timeout=3)])
        assert (await runner.execute(flow)).status == "failed"
        assert (await runner.execute(quick_flow())).status == "completed"
        assert anyio.current_time() < 7
        await anyio.sleep(1001)  # it ends at last, and releases nothing a second time
        assert await most_at_once(runner) == 1

    @pytest.mark.parametrize("how", ["stop", "cancel"])
    async def test_also_where_the_run_was_cancelled(self, make_runner: MakeRunner, how: str) -> None:
        runner, slow = make_runner(cancel_grace=2, max_concurrent_steps=1), SlowCleanup(1000)
        task = asyncio.create_task(runner.execute(Workflow("w", [Step.lambda_("slow", slow)]), run_id="r"))
        await slow.begun.wait()
        if how == "stop":
            await runner.stop("r")
        else:
            task.cancel()
        await asyncio.wait([task])
        assert (await runner.execute(quick_flow())).status == "completed"
        assert anyio.current_time() < 7
        await anyio.sleep(1001)

    async def test_a_cleanup_that_is_waited_for_keeps_its_slot(self, make_runner: MakeRunner) -> None:
        runner, slow = make_runner(cancel_grace=2, max_concurrent_steps=1), SlowCleanup(20)
        flow = Workflow("w", [Step.lambda_("slow", slow, timeout=3, retry=RETRY)])
        task = asyncio.create_task(runner.execute(flow))
        await slow.begun.wait()
        assert (await runner.execute(quick_flow())).status == "completed"
        assert anyio.current_time() == pytest.approx(23, abs=0.1)
        assert (await task).status == "completed"


def quick_flow() -> Workflow:
    async def quick(context: WorkflowContext, config: Config) -> None:
        return None

    return Workflow("quick", [Step.lambda_("quick", quick)])


async def most_at_once(runner: WorkflowRunner) -> int:
    active, most = 0, 0

    async def count(context: WorkflowContext, config: Config) -> None:
        nonlocal active, most
        active += 1
        most = max(most, active)
        await anyio.sleep(1)
        active -= 1

    await runner.execute(Workflow("many", [Step.map("each", items=range(5), iterator=count)]))
    return most
