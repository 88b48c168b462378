"""Spans of calls: what the client's and the server's have in common.

Names are those of the OpenTelemetry semantic conventions for gRPC (1.44) and of gRFC A72. With
neither a TracerProvider nor a MeterProvider installed there is nothing to record. gRPC's own
services (health, reflection) are not recorded: they are called for ever and say nothing.

Users of opentelemetry-instrumentation-grpc get one span a side, too. Channels and servers that the
mesh makes are made beneath that instrumentation. On a channel or server of the user's own its
interceptors come first: its span is the call's, and is told what ours would have been. Where they
come after ours, they are suppressed for the time of the call (`suppressed`).
"""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Final

from opentelemetry import context as otel
from opentelemetry import metrics as otel_metrics
from opentelemetry import trace

from accord._log import log
from accord.contract.names import described
from accord.telemetry import metrics, propagation

MAX_MESSAGES: Final = 16
"""Messages of one stream and direction that leave an event; beyond, they are only counted."""

_THEIRS: Final = "opentelemetry.instrumentation.grpc"
_SUPPRESS: Final = "suppress_instrumentation"
Clock = Callable[[], float]


@contextmanager
def suppressed() -> Iterator[None]:
    """Keep opentelemetry-instrumentation-grpc from making a second span of the same call."""
    if _THEIRS not in sys.modules:
        yield
        return
    token = otel.attach(otel.set_value(_SUPPRESS, True))
    try:
        yield
    finally:
        otel.detach(token)


def recorded() -> bool:
    """Whether spans or metrics go anywhere: false until an application installs an SDK.

    All calls ask this, so it looks at what `metrics.instruments` and `propagation.configured` do.
    """
    return (
        trace._TRACER_PROVIDER is not None
        or metrics._instruments is not None
        or otel_metrics._internal._METER_PROVIDER is not None
        or not isinstance(propagation._tracer, trace.ProxyTracer)
    )


@lru_cache(maxsize=4096)
def _identity(method: str, target: str = "") -> tuple[str, dict[str, str]]:
    """Name and first attributes of a span. A method that nothing describes is "_OTHER"."""
    name = method[1:]
    attributes = {"rpc.system.name": "grpc", "rpc.method": name}
    if target:
        attributes["server.address"] = target
    if described(method):
        return name, attributes
    return "_OTHER", {**attributes, "rpc.method": "_OTHER", "rpc.method_original": name}


def start_span(
    kind: trace.SpanKind, method: str, target: str = "", context: otel.Context | None = None
) -> tuple[trace.Span, bool]:
    """The span of a call that begins now, and whether it is ours to end.

    It is not where opentelemetry-instrumentation-grpc has begun one already. `context` as in
    `Tracer.start_span`.
    """
    theirs = _their_span(kind, method)
    if theirs is not None:
        return theirs, False
    name, attributes = _identity(method, target)
    span = propagation.tracer().start_span(name, context, kind=kind, attributes=attributes)
    return span, True


def _their_span(kind: trace.SpanKind, method: str) -> trace.Span | None:
    """The current span, if opentelemetry-instrumentation-grpc has made it for this very call."""
    if _THEIRS not in sys.modules:
        return None
    # What the API's spans do not tell, the SDK's do.
    span = trace.get_current_span()
    scope = getattr(span, "instrumentation_scope", None)
    if scope is None or scope.name != _THEIRS or not span.is_recording():
        return None
    same = getattr(span, "kind", None) is kind and getattr(span, "name", None) == method
    return span if same else None


def end_span(span: trace.Span, code: str, status: str, *, error: bool, owned: bool) -> None:
    """Say how a call has ended; `owned`: nobody else ends the span."""
    if code == status:
        span.set_attribute("rpc.response.status_code", status)
    if error:
        span.set_attribute("error.type", code)
        span.set_status(trace.StatusCode.ERROR)
    if owned:
        try:
            span.end()
        except Exception as problem:  # a user's own span processor; the call has its answer
            log(logging.WARNING, "a span could not be ended", error=problem)
