"""Contract of cancellation, progress and trace context of pipelines."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

from spine_async._model.config import WorkflowRunnerConfig
from spine_async._model.policy import RetryPolicy
from spine_async.ports import Dispatcher
from spine_async.runner import WorkflowRunner
from spine_async.testing.conformance.pipeline_steps import LONGEST_WAIT, appears, pipeline_step, runner_of, touch

_TRACE_ID = 0x0AF7651916CD43DD8448EB211C80319C
_SPAN_ID = 0xB7AD6B7169203331


class ControlContract:
    """A cancellation reaches the pipeline and frees the step at once; progress and trace context travel."""

    @pytest.mark.parametrize("pipeline", ["poll", "poll_in_thread", "sleep"])
    async def test_a_stop_reaches_the_pipeline(self, dispatcher: Dispatcher, tmp_path: Path, pipeline: str) -> None:
        async with runner_of(dispatcher) as runner:
            handle = await runner.start(pipeline_step(pipeline, {"folder": str(tmp_path)}), run_id="r")
            await appears(tmp_path, "begun-1")
            await handle.stop("enough")
            assert (await handle.result(timeout=LONGEST_WAIT)).status == "stopped"
            assert await appears(tmp_path, "ended") in ("user", "cancelled")

    @pytest.mark.parametrize("pipeline", ["poll", "sleep"])
    async def test_a_timeout_reaches_the_pipeline(self, dispatcher: Dispatcher, tmp_path: Path, pipeline: str) -> None:
        async with runner_of(dispatcher) as runner:
            flow = pipeline_step(pipeline, {"folder": str(tmp_path)}, idle_timeout=0.5)
            handle = await runner.start(flow, run_id="r")
            result = await handle.result(timeout=LONGEST_WAIT)
            assert (result.status, result.error_category) == ("failed", "TIMEOUT")
            if await anyio.Path(tmp_path / "begun-1").exists():  # else it was too slow to begin
                assert await appears(tmp_path, "ended") in ("step_timeout", "cancelled")

    async def test_a_pipeline_that_ignores_its_cancellation_does_not_keep_the_step(
        self, dispatcher: Dispatcher, tmp_path: Path
    ) -> None:
        async with runner_of(dispatcher, config=WorkflowRunnerConfig(max_concurrent_steps=1)) as runner:
            stuck = await runner.start(pipeline_step("ignore", {"folder": str(tmp_path)}), run_id="stuck")
            await appears(tmp_path, "begun-1")
            await stuck.stop("enough")
            with anyio.fail_after(LONGEST_WAIT):
                result = await runner.execute(pipeline_step("echo"), run_id="next")
            assert result.status == "completed"
            await touch(tmp_path, "go_on")
            assert (await stuck.result(timeout=LONGEST_WAIT)).status == "stopped"

    async def test_the_attempt_after_one_that_ignores_its_timeout_is_another_one(
        self, dispatcher: Dispatcher, tmp_path: Path
    ) -> None:
        retry = RetryPolicy(max_attempts=100, initial_delay=0, jitter=False)
        flow = pipeline_step("ignore", {"folder": str(tmp_path)}, retry=retry, timeout=0.7)
        async with runner_of(dispatcher) as runner:
            handle = await runner.start(flow, run_id="r")
            await appears(tmp_path, "begun-2")
            await touch(tmp_path, "go_on")
            result = await handle.result(timeout=LONGEST_WAIT)
        assert result.context.get_output("step", "attempt") >= 2

    async def test_progress_arrives_while_the_pipeline_runs_and_in_the_next_attempt(
        self, dispatcher: Dispatcher, tmp_path: Path
    ) -> None:
        retry = RetryPolicy(max_attempts=2, initial_delay=0, jitter=False)
        async with runner_of(dispatcher) as runner:
            flow = pipeline_step("report", {"folder": str(tmp_path)}, retry=retry)
            handle = await runner.start(flow, run_id="r")
            assert await _progress(runner, 49) == (100, "loading")
            await touch(tmp_path, "go_on")
            result = await handle.result(timeout=LONGEST_WAIT)
            assert await _progress(runner, 99) == (100, None)
        assert result.context.get_output("step") == {"last": [99, 100, None]}

    @pytest.mark.parametrize("pipeline", ["trace", "trace_async"])
    async def test_the_trace_context_arrives(self, dispatcher: Dispatcher, pipeline: str) -> None:
        span = SpanContext(_TRACE_ID, _SPAN_ID, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
        async with runner_of(dispatcher) as runner:
            with use_span(NonRecordingSpan(span)):
                result = await runner.execute(pipeline_step(pipeline))
        assert result.context.get_output("step", "trace_id") == f"{_TRACE_ID:032x}"
        assert result.context.get_output("step", "is_valid") is True

    async def test_many_pipelines_at_once(self, dispatcher: Dispatcher) -> None:
        async with runner_of(dispatcher) as runner:
            outputs: list[object] = []

            async def execute(number: int) -> None:
                result = await runner.execute(pipeline_step("echo", {"number": number}))
                outputs.append(result.context.get_output("step", "params"))

            with anyio.fail_after(LONGEST_WAIT):
                async with anyio.create_task_group() as group:
                    for number in range(50):
                        group.start_soon(execute, number)
        assert sorted(each["number"] for each in outputs) == list(range(50))  # type: ignore[index]


async def _progress(runner: WorkflowRunner, done: int) -> tuple[object, object]:
    """Total and message of the progress event with this value, when it is stored."""
    with anyio.fail_after(LONGEST_WAIT):
        while True:
            async for event in runner.events("r"):
                if event.event_type == "step_progress" and event.metadata["done"] == done:
                    return event.metadata["total"], event.metadata["message"]
            await anyio.sleep(0.01)
