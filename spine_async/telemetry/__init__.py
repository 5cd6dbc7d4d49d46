"""Spans and metrics through the OpenTelemetry API, and a filter for log records."""

from spine_async.telemetry.log_context import RunContextFilter

__all__ = ["RunContextFilter"]
