"""The least that tracing and metrics cost: OpenTelemetry's SDK called by hand, nothing around it.

A span a side, whose id travels in one header, and the three durations of gRFC A66. No policy, no
error handling: what is below the cost of any instrumentation that uses this SDK.
"""

import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from opentelemetry import metrics, trace
from opentelemetry.metrics import Histogram, Meter

from accord.telemetry.metrics import LATENCY

_METHOD: Final = "accordtest.v1.EchoService/Retried"
_SPAN: Final = {"rpc.system.name": "grpc", "rpc.method": _METHOD}
_LABELS: Final = {"grpc.method": _METHOD, "grpc.status": "OK"}
_STATUS: Final = "rpc.response.status_code"

Call = Callable[..., Awaitable[Any]]
Handler = Callable[[Any, Any], Coroutine[Any, Any, Any]]


def handler(handle: Handler) -> Handler:
    """A server's part. The providers are those of the process."""
    tracer = trace.get_tracer("by hand")
    duration = _histogram(metrics.get_meter("by hand"), "grpc.server.call.duration")

    async def handled(request: Any, context: Any) -> Any:
        began = time.monotonic()
        headers = dict(context.invocation_metadata())
        _, trace_id, span_id, flags = headers["traceparent"].split("-")
        caller = trace.SpanContext(
            int(trace_id, 16), int(span_id, 16), True, trace.TraceFlags(int(flags, 16))
        )
        span = tracer.start_span(
            "Retried",
            trace.set_span_in_context(trace.NonRecordingSpan(caller)),
            trace.SpanKind.SERVER,
            _SPAN,
        )
        answer = await handle(request, context)
        span.set_attribute(_STATUS, "OK")
        span.end()
        duration.record(time.monotonic() - began, _LABELS)
        return answer

    return handled


def caller(call: Call, tracer: trace.Tracer, meter: Meter) -> Call:
    """A client's part."""
    whole = _histogram(meter, "grpc.client.call.duration")
    attempt = _histogram(meter, "grpc.client.attempt.duration")

    async def calling(request: Any, timeout: float) -> Any:
        began = time.monotonic()
        span = tracer.start_span("Retried", kind=trace.SpanKind.CLIENT, attributes=_SPAN)
        found = span.get_span_context()
        parent = f"00-{found.trace_id:032x}-{found.span_id:016x}-{int(found.trace_flags):02x}"
        answer = await call(request, timeout=timeout, metadata=(("traceparent", parent),))
        span.set_attribute(_STATUS, "OK")
        span.end()
        took = time.monotonic() - began
        attempt.record(took, _LABELS)
        whole.record(took, _LABELS)
        return answer

    return calling


def _histogram(meter: Meter, name: str) -> Histogram:
    return meter.create_histogram(name, "s", explicit_bucket_boundaries_advisory=LATENCY)
