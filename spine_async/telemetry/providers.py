"""Gets the tracer and the instruments from an OpenTelemetry provider."""

from __future__ import annotations

from opentelemetry.metrics import MeterProvider, get_meter
from opentelemetry.trace import Tracer, TracerProvider, get_tracer

from spine_async.telemetry.gauges import CountedRuns, gauges_of
from spine_async.telemetry.metrics import RunnerMetrics

_NAME = "spine_async"


def open_tracer(provider: TracerProvider | None) -> Tracer:
    """The tracer of the library; None means the global provider."""
    return get_tracer(_NAME, tracer_provider=provider)


def open_metrics(provider: MeterProvider | None) -> RunnerMetrics:
    """The instruments of the library; None means the global provider."""
    return RunnerMetrics(get_meter(_NAME, meter_provider=provider))


def count_runs(provider: MeterProvider | None, runner: CountedRuns) -> None:
    """Report how many runs the runner and its store hold, as long as the runner exists; None means the global one."""
    gauges_of(provider, get_meter(_NAME, meter_provider=provider)).add(runner)
