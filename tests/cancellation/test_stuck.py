"""Handlers that swallow their cancellation, threads that cannot be ended, steps that block the loop."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator, Mapping

import anyio
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from spine_async import Step, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig
from spine_async.storage import MemoryRunStore
from tests.cancellation.conftest import MakeRunner

pytestmark = pytest.mark.anyio

Config = Mapping[str, object]


class Stubborn:
    """A step that does not end when it is cancelled, until `release` is set."""

    def __init__(self) -> None:
        self.release = anyio.Event()
        self.begun = anyio.Event()

    async def shield(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        self.begun.set()
        with anyio.CancelScope(shield=True):
            await self.release.wait()
        return {"too": "late"}

    async def swallow(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        self.begun.set()
        while not self.release.is_set():
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                continue
        return {"too": "late"}


def flow(stubborn: Stubborn, timeout: float | None = None) -> Workflow:
    return Workflow("stubborn", [Step.lambda_("shield", stubborn.shield, timeout=timeout)])


async def test_a_stuck_step_is_reported_by_name_after_the_grace(
    make_runner: MakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    runner, stubborn = make_runner(cancel_grace=4), Stubborn()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: runner.execute(flow(stubborn), run_id="r"))
        await stubborn.begun.wait()
        asked_at = anyio.current_time()
        await runner.stop("r", "enough")
    assert anyio.current_time() - asked_at == pytest.approx(4.25, abs=0.5)
    record = await runner.get_run("r")
    assert (record.status, record.stop_reason) == ("stopped", "enough")
    assert "'shield'" in str(record.error)
    assert "'shield'" in caplog.text
    stubborn.release.set()
    await anyio.sleep(1)
    assert await runner.list_checkpoints("r") == []  # its later result changes nothing


@pytest.mark.parametrize("how", ["step_timeout", "run_timeout"])
async def test_a_timeout_that_is_swallowed_fails_the_run(make_runner: MakeRunner, how: str) -> None:
    runner, stubborn = make_runner(cancel_grace=2, workflow_timeout=3 if how == "run_timeout" else None), Stubborn()
    result = await runner.execute(flow(stubborn, timeout=3 if how == "step_timeout" else None), run_id="r")
    assert (result.status, result.error_category, result.error_step) == ("failed", "TIMEOUT", "shield")
    assert anyio.current_time() == pytest.approx(5.25, abs=0.6)
    stubborn.release.set()


async def test_a_swallowed_native_cancellation_is_raised_again(make_runner: MakeRunner) -> None:
    runner, stubborn = make_runner(cancel_grace=2), Stubborn()
    task = asyncio.create_task(runner.execute(flow(stubborn), run_id="r"))
    await stubborn.begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    record = await runner.get_run("r")
    assert (record.status, record.stop_reason) == ("stopped", "cancelled")
    stubborn.release.set()


async def test_leaving_the_runner_does_not_hang(make_runner: MakeRunner, store: MemoryRunStore) -> None:
    runner, stubborn = make_runner(cancel_grace=2, drain_timeout=1), Stubborn()
    async with runner:
        task = asyncio.create_task(runner.execute(flow(stubborn), run_id="r"))
        await stubborn.begun.wait()
    result = await task
    assert (result.status, result.stop_reason) == ("stopped", "shutdown")
    stored = await store.load("r")
    assert stored is not None
    assert (stored.status, stored.owner) == ("running", runner._runtime.owner)  # the step may still be at work
    assert anyio.current_time() < 6
    stubborn.release.set()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """An event that blocks threads; it is set when the test ends, so that no thread outlives the test."""
    gate = threading.Event()
    yield gate
    gate.set()


class TestInRealTime:
    @pytest.fixture
    def anyio_backend(self) -> str:
        """Virtual time would stand still while a thread hangs or the loop is busy in each turn."""
        return "asyncio"

    @pytest.mark.parametrize("timeout", [None, 0.02])
    async def test_a_cancellation_that_is_caught_again_and_again(self, timeout: float | None) -> None:
        runner = WorkflowRunner(store=MemoryRunStore(), config=WorkflowRunnerConfig(cancel_grace=0.05))
        stubborn = Stubborn()
        steps = [Step.lambda_("swallow", stubborn.swallow, timeout=timeout)]
        task = asyncio.create_task(runner.execute(Workflow("stubborn", steps), run_id="r"))
        await stubborn.begun.wait()
        if timeout is None:
            await runner.stop("r")
        with anyio.fail_after(10):
            result = await task
        assert result.status == ("stopped" if timeout is None else "failed")
        assert "'swallow'" in str(result.error)
        stubborn.release.set()

    async def test_an_abandoned_thread_can_read_the_cancel_reason(self) -> None:
        runner = WorkflowRunner(store=MemoryRunStore())
        begun, over, reasons = anyio.Event(), anyio.Event(), []
        loop = asyncio.get_running_loop()

        def handler(context: WorkflowContext, config: Config) -> None:
            loop.call_soon_threadsafe(begun.set)
            while context.cancel_reason is None:
                pass
            reasons.append(context.cancel_reason)
            loop.call_soon_threadsafe(over.set)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: runner.execute(Workflow("t", [Step.lambda_("spin", handler)]), run_id="r"))
            await begun.wait()
            await runner.stop("r")
        await over.wait()
        assert reasons == ["user"]

    async def test_stuck_threads_are_counted_capped_and_logged(
        self, gate: threading.Event, caplog: pytest.LogCaptureFixture
    ) -> None:
        reader = InMemoryMetricReader()
        runner = WorkflowRunner(
            store=MemoryRunStore(),
            meter_provider=MeterProvider([reader]),
            config=WorkflowRunnerConfig(max_abandoned_threads=2),
        )

        def hang(context: WorkflowContext, config: Config) -> None:
            gate.wait(30)

        hanging = Workflow("hanging", [Step.lambda_("hang", hang, timeout=0.5)])
        for _ in range(2):
            assert (await runner.execute(hanging)).error_category == "TIMEOUT"
        assert "step hang was cancelled; its thread is abandoned (2 abandoned threads are running)" in caplog.text
        assert abandoned(reader) == 2
        refused = await runner.execute(hanging)
        assert "2 abandoned threads are still running (hang)" in str(refused.error)
        gate.set()
        for _ in range(500):
            if abandoned(reader) == 0:
                break
            await anyio.sleep(0.01)
        assert abandoned(reader) == 0

    @pytest.mark.slow
    @pytest.mark.allow_blocking  # the test is about blocking
    async def test_the_watchdog_names_the_step_that_blocks_the_loop(self) -> None:
        warned, messages = threading.Event(), list[str]()

        class Listener(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if "blocked" in record.getMessage():
                    messages.append(record.getMessage())
                    warned.set()

        async def block(context: WorkflowContext, config: Config) -> dict[str, object]:
            await anyio.sleep(0.3)  # until the first check of the watcher
            return {"was_noticed": warned.wait(10)}

        logger, listener = logging.getLogger("spine_async"), Listener()
        logger.addHandler(listener)
        try:
            runner = WorkflowRunner(store=MemoryRunStore())
            result = await runner.execute(Workflow("blocking", [Step.lambda_("block", block)]), run_id="r")
        finally:
            logger.removeHandler(listener)
        assert result.context.get_output("block", "was_noticed") is True
        assert "step 'block' of run 'r'" in messages[0]


def abandoned(reader: InMemoryMetricReader) -> int:
    data = reader.get_metrics_data()
    assert data is not None
    metrics = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics]
    (found,) = [m for m in metrics if "abandoned" in m.name]
    return sum(point.value for point in found.data.data_points)  # type: ignore[union-attr, misc]
