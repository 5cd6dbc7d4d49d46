"""Metrics through the OpenTelemetry API."""

from __future__ import annotations

from opentelemetry.metrics import Meter

from spine_async._model.step import Step
from spine_async._model.step_result import StepResult


class RunnerMetrics:
    """The instruments of a runner.

    `spine.step.duration` (histogram, milliseconds) contains the duration of each step visit.
    `spine.threads.abandoned` (up-down counter) counts abandoned threads that are still running.
    `spine.step.results` (counter) counts the results that an extension passes to `record_step`.
    """

    def __init__(self, meter: Meter) -> None:
        self._attributes: dict[tuple[str | None, ...], dict[str, str]] = {}
        self._durations = meter.create_histogram("spine.step.duration", unit="ms", description="Time of a step visit")
        self._abandoned = meter.create_up_down_counter(
            "spine.threads.abandoned", description="Threads abandoned by timeouts and still running"
        )
        self._results = meter.create_counter("spine.step.results", description="Results passed to record_step")

    def record_step(self, name: str, result: StepResult) -> None:
        """Count a result of the step `name` by status and error category."""
        attributes = {"spine.step": name, "spine.status": result.status.value}
        self._results.add(1, {**attributes, **_category(result)})

    def record_abandoned_thread(self, change: int) -> None:
        """Count a thread that was abandoned (+1) or has ended since (-1)."""
        self._abandoned.add(change)

    def record_duration(self, step: Step, result: StepResult, duration_ms: float) -> None:
        """Record the duration of a visit of `step`, including retries."""
        key = (step.name, step.step_type, result.status, result.category)
        attributes = self._attributes.get(key)
        if attributes is None:
            names = ("spine.step", "spine.step_type", "spine.status", "spine.error_category")
            attributes = {name: str(value) for name, value in zip(names, key, strict=True) if value is not None}
            self._attributes[key] = attributes
        self._durations.record(duration_ms, attributes)


def _category(result: StepResult) -> dict[str, str]:
    return {"spine.error_category": result.category} if result.category is not None else {}
