"""Spans through the OpenTelemetry API: one for each execution of a run, with a child span for each step visit.

Without an SDK the API creates spans that record nothing. Attributes contain names, counts, states and error categories,
never error texts or values of params and outputs. The `exception` event of a failed step contains the type and the
traceback without messages. `names` lists all spans and attributes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from contextvars import Token
from typing import Self

from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from spine_async._model.redaction import traceback_text, type_name
from spine_async._model.status import RunStatus
from spine_async._model.step import Step
from spine_async._model.step_result import StepResult
from spine_async._model.target import caught_by
from spine_async.ports import RunSpan, StepSpan
from spine_async.telemetry import names
from spine_async.telemetry.log_context import Use, located
from spine_async.telemetry.metrics import RunnerMetrics
from spine_async.telemetry.silent import SILENT_ENQUEUE, SILENT_RUN, MeasuredStep
from spine_async.telemetry.traceparent import links_to, traceparent_of


class TracingObserver:
    """Reports runs and steps to OpenTelemetry.

    Args:
        tracer: Creates the spans.
        metrics: Records the durations.
    """

    def __init__(self, tracer: Tracer, metrics: RunnerMetrics) -> None:
        self._tracer = tracer
        self._measured = MeasuredStep(metrics)
        self._is_silent = False

    def run(
        self,
        run_id: str,
        workflow: str,
        *,
        is_resumed: bool,
        continues: str | None = None,
        is_claimed: bool = False,
    ) -> RunSpan:
        span = self._tracer.start_span(
            names.RUN_SPAN.named(workflow),
            context=Context() if is_claimed else None,  # not a child of the span in which the worker was started
            kind=SpanKind.CONSUMER if is_claimed else SpanKind.INTERNAL,
            attributes={names.RUN_ID: run_id, names.WORKFLOW: workflow, names.RESUMED: is_resumed},
            links=links_to(continues),
        )
        # Without an SDK the span context is invalid; the spans of steps are not created then.
        self._is_silent = not span.get_span_context().is_valid
        return SILENT_RUN if self._is_silent else _RunSpan(span)

    def step(self, run_id: str, path: str, step: Step) -> AbstractContextManager[StepSpan]:
        if self._is_silent:
            return located(run_id, path, self._measured) if Use.is_needed else self._measured
        attributes = {
            names.RUN_ID: run_id,
            names.STEP: step.name,
            names.STEP_TYPE: step.step_type.value,
            names.PATH: path,
        }
        span = self._tracer.start_span(names.STEP_SPAN.named(step.name), attributes=attributes)
        step_span = _StepSpan(span, self._measured)
        return located(run_id, path, step_span) if Use.is_needed else step_span

    def enqueue(self, workflow: str, queue: str, count: int) -> AbstractContextManager[str | None]:
        span = self._tracer.start_span(
            names.ENQUEUE_SPAN.named(workflow),
            kind=SpanKind.PRODUCER,
            attributes={names.WORKFLOW: workflow, names.QUEUE: queue, names.COUNT: count},
        )
        return _EnqueueSpan(span) if span.get_span_context().is_valid else SILENT_ENQUEUE


class _CurrentSpan:
    """A span that is the current span inside its `with` block."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._token: Token[Context] | None = None

    @property
    def traceparent(self) -> str | None:
        return traceparent_of(self._span)

    def __enter__(self) -> Self:
        self._token = attach(set_span_in_context(self._span))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._token is not None:
            detach(self._token)
        if kind is not None:  # the text may quote a value, so only the type is recorded
            self._span.set_attribute(names.ERROR_TYPE, kind.__qualname__)
            self._span.set_status(Status(StatusCode.ERROR, kind.__qualname__))
        self._span.end()


class _RunSpan(_CurrentSpan):
    def ended(self, status: str, category: str | None) -> None:
        self._span.set_attribute(names.STATUS, str(status))
        if category is not None:
            self._span.set_attribute(names.ERROR_CATEGORY, category)
        if status == RunStatus.FAILED:
            self._span.set_status(Status(StatusCode.ERROR, category))


class _EnqueueSpan(AbstractContextManager[str | None]):
    def __init__(self, span: Span) -> None:
        self._span = _CurrentSpan(span)

    def __enter__(self) -> str | None:
        return self._span.__enter__().traceparent

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._span.__exit__(kind, error, trace)


class _StepSpan(_CurrentSpan):
    def __init__(self, span: Span, measured: MeasuredStep) -> None:
        super().__init__(span)
        self._measured = measured

    def settled(self, step: Step, result: StepResult, attempts: int, duration_ms: float) -> None:
        self._measured.settled(step, result, attempts, duration_ms)
        if not self._span.is_recording():
            return
        self._span.set_attribute(names.ATTEMPTS, attempts)
        self._span.set_attribute(names.STATUS, result.status.value)
        if result.category is not None:
            self._span.set_attribute(names.ERROR_CATEGORY, result.category)
        if not result.success:
            self._span.set_status(Status(StatusCode.ERROR, result.category))
            target = caught_by(step.catch, result.category)
            if target is not None:
                self._span.set_attribute(names.NEXT_STEP, target)
        if result.exception is not None:
            self._span.add_event(names.EXCEPTION_EVENT, _described(result.exception))


def _described(error: BaseException) -> dict[str, str]:
    # Without `exception.message`: it may quote a value.
    return {names.EXCEPTION_TYPE: type_name(error), names.EXCEPTION_STACKTRACE: traceback_text(error)}
