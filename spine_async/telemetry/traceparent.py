"""The trace context of a span as text, in the form of W3C's `traceparent` header."""

from __future__ import annotations

from opentelemetry.trace import Link, Span, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_HEADER = "traceparent"
_W3C = TraceContextTextMapPropagator()


def traceparent_of(span: Span) -> str | None:
    """The trace context of a span; None if it is not sampled, because no trace contains it then."""
    context = span.get_span_context()
    if not (context.is_valid and context.trace_flags.sampled):
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def links_to(traceparent: str | None) -> list[Link]:
    """A link to the span with this trace context; none if there is no context, or no valid one."""
    if traceparent is None:
        return []
    context = get_current_span(_W3C.extract({_HEADER: traceparent})).get_span_context()
    return [Link(context)] if context.is_valid else []
