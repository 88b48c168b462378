"""What is recorded of an outgoing call: one span, one event per attempt, and durations.

    observe(state) begins it, in `request.Outgoing`, which makes it the engine's observer:
    attempts, back-off, hedges, refusals and resumes come from the engine alone
    outgoing.finish(code) ends it, whichever way the call ends; the first time counts
    outgoing.received() for every message of a stream of responses

gRFC A72 has a span per attempt: here an attempt is an event of its call's span, `accord.attempt`,
added when it ends. A call that is answered at once has none: its only attempt is the span itself.
"""

from opentelemetry import trace
from opentelemetry.util.types import AttributeValue

from accord.client.method_state import MethodState
from accord.client.types import Again, Failure, Raise, Refuse, Sent
from accord.contract.names import GRPC
from accord.policies.retry import NEVER
from accord.telemetry import metrics, propagation
from accord.telemetry.edges import Edges, Key, Watched
from accord.telemetry.instrumentation import (
    MAX_MESSAGES,
    Clock,
    end_span,
    start_span,
)


class ClientCall:
    """One outgoing call; the engine's observer. Decides nothing and raises nothing."""

    __slots__ = ("_clock", "_delay", "_finished", "_hedge", "_hedges", "_idle", "_made", "_meter",
                 "_open", "_owned", "_received", "_retries", "_span", "_started",
                 "_watched")  # fmt: skip

    def __init__(
        self,
        span: trace.Span | None,
        meter: metrics.ClientMeter | None,
        watched: Watched | None,
        clock: Clock,
        *,
        owned: bool,
    ) -> None:
        """A call that begins now. `owned`: the span is ended with it."""
        self._finished = False
        self._span = span
        self._owned = owned
        self._meter = meter
        self._watched = watched
        self._clock = clock
        self._started = clock()
        self._open: dict[Sent, int] = {}
        self._hedge: Sent | None = None
        self._idle: float | None = None
        self._delay = 0.0
        self._made = self._retries = self._hedges = self._received = 0

    def sent(self, attempt: Sent, *, hedge: bool = False) -> None:
        """An attempt is made."""
        if self._meter is not None:
            self._meter.attempts += 1
        self._open[attempt] = self._made
        self._made += 1
        if hedge:
            self._hedge = attempt
            self._hedges += 1
        elif self._idle is not None:
            self._retries += 1
            self._delay += attempt.started - self._idle
            self._idle = None

    def succeeded(self, attempt: Sent) -> None:
        """An attempt was answered in full. Not told of streams: they end with their call."""
        self._close(attempt, "OK")

    def failed(self, attempt: Sent, failure: Failure, step: Again | Raise | None) -> None:
        """An attempt has failed, and this is what follows from it."""
        if isinstance(step, Again):
            self._idle = self._clock()
        self._close(attempt, failure.code.name, failure, step)

    def released(self, attempt: Sent, *, lost: bool) -> None:
        """An attempt was cancelled; `lost`: the other one of a hedge has won."""
        self._close(attempt, "CANCELLED", lost=lost)

    def refused(self, refusal: Refuse) -> None:
        """An attempt was not made."""
        if self._span is not None:
            attributes: dict[str, AttributeValue] = {"rpc.response.status_code": refusal.code.name}
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
        for attempt in tuple(self._open):
            self._close(attempt, status)
        if self._meter is not None:
            self._meter.call(
                status,
                self._clock() - self._started,
                retries=self._retries,
                hedges=self._hedges,
                delay=self._delay,
            )
        if self._watched is not None:
            self._watched.end(status)
        span = self._span
        if span is not None:
            if fallback:
                span.set_attribute("accord.fallback", True)
            if self._received:
                span.set_attribute("accord.messages.received", self._received)
            end_span(span, code, status, error=status != "OK", owned=self._owned)

    def _close(
        self,
        attempt: Sent,
        status: str,
        failure: Failure | None = None,
        step: Again | Raise | None = None,
        *,
        lost: bool = False,
    ) -> None:
        number = self._open.pop(attempt, None)
        if number is None:
            return
        seconds = self._clock() - attempt.started
        if self._meter is not None:
            self._meter.attempt(status, seconds)
        if self._span is None or (self._made == 1 and status == "OK"):
            return  # answered at once: the span says it all
        attributes: dict[str, AttributeValue] = {
            "previous-rpc-attempts": number,
            "rpc.response.status_code": status,
            "accord.attempt.duration": seconds,
        }
        if attempt is self._hedge:
            attributes["accord.attempt.hedge"] = True
        if lost:
            attributes["accord.attempt.lost"] = True
        if failure is not None:
            _describe(attributes, failure, step)
        self._span.add_event("accord.attempt", attributes)


def observe(
    state: MethodState, clock: Clock, edges: Edges, *, traced: bool
) -> tuple[ClientCall | None, tuple[tuple[str, str], ...]]:
    """What observes a call that begins now (None: nothing does), and the metadata of its trace.

    `traced`: the caller has set a traceparent of its own.
    """
    found, configured = metrics.instruments(), propagation.configured()
    method = state.policy.method
    watched = None
    if edges.watched:
        watched = edges.begin(Key(False, state.target.name, method), clock())
    if (found is None and not configured and watched is None) or method.startswith(GRPC):
        return None, () if traced else propagation.inherited()
    span, owned = None, False
    headers: tuple[tuple[str, str], ...] = ()
    if configured:
        span, owned = start_span(trace.SpanKind.CLIENT, method, state.target.name)
        if not traced:
            headers = tuple(propagation.headers_of(span.get_span_context()).items())
        if not span.is_recording():
            span = None
    elif not traced:
        headers = propagation.inherited()
    if span is None and found is None and watched is None:
        return None, headers
    meter = None if found is None else found.client(state.target.name, method)
    return ClientCall(span, meter, watched, clock, owned=owned), headers


def _describe(
    attributes: dict[str, AttributeValue], failure: Failure, step: Again | Raise | None
) -> None:
    """Why an attempt failed, and what follows from it."""
    if failure.reason:
        attributes["accord.reason"] = failure.reason
    told = failure.retry_info if failure.pushback is None else failure.pushback
    if told is not None:
        attributes["accord.pushback"] = -1.0 if told == NEVER else told
    if isinstance(step, Again):
        attributes["accord.resume" if step.resumes else "accord.retry"] = True
        attributes["accord.retry.delay"] = step.delay
    elif step is not None and step.why:
        attributes["accord.retry.stopped"] = step.why
