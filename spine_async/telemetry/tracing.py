"""Spans through the OpenTelemetry API: one for each run, with a child span for each step visit.

Without an SDK the API creates spans that record nothing. Attributes contain names, counts, states and error categories,
never error texts or values of params and outputs. The `exception` event of a failed step contains the type and the
traceback without messages.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from contextvars import Token
from typing import Self

from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import Span, Status, StatusCode, Tracer, set_span_in_context

from spine_async._model.redaction import traceback_text, type_name
from spine_async._model.status import RunStatus
from spine_async._model.step import Step
from spine_async._model.step_result import StepResult
from spine_async.ports import RunSpan, StepSpan
from spine_async.telemetry.metrics import RunnerMetrics
from spine_async.telemetry.silent import SILENT


class TracingObserver:
    """Reports runs and steps to OpenTelemetry.

    Args:
        tracer: Creates the spans.
        metrics: Records the durations.
    """

    def __init__(self, tracer: Tracer, metrics: RunnerMetrics) -> None:
        self._tracer = tracer
        self._measured = _MeasuredStep(metrics)
        self._is_silent = False

    def run(self, run_id: str, workflow: str, *, is_resumed: bool) -> AbstractContextManager[RunSpan]:
        attributes: dict[str, str | bool] = {"spine.run_id": run_id, "spine.workflow": workflow}
        attributes["spine.resumed"] = is_resumed
        span = self._tracer.start_span(f"workflow {workflow}", attributes=attributes)
        # Without an SDK the span context is invalid; the spans of steps are not created then.
        self._is_silent = not span.get_span_context().is_valid
        return SILENT if self._is_silent else _RunSpan(span)

    def step(self, run_id: str, path: str, step: Step) -> AbstractContextManager[StepSpan]:
        if self._is_silent:
            return self._measured
        attributes = {
            "spine.run_id": run_id,
            "spine.step": step.name,
            "spine.step_type": step.step_type.value,
            "spine.path": path,
        }
        span = self._tracer.start_span(f"step {step.name}", attributes=attributes)
        return _StepSpan(span, self._measured)


class _CurrentSpan:
    """A span that is the current span inside its `with` block."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._token: Token[Context] | None = None

    def __enter__(self) -> Self:
        self._token = attach(set_span_in_context(self._span))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._token is not None:
            detach(self._token)
        if kind is not None:  # the text may quote a value, so only the type is recorded
            self._span.set_attribute("error.type", kind.__qualname__)
            self._span.set_status(Status(StatusCode.ERROR, kind.__qualname__))
        self._span.end()


class _RunSpan(_CurrentSpan):
    def ended(self, status: str, category: str | None) -> None:
        self._span.set_attribute("spine.status", str(status))
        if category is not None:
            self._span.set_attribute("spine.error_category", category)
        if status == RunStatus.FAILED:
            self._span.set_status(Status(StatusCode.ERROR, category))


class _MeasuredStep:
    """Records the duration of a step without a span; one instance serves all steps."""

    def __init__(self, metrics: RunnerMetrics) -> None:
        self._metrics = metrics

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def settled(self, step: Step, result: StepResult, attempts: int, duration_ms: float) -> None:
        self._metrics.record_duration(step, result, duration_ms)


class _StepSpan(_CurrentSpan):
    def __init__(self, span: Span, measured: _MeasuredStep) -> None:
        super().__init__(span)
        self._measured = measured

    def settled(self, step: Step, result: StepResult, attempts: int, duration_ms: float) -> None:
        self._measured.settled(step, result, attempts, duration_ms)
        if not self._span.is_recording():
            return
        self._span.set_attribute("spine.attempts", attempts)
        self._span.set_attribute("spine.status", result.status.value)
        if result.category is not None:
            self._span.set_attribute("spine.error_category", result.category)
        if not result.success:
            self._span.set_status(Status(StatusCode.ERROR, result.category))
        if result.exception is not None:
            self._span.add_event("exception", _described(result.exception))


def _described(error: BaseException) -> dict[str, str]:
    # Without `exception.message`: it may quote a value.
    return {"exception.type": type_name(error), "exception.stacktrace": traceback_text(error)}
