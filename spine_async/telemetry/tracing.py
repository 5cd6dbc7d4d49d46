"""Spans by the OpenTelemetry API: one for the run, one below it for each step visit.

Without an SDK the API makes spans that record nothing. Attributes hold names, counts and states, never a value of a
param or an output, and an error's category but not its text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter

from opentelemetry.trace import Span, Status, StatusCode, Tracer

from spine_async._model.outcome import StepResult
from spine_async._model.status import RunStatus
from spine_async._model.step import Step
from spine_async.telemetry.metrics import RunnerMetrics


class TracingObserver:
    """Tells OpenTelemetry of runs and steps.

    Args:
        tracer: Where spans are made.
        metrics: Where durations are recorded.
    """

    def __init__(self, tracer: Tracer, metrics: RunnerMetrics) -> None:
        self._tracer = tracer
        self._metrics = metrics

    @contextmanager
    def run(self, run_id: str, workflow: str, *, is_resumed: bool) -> Iterator[_RunSpan]:
        attributes: dict[str, str | bool] = {
            "spine.run_id": run_id,
            "spine.workflow": workflow,
            "spine.resumed": is_resumed,
        }
        with self._span(f"workflow {workflow}", attributes) as span:
            yield _RunSpan(span)

    @contextmanager
    def step(self, run_id: str, path: str, step: Step) -> Iterator[_StepSpan]:
        attributes = {
            "spine.run_id": run_id,
            "spine.step": step.name,
            "spine.step_type": step.step_type.value,
            "spine.path": path,
        }
        with self._span(f"step {step.name}", attributes) as span:
            yield _StepSpan(span, step, self._metrics)

    @contextmanager
    def _span(self, name: str, attributes: Mapping[str, str | bool]) -> Iterator[Span]:
        # An exception's text may quote a value, so it is not recorded; only its type is.
        with self._tracer.start_as_current_span(
            name, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except BaseException as exc:
                span.set_attribute("error.type", type(exc).__qualname__)
                span.set_status(Status(StatusCode.ERROR, type(exc).__qualname__))
                raise


class _RunSpan:
    def __init__(self, span: Span) -> None:
        self._span = span

    def ended(self, status: str, category: str | None) -> None:
        self._span.set_attribute("spine.status", str(status))
        if category is not None:
            self._span.set_attribute("spine.error_category", category)
        if status == RunStatus.FAILED:
            self._span.set_status(Status(StatusCode.ERROR, category))


class _StepSpan:
    def __init__(self, span: Span, step: Step, metrics: RunnerMetrics) -> None:
        self._span = span
        self._step = step
        self._metrics = metrics
        self._started = perf_counter()

    def settled(self, result: StepResult, attempts: int) -> None:
        self._metrics.record_duration(self._step, result, (perf_counter() - self._started) * 1000)
        if not self._span.is_recording():
            return
        self._span.set_attribute("spine.attempts", attempts)
        self._span.set_attribute("spine.status", result.status.value)
        if result.category is not None:
            self._span.set_attribute("spine.error_category", result.category)
        if not result.success:
            self._span.set_status(Status(StatusCode.ERROR, result.category))
