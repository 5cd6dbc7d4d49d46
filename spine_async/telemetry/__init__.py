"""Spans and metrics through the OpenTelemetry API."""
