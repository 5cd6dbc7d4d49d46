"""Fixtures: places where runs are stored, and an OpenTelemetry SDK that keeps in memory what it gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from anyio import to_thread
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext

from spine_async import WorkflowRunner
from spine_async.telemetry import gauges
from spine_async.telemetry.traceparent import links_to
from tests.service.places import Place


class Telemetry:
    """Providers of an SDK, and what runners have reported to them."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meters = MeterProvider([self._reader])
        self.tracer = self.tracers.get_tracer("app")

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._spans.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        """The ended spans with this name, in the order of their ends."""
        return [each for each in self.spans if each.name == name]

    def runner(self, place: Place, *, config: Mapping[str, Any] | None = None, **settings: Any) -> WorkflowRunner:
        chosen = {"trace_enabled": True, "poll_interval": 0.05, **(config or {})}
        return place.runner(config=chosen, tracer_provider=self.tracers, meter_provider=self.meters, **settings)

    def collect(self) -> dict[str, Metric]:
        """The metrics that have values, by name."""
        data = self._reader.get_metrics_data()
        if data is None:
            return {}
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
        return {metric.name: metric for scope in scopes for metric in scope.metrics if metric.data.data_points}

    async def metrics(self) -> dict[str, Metric]:
        """The same, collected in another thread, as an exporter does it."""
        return await to_thread.run_sync(self.collect)

    async def point(self, name: str) -> Any:
        """The only data point of a metric."""
        (point,) = (await self.metrics())[name].data.data_points
        return point

    async def values(self, name: str) -> dict[tuple[Any, ...], float]:
        """The values of a metric by those of its attributes: of a histogram, the number of its records."""
        metric = (await self.metrics()).get(name)
        points: list[Any] = list(metric.data.data_points) if metric is not None else []
        return {tuple((each.attributes or {}).values()): getattr(each, "count", None) or each.value for each in points}


def context_of(span: ReadableSpan) -> SpanContext:
    return span.get_span_context() or pytest.fail(f"{span.name} has no context")


def linked(span: ReadableSpan) -> list[tuple[int, int]]:
    """Trace and span ids of the spans to which a span has links."""
    return [(each.context.trace_id, each.context.span_id) for each in span.links]


def ids_of(span: ReadableSpan) -> tuple[int, int]:
    return context_of(span).trace_id, context_of(span).span_id


def ids_in(traceparent: str | None) -> tuple[int, int]:
    (link,) = links_to(traceparent)
    return link.context.trace_id, link.context.span_id


@pytest.fixture
def telemetry(monkeypatch: pytest.MonkeyPatch) -> Telemetry:
    monkeypatch.setattr(gauges, "_MOST_SECONDS", 10.0)  # a busy machine may take long to answer
    return Telemetry()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def place(request: pytest.FixtureRequest) -> Place:
    """An empty store that runners of this process share, of each kind in turn."""
    if request.param == "memory":
        return Place(None)
    return Place(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "cleared_postgres_url"))


@pytest.fixture
def memory() -> Place:
    """An empty store in memory."""
    return Place(None)
