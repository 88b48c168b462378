"""Trace propagation on the OpenTelemetry API, and the library's log.

Without an SDK nothing is recorded, yet every call tree has a trace id: a call that comes without
one gets a random, unsampled span context, which logs and events can name. What is recorded with an
SDK is made in the `spans` of client and server, and in `metrics`.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from random import getrandbits
from typing import Final, TypeGuard

from opentelemetry import baggage, trace
from opentelemetry import context as otel
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from accord.context import current as current_call

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
BAGGAGE: Final = "baggage"

HEADERS: Final = frozenset({TRACEPARENT, TRACESTATE, BAGGAGE})
"""Names under which a trace travels, in metadata and in event headers (W3C)."""

_LIMITS: Final = {TRACEPARENT: 128, TRACESTATE: 512, BAGGAGE: 4096}
_USUAL: Final = re.compile("00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")

# What the propagators can read, by the grammars of W3C. They would write all else to the log, part
# by part, with the text of whoever has sent it. Possessive ("++"): read once, never tried again.
_IDS: Final = "-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_STATE: Final = (
    " *+(?:[a-z][_0-9a-z*/-]{0,255}|[a-z0-9][_0-9a-z*/-]{0,240}@[a-z][_0-9a-z*/-]{0,13})"
    "=[^,=]{0,255}[^,= ] *+"
)
_NAME: Final = " *+[!#$%&'*+.^_`|~0-9A-Za-z-]++ *+"
_VALUE: Final = r'= *+[^ ",;\\]*+ *+'
_ENTRY: Final = f"{_NAME}{_VALUE}(?:;{_NAME}(?:{_VALUE})?)*+"
_FORMS: Final = {
    TRACEPARENT: re.compile(f"00{_IDS}|(?!00|ff)[0-9a-f]{{2}}{_IDS}(?:-.*)?"),
    TRACESTATE: re.compile(f"{_STATE}(?:,{_STATE}){{0,31}}"),
    BAGGAGE: re.compile(f"{_ENTRY}(?:,{_ENTRY}){{0,179}}"),
}
_TRACE = TraceContextTextMapPropagator()
_BAGGAGE = W3CBaggagePropagator()
_EMPTY = otel.Context()
_tracer = trace.get_tracer("accord")


def trace_id() -> str:
    """Trace id of the call being handled, 32 hexadecimal digits, or "" if there is none."""
    found = _current()
    return "" if found is None else f"{found.trace_id:032x}"


def trace_headers() -> dict[str, str]:
    """The current trace as W3C headers; begins a trace if there is none."""
    return headers_of(_current() or _random())


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
    context, _ = incoming(headers)
    if not trace.get_current_span(context).get_span_context().is_valid:
        context = trace.set_span_in_context(trace.NonRecordingSpan(_random()), context)
    token = otel.attach(context)
    try:
        yield
    finally:
        otel.detach(token)


def tracer() -> trace.Tracer:
    """The library's tracer; that of the SDK, once there is one, without the proxy before it."""
    global _tracer
    if isinstance(_tracer, trace.ProxyTracer):
        _tracer = trace.get_tracer("accord")
    return _tracer


def configured() -> bool:
    """Whether spans go anywhere: false until an application installs an SDK."""
    return trace._TRACER_PROVIDER is not None or not isinstance(_tracer, trace.ProxyTracer)


def inherited() -> tuple[tuple[str, str], ...]:
    """Metadata in which the current trace travels to a call that has no span of its own.

    If there is none the call has no headers, and the server that gets it begins the trace: a header
    of its own would cost as much as all that is done for the call here.
    """
    if not otel.get_current() and current_call() is None:
        return ()
    current = _current()
    if current is not None:
        return tuple(headers_of(current).items())
    return tuple(headers_of(_random()).items()) if baggage.get_all() else ()


def incoming(headers: Mapping[str, str | bytes]) -> tuple[otel.Context, list[str]]:
    """The context that bounded, well-formed headers describe, and the names of those ignored."""
    if HEADERS.isdisjoint(headers):
        return _EMPTY, []
    if TRACESTATE not in headers and BAGGAGE not in headers:
        usual = _parent(headers[TRACEPARENT])
        if usual is not None:
            return usual, []
    usable: dict[str, str] = {}
    ignored = []
    for name in HEADERS & headers.keys():
        value = headers[name]
        if _usable(value, name):
            usable[name] = value
        else:
            ignored.append(name)
    return _BAGGAGE.extract(usable, _TRACE.extract(usable, _EMPTY)), ignored


def _usable(value: str | bytes, name: str) -> TypeGuard[str]:
    return (
        isinstance(value, str)
        and len(value) <= _LIMITS[name]
        and value.isascii()
        and value.isprintable()
        and _FORMS[name].fullmatch(value) is not None
    )


def _parent(value: str | bytes) -> otel.Context | None:
    """The context of a usual traceparent, in a third of the time of the propagator.

    None: the propagator decides.
    """
    match = _USUAL.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    span = trace.SpanContext(
        int(match[1], 16),
        int(match[2], 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(int(match[3], 16)),
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(span), _EMPTY)


def _current() -> trace.SpanContext | None:
    """The trace that this code is part of; None: there is none."""
    found = trace.get_current_span().get_span_context()
    if found.is_valid:
        return found
    call = current_call()
    return None if call is None else trace.SpanContext(*call.trace(), is_remote=False)


def _random() -> trace.SpanContext:
    # "or 1": an id of zero is invalid, however unlikely it is.
    return trace.SpanContext(getrandbits(128) or 1, getrandbits(64) or 1, is_remote=False)
