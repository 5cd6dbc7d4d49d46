"""Metrics through the OpenTelemetry API. `names` lists the instruments."""

from __future__ import annotations

from opentelemetry.metrics import Histogram, Meter

from spine_async._model.step import Step
from spine_async._model.step_result import StepResult
from spine_async.telemetry import names
from spine_async.telemetry.names import MetricEntry

_MAX_KNOWN = 1000  # combinations of attributes that are kept, in case a program makes up names


class RunnerMetrics:
    """The instruments of a runner: what the engine measures, and results that an extension passes to `record_step`.

    Without an SDK the API has instruments that do nothing.
    """

    def __init__(self, meter: Meter) -> None:
        self._attributes: dict[tuple[str | None, ...], dict[str, str]] = {}
        self._durations = _histogram(meter, names.STEP_DURATION)
        self._run_durations = _histogram(meter, names.RUN_DURATION)
        self._queue_delays = _histogram(meter, names.QUEUE_DELAY)
        self._claims = _histogram(meter, names.CLAIM_DURATION)
        self._commits = _histogram(meter, names.COMMIT_DURATION)
        self._commit_sizes = _histogram(meter, names.COMMIT_SIZE)
        self._lease_lags = _histogram(meter, names.LEASE_LAG)
        self._loop_lags = _histogram(meter, names.LOOP_LAG)
        ended, abandoned, results = names.RUNS_ENDED, names.THREADS_ABANDONED, names.STEP_RESULTS
        self._ended = meter.create_counter(ended.name, ended.unit, ended.meaning)
        self._abandoned = meter.create_up_down_counter(abandoned.name, abandoned.unit, abandoned.meaning)
        self._results = meter.create_counter(results.name, results.unit, results.meaning)

    def record_step(self, name: str, result: StepResult) -> None:
        """Count a result of the step `name` by status and error category."""
        attributes = {names.STEP: name, names.STATUS: result.status.value}
        self._results.add(1, {**attributes, **_category(result)})

    def record_abandoned_thread(self, change: int) -> None:
        """Count a thread that was abandoned (+1) or has ended since (-1)."""
        self._abandoned.add(change)

    def record_duration(self, step: Step, result: StepResult, duration_ms: float) -> None:
        """Record the duration of a visit of `step` in milliseconds, including retries; the metric is in seconds."""
        key = (step.name, step.step_type, result.status, result.category)
        attributes = self._attributes.get(key)
        if attributes is None:
            attributes = self._known(names.STEP_DURATION, key)
        self._durations.record(duration_ms / 1000, attributes)

    def run_ended(self, workflow: str, status: str, category: str | None, seconds: float) -> None:
        """Count a run that has ended, and record its duration in seconds."""
        attributes = self._known(names.RUNS_ENDED, (workflow, status, category))
        self._ended.add(1, attributes)
        self._run_durations.record(seconds, attributes)

    def run_begun(self, workflow: str, queue: str, waited: float) -> None:
        """Record for how many seconds a run was due before it was claimed for the first time."""
        self._queue_delays.record(waited, {names.WORKFLOW: workflow, names.QUEUE: queue})

    def claimed(self, seconds: float) -> None:
        """Record the duration of a claim in seconds."""
        self._claims.record(seconds)

    def committed(self, seconds: float, runs: int) -> None:
        """Record the duration of a commit in seconds, and how many runs it contained."""
        self._commits.record(seconds)
        self._commit_sizes.record(runs)

    def lease_renewed(self, lag: float) -> None:
        """Record how many seconds late a renewal was."""
        self._lease_lags.record(lag)

    def loop_lagged(self, lag: float) -> None:
        """Record how many seconds late the event loop was."""
        self._loop_lags.record(lag)

    def _known(self, metric: MetricEntry, values: tuple[str | None, ...]) -> dict[str, str]:
        """The attributes of a metric with these values; those that are None are left out."""
        attributes = self._attributes.get(values)
        if attributes is None:
            pairs = zip(metric.attributes, values, strict=True)
            attributes = {name: str(value) for name, value in pairs if value is not None}
            if len(self._attributes) < _MAX_KNOWN:
                self._attributes[values] = attributes
        return attributes


def _histogram(meter: Meter, entry: MetricEntry) -> Histogram:
    return meter.create_histogram(
        entry.name, entry.unit, entry.meaning, explicit_bucket_boundaries_advisory=entry.boundaries
    )


def _category(result: StepResult) -> dict[str, str]:
    return {names.ERROR_CATEGORY: result.category} if result.category is not None else {}
