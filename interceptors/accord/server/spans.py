"""What is recorded of a call that is handled: one span, and its duration.

    observed = begin(method, context, clock) when a call has come
    observed.received(bytes), observed.sent(bytes) for every message
    observed.finish(code) ends it

With no SDK installed there is nothing to record, and a driver holds None instead. A server span is
an error only for the codes that tell of the server's own failure.
"""

from dataclasses import dataclass
from typing import Final

from opentelemetry import context as otel
from opentelemetry import trace

from accord.contract.names import GRPC
from accord.telemetry import metrics, propagation
from accord.telemetry.instrumentation import (
    MAX_MESSAGES,
    Clock,
    end_span,
    recorded,
    start_span,
)

_SERVER_ERRORS: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)


def begin(method: str, context: otel.Context, clock: Clock) -> "ServerCall | None":
    """A call has come with this trace: make it the task's; None: not recorded."""
    if not recorded() or method.startswith(GRPC):
        if context:
            otel.attach(context)
        return None
    span, owned = None, True
    if propagation.configured():
        span, owned = start_span(trace.SpanKind.SERVER, method, context=context)
        if owned:
            otel.attach(trace.set_span_in_context(span, context))
    elif context:
        otel.attach(context)
    if span is not None and not span.is_recording():
        span = None
    instruments = metrics.instruments()
    if span is None and instruments is None:
        return None
    meter = None if instruments is None else instruments.server(method)
    if meter is not None:
        meter.started += 1
    return ServerCall(span, owned, meter, clock, clock())


@dataclass(slots=True, eq=False)
class ServerCall:
    """One call that is being handled."""

    _span: trace.Span | None
    _owned: bool
    """Whether the span is ended with the call."""
    _meter: metrics.ServerMeter | None
    _clock: Clock
    _started: float
    _received: int = 0
    _received_bytes: int = 0
    _sent: int = 0
    _sent_bytes: int = 0

    def received(self, size: int, *, event: bool = True) -> None:
        """A request of `size` bytes has come; `event`: as one of a stream."""
        if event and self._span is not None and self._received < MAX_MESSAGES:
            _message(self._span, "Inbound message", self._received, size)
        self._received += event
        self._received_bytes += size

    def sent(self, size: int, *, event: bool = True) -> None:
        """A response of `size` bytes was sent; `event`: as one of a stream."""
        if event and self._span is not None and self._sent < MAX_MESSAGES:
            _message(self._span, "Outbound message", self._sent, size)
        self._sent += event
        self._sent_bytes += size

    def finish(self, code: str) -> None:
        """The call has ended with the status of this name."""
        if self._meter is not None:
            self._meter.call(
                code,
                self._clock() - self._started,
                sent=self._sent_bytes,
                received=self._received_bytes,
            )
        span = self._span
        if span is not None:
            if self._received:
                span.set_attribute("accord.messages.received", self._received)
            if self._sent:
                span.set_attribute("accord.messages.sent", self._sent)
            end_span(span, code, code, error=code in _SERVER_ERRORS, owned=self._owned)


def _message(span: trace.Span, name: str, number: int, size: int) -> None:
    span.add_event(name, {"sequence-number": number, "message-size": size})
