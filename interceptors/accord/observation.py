"""What is recorded of a call: one span, one event per attempt, and durations.

The seam between the drivers (aio and sync) and OpenTelemetry. With neither a TracerProvider nor a
MeterProvider installed there is nothing to record, and a driver holds None instead.

    client  outgoing.observe(route) begins it, in `line.new_call`, which makes it the engine's
            observer: attempts, back-off, hedges, refusals and resumes come from the engine alone
            outgoing.finish(code) ends it, whichever way the call ends; the first time counts
            outgoing.received() for every message of a stream of responses
    server  observed = ServerMethod(method).begin(context, clock) when a call has come
            observed.received(bytes), observed.sent(bytes) for every message
            observed.finish(code) ends it

Names are those of the OpenTelemetry semantic conventions for gRPC (1.44) and of gRFC A72, which has
a span per attempt: here an attempt is an event of its call's span, `accord.attempt`, added when it
ends. A call that is answered at once has none: its only attempt is the span itself. A server span
is an error only for the codes that tell of the server's own failure. gRPC's own services (health,
reflection) are not recorded: they are called for ever and say nothing.

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
from typing import Any, Final

from opentelemetry import context as otel
from opentelemetry import trace

from accord import engine, metrics, telemetry
from accord.policies.pushback import NEVER
from accord.route import Route

MAX_MESSAGES: Final = 16
"""Messages of one stream and direction that leave an event; beyond, they are only counted."""

_SILENT: Final = "/grpc."
_THEIRS: Final = "opentelemetry.instrumentation.grpc"
_SUPPRESS: Final = "suppress_instrumentation"
_SERVER_ERRORS: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)

Clock = Callable[[], float]


class ClientCall:
    """One outgoing call; the engine's observer."""

    __slots__ = (
        "_clock",
        "_delay",
        "_finished",
        "_hedge",
        "_hedges",
        "_idle",
        "_made",
        "_meter",
        "_open",
        "_owned",
        "_received",
        "_retries",
        "_span",
        "_started",
    )

    def __init__(
        self,
        span: trace.Span | None,
        meter: metrics.ClientMeter | None,
        clock: Clock,
        *,
        owned: bool,
    ) -> None:
        """A call that begins now. `owned`: the span is ended with it."""
        self._finished = False
        self._span = span
        self._owned = owned
        self._meter = meter
        self._clock = clock
        self._started = clock()
        self._open: dict[engine.Send, int] = {}
        self._hedge: engine.Send | None = None
        self._idle: float | None = None
        self._delay = 0.0
        self._made = self._retries = self._hedges = self._received = 0

    def sent(self, send: engine.Send, *, hedge: bool = False) -> None:
        """An attempt is made."""
        if self._meter is not None:
            self._meter.attempts += 1
        self._open[send] = self._made
        self._made += 1
        if hedge:
            self._hedge = send
            self._hedges += 1
        elif self._idle is not None:
            self._retries += 1
            self._delay += send.started - self._idle
            self._idle = None

    def succeeded(self, send: engine.Send) -> None:
        """An attempt was answered in full."""
        self._close(send, "OK")

    def failed(
        self, send: engine.Send, failure: engine.Failure, step: engine.Again | engine.Raise | None
    ) -> None:
        """An attempt has failed, and this is what follows from it."""
        if isinstance(step, engine.Again):
            self._idle = self._clock()
        self._close(send, failure.code.name, failure, step)

    def released(self, send: engine.Send, *, lost: bool) -> None:
        """An attempt was cancelled; `lost`: the other one of a hedge has won."""
        self._close(send, "CANCELLED", lost=lost)

    def refused(self, refusal: engine.Refuse) -> None:
        """An attempt was not made."""
        if self._span is not None:
            attributes: dict[str, Any] = {"rpc.response.status_code": refusal.code.name}
            if refusal.reason:
                attributes["accord.reason"] = refusal.reason
            if refusal.retry_after is not None:
                attributes["accord.retry_after"] = refusal.retry_after
            self._span.add_event("accord.refused", attributes)

    def kept(self) -> None:
        """The call is answered from the cache."""
        if self._span is not None:
            self._span.set_attribute("accord.cache.hit", True)

    def received(self) -> None:
        """A message has come, of a stream of responses."""
        if self._span is not None:
            if self._received < MAX_MESSAGES:
                self._span.add_event("Inbound message", {"sequence-number": self._received})
            self._received += 1

    def finish(self, code: str, *, fallback: bool = False) -> None:
        """The call has ended: with a status of this name, or an exception before it had one."""
        if self._finished:
            return
        self._finished = True
        status = metrics.status(code)
        for send in tuple(self._open):
            self._close(send, status)
        if self._meter is not None:
            self._meter.call(
                status,
                self._clock() - self._started,
                retries=self._retries,
                hedges=self._hedges,
                delay=self._delay,
            )
        span = self._span
        if span is not None:
            if fallback:
                span.set_attribute("accord.fallback", True)
            if self._received:
                span.set_attribute("accord.messages.received", self._received)
            _end(span, code, status, error=status != "OK", owned=self._owned)

    def _close(
        self,
        send: engine.Send,
        status: str,
        failure: engine.Failure | None = None,
        step: engine.Again | engine.Raise | None = None,
        *,
        lost: bool = False,
    ) -> None:
        number = self._open.pop(send, None)
        if number is None:
            return
        seconds = self._clock() - send.started
        if self._meter is not None:
            self._meter.attempt(status, seconds)
        if self._span is None or (self._made == 1 and status == "OK"):
            return  # answered at once: the span says it all
        attributes: dict[str, Any] = {
            "previous-rpc-attempts": number,
            "rpc.response.status_code": status,
            "accord.attempt.duration": seconds,
        }
        if send is self._hedge:
            attributes["accord.attempt.hedge"] = True
        if lost:
            attributes["accord.attempt.lost"] = True
        if failure is not None:
            _describe(attributes, failure, step)
        self._span.add_event("accord.attempt", attributes)


class ServerMethod:
    """A method that is served; observes its calls."""

    __slots__ = ("_attributes", "_method", "_name", "_silent")

    def __init__(self, method: str) -> None:
        """`method` as it travels."""
        self._method = method
        self._silent = method.startswith(_SILENT)
        self._name, self._attributes = _identity(method)

    def begin(self, context: otel.Context, clock: Clock) -> "ServerCall | None":
        """A call has come with this trace: make it the task's; None: not recorded."""
        if self._silent:
            telemetry.enter(context)
            return None
        found = metrics.instruments()
        span, owned = None, True
        if telemetry.configured():
            span = _their_span(trace.SpanKind.SERVER, self._method)
            owned = span is None
            if span is None:
                span = telemetry.tracer().start_span(
                    self._name,
                    context,
                    kind=trace.SpanKind.SERVER,
                    attributes=self._attributes,
                )
                telemetry.enter(context, span)
                if not span.is_recording():
                    span = None
        else:
            telemetry.enter(context)
        if span is None and found is None:
            return None
        meter = None if found is None else found.server(self._method)
        return ServerCall(span, meter, clock, owned=owned)


class ServerCall:
    """One call that is being handled."""

    __slots__ = (
        "_clock",
        "_finished",
        "_meter",
        "_owned",
        "_received",
        "_received_bytes",
        "_sent",
        "_sent_bytes",
        "_span",
        "_started",
    )

    def __init__(
        self,
        span: trace.Span | None,
        meter: metrics.ServerMeter | None,
        clock: Clock,
        *,
        owned: bool,
    ) -> None:
        """A call that has just come. `owned`: the span is ended with it."""
        self._span = span
        self._owned = owned
        self._meter = meter
        self._clock = clock
        self._started = clock()
        self._finished = False
        self._received = self._received_bytes = self._sent = self._sent_bytes = 0
        if meter is not None:
            meter.started += 1

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
        if self._finished:
            return
        self._finished = True
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
            _end(span, code, code, error=code in _SERVER_ERRORS, owned=self._owned)


def outgoing(
    route: Route, clock: Clock, *, traced: bool
) -> tuple[ClientCall | None, tuple[tuple[str, str], ...]]:
    """What observes a call that begins now (None: nothing does), and the metadata of its trace.

    `traced`: the caller has set a traceparent of its own.
    """
    found, configured = metrics.instruments(), telemetry.configured()
    method = route.policy.method
    if (found is None and not configured) or method.startswith(_SILENT):
        return None, () if traced else telemetry.inherited()
    if not configured:
        meter = None if found is None else found.client(route.target.name, method)
        call = None if meter is None else ClientCall(None, meter, clock, owned=False)
        return call, () if traced else telemetry.inherited()
    span: trace.Span | None = _their_span(trace.SpanKind.CLIENT, method)
    owned = span is None
    headers: tuple[tuple[str, str], ...] = ()
    if span is None:
        name, attributes = _identity(method, route.target.name)
        span = telemetry.tracer().start_span(
            name, kind=trace.SpanKind.CLIENT, attributes=attributes
        )
        if not traced:
            headers = tuple(telemetry.headers_of(span.get_span_context()).items())
        if not span.is_recording():
            span = None
    elif not traced:
        headers = tuple(telemetry.headers_of(span.get_span_context()).items())
    if span is None and found is None:
        return None, headers
    meter = None if found is None else found.client(route.target.name, method)
    return ClientCall(span, meter, clock, owned=owned), headers


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


@lru_cache(maxsize=4096)
def _identity(method: str, target: str = "") -> tuple[str, dict[str, Any]]:
    """Name and first attributes of a span. A method that nothing describes is "_OTHER"."""
    name = method[1:]
    attributes = {"rpc.system.name": "grpc", "rpc.method": name}
    if target:
        attributes["server.address"] = target
    if metrics.described(method):
        return name, attributes
    return "_OTHER", {**attributes, "rpc.method": "_OTHER", "rpc.method_original": name}


def _their_span(kind: trace.SpanKind, method: str) -> trace.Span | None:
    """The current span, if opentelemetry-instrumentation-grpc has made it for this very call."""
    if _THEIRS not in sys.modules:
        return None
    span: Any = trace.get_current_span()
    scope = getattr(span, "instrumentation_scope", None)
    if scope is None or scope.name != _THEIRS or not span.is_recording():
        return None
    found: trace.Span = span
    return found if span.kind is kind and span.name == method else None


def _end(span: trace.Span, code: str, status: str, *, error: bool, owned: bool) -> None:
    if code == status:
        span.set_attribute("rpc.response.status_code", status)
    if error:
        span.set_attribute("error.type", code)
        span.set_status(trace.StatusCode.ERROR)
    if owned:
        try:
            span.end()
        except Exception as problem:  # a user's own span processor; the call has its answer
            telemetry.log(logging.WARNING, "a span could not be ended", error=problem)


def _describe(
    attributes: dict[str, Any], failure: engine.Failure, step: engine.Again | engine.Raise | None
) -> None:
    """Why an attempt failed, and what follows from it."""
    if failure.reason:
        attributes["accord.reason"] = failure.reason
    told = failure.retry_info if failure.pushback is None else failure.pushback
    if told is not None:
        attributes["accord.pushback"] = -1.0 if told == NEVER else told
    if isinstance(step, engine.Again):
        attributes["accord.resume" if step.resumes else "accord.retry"] = True
        attributes["accord.retry.delay"] = step.delay
    elif step is not None and step.why:
        attributes["accord.retry.stopped"] = step.why


def _message(span: trace.Span, name: str, number: int, size: int) -> None:
    span.add_event(name, {"sequence-number": number, "message-size": size})
