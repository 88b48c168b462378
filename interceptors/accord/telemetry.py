"""Trace propagation on the OpenTelemetry API, and the library's log.

Without an SDK nothing is recorded, yet every call tree has a trace id: a call that comes without
one gets a random, unsampled span context, which logs and events can name. With an SDK, each call is
a span (rpc semantic conventions).
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from random import getrandbits
from typing import Final

from opentelemetry import baggage, trace
from opentelemetry import context as otel
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
BAGGAGE: Final = "baggage"
HEADERS: Final = frozenset({TRACEPARENT, TRACESTATE, BAGGAGE})
"""Names under which a trace travels, in metadata and in event headers (W3C)."""

_LIMITS: Final = {TRACEPARENT: 128, TRACESTATE: 512, BAGGAGE: 4096}
_TRACE = TraceContextTextMapPropagator()
_BAGGAGE = W3CBaggagePropagator()
_tracer = trace.get_tracer("accord")
_log = logging.getLogger("accord")


def log(level: int, message: str, *, error: BaseException | None = None, **fields: object) -> None:
    """The library's only way to the log: logger "accord", `fields` as attributes of the record."""
    _log.log(level, message, exc_info=error, extra=fields)


def trace_id() -> str:
    """Trace id of the call being handled, 32 hexadecimal digits, or "" if there is none."""
    found = trace.get_current_span().get_span_context()
    return f"{found.trace_id:032x}" if found.is_valid else ""


def trace_headers() -> dict[str, str]:
    """The current trace as W3C headers; begins a trace if there is none."""
    span = trace.get_current_span().get_span_context()
    return headers_of(span if span.is_valid else _random())


def headers_of(span: trace.SpanContext) -> dict[str, str]:
    """A span context as W3C headers, with the current baggage."""
    headers = {
        TRACEPARENT: f"00-{span.trace_id:032x}-{span.span_id:016x}-{int(span.trace_flags):02x}"
    }
    if span.trace_state:
        state = span.trace_state.to_header()
        if len(state) <= _LIMITS[TRACESTATE]:
            headers[TRACESTATE] = state
    if baggage.get_all():
        _BAGGAGE.inject(headers)
        if len(headers.get(BAGGAGE, "")) > _LIMITS[BAGGAGE]:
            del headers[BAGGAGE]
    return headers


@contextmanager
def use_trace(headers: Mapping[str, str]) -> Iterator[None]:
    """Go on with the trace in these headers (an event's, say); begins one if there is none."""
    context = _incoming(headers)
    if not trace.get_current_span(context).get_span_context().is_valid:
        context = trace.set_span_in_context(trace.NonRecordingSpan(_random()), context)
    token = otel.attach(context)
    try:
        yield
    finally:
        otel.detach(token)


def server_span(method: str, headers: Mapping[str, str]) -> trace.Span:
    """Begin the span of a call being handled and make it current for the rest of this task."""
    context = _incoming(headers)
    span = _tracer.start_span(method[1:], context, trace.SpanKind.SERVER)
    if not span.get_span_context().is_valid:
        span = trace.NonRecordingSpan(_random())
    otel.attach(trace.set_span_in_context(span, context))
    return span


def client_span(method: str) -> trace.Span:
    """Begin the span of an outgoing call. It is not made current: the call is what it covers."""
    span = _tracer.start_span(method[1:], kind=trace.SpanKind.CLIENT)
    if not span.get_span_context().is_valid:
        span = trace.NonRecordingSpan(_random())
    return span


def configured() -> bool:
    """Whether spans go anywhere: false until an application installs an SDK."""
    return trace._TRACER_PROVIDER is not None or not isinstance(_tracer, trace.ProxyTracer)


def outgoing(method: str | bytes) -> tuple[trace.Span | None, tuple[tuple[str, str], ...]]:
    """The span of an outgoing call, if one is recorded, and the metadata that it travels in.

    Without an SDK the headers of the current trace are passed on. If there is none the call has no
    headers, and the server that gets it begins the trace: a header of its own would cost as much as
    all that is done for the call here.
    """
    if configured():
        span = client_span(method.decode() if isinstance(method, bytes) else method)
        headers = tuple(headers_of(span.get_span_context()).items())
        return (span if span.is_recording() else None), headers
    context = otel.get_current()
    if not context:
        return None, ()
    current = trace.get_current_span(context).get_span_context()
    return None, tuple(headers_of(current if current.is_valid else _random()).items())


def end_span(span: trace.Span, method: str, code: str) -> None:
    """End a span with the name of its status code. Free when nothing records."""
    if not span.is_recording():
        return
    service, _, name = method[1:].partition("/")
    span.set_attribute("rpc.system.name", "grpc")
    span.set_attribute("rpc.method", f"{service}/{name}")
    span.set_attribute("rpc.response.status_code", code)
    if code != "OK":
        span.set_attribute("error.type", code)
        span.set_status(trace.StatusCode.ERROR, code)
    span.end()


def _incoming(headers: Mapping[str, str]) -> otel.Context:
    """The context that bounded, well-formed headers describe; anything else is ignored."""
    usable = {
        name: value
        for name in HEADERS
        if isinstance(value := headers.get(name), str)
        and len(value) <= _LIMITS[name]
        and value.isascii()
        and value.isprintable()
    }
    if not usable:
        return otel.Context()
    context = otel.Context()
    if TRACEPARENT in usable:
        context = _TRACE.extract(usable, context)
    if BAGGAGE in usable:
        context = _BAGGAGE.extract(usable, context)
    return context


def _random() -> trace.SpanContext:
    # "or 1": an id of zero is invalid, however unlikely it is.
    return trace.SpanContext(getrandbits(128) or 1, getrandbits(64) or 1, is_remote=False)
