"""Observers without spans."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Self

from spine_async._model.step import Step
from spine_async._model.step_result import StepResult
from spine_async.ports import RunSpan, StepSpan
from spine_async.telemetry.log_context import Use, located
from spine_async.telemetry.metrics import RunnerMetrics


class SilentRunSpan:
    """The span of a run that nobody records; one instance serves all runs."""

    traceparent: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def ended(self, status: str, category: str | None) -> None:
        pass


class MeasuredStep:
    """Records the duration of a step without a span; one instance serves all steps."""

    def __init__(self, metrics: RunnerMetrics) -> None:
        self._metrics = metrics

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def settled(self, step: Step, result: StepResult, attempts: int, duration_ms: float) -> None:
        self._metrics.record_duration(step, result, duration_ms)


class SilentEnqueue:
    """The span of a call that enqueues runs, which nobody records."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


class SilentObserver:
    """The observer of runners with `trace_enabled=False`: no spans, only the durations of steps."""

    def __init__(self, metrics: RunnerMetrics) -> None:
        self._measured = MeasuredStep(metrics)

    def run(
        self,
        run_id: str,
        workflow: str,
        *,
        is_resumed: bool,
        continues: str | None = None,
        is_claimed: bool = False,
    ) -> RunSpan:
        return SILENT_RUN

    def step(self, run_id: str, path: str, step: Step) -> AbstractContextManager[StepSpan]:
        return located(run_id, path, self._measured) if Use.is_needed else self._measured

    def enqueue(self, workflow: str, queue: str, count: int) -> AbstractContextManager[str | None]:
        return SILENT_ENQUEUE


SILENT_RUN: RunSpan = SilentRunSpan()
SILENT_ENQUEUE = SilentEnqueue()
