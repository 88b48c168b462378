"""The stages of a method: what a call passes on its way to a handler, and back.

    arrive    metadata, trace -> the current call
    check     deadline -> authorisation -> depth -> rate limit -> end user
              (the driver reads the one request: who never sends it must not hold a place)
    enter     concurrency limit
              (the driver waits for a place, if the call has to)
    accept    validation -> idempotency
              (the driver looks for a stored answer)
    harm      fault injection
              (the driver waits, if there is a delay)
    begin     fault injection's abort -> deadline, once more
              (the driver runs the handler and sends what it answers)
    end       permit, telemetry

They decide and do no I/O; both drivers walk them in this order. What costs nothing to refuse comes
first: a call is not even decoded before there is room for it.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic

import grpc
from opentelemetry.context import Context

from accord import context, errors
from accord.context import CallContext
from accord.contract.policy_types import ContractError, Key, MethodPolicy
from accord.contract.registry import known
from accord.interfaces import FieldViolation
from accord.policies.fault_injection import FAULT_KEY, INJECTED
from accord.policies.queue import Permit, Waiter
from accord.policies.resume import OPEN_KEY
from accord.policies.types import Code, Priority
from accord.server import spans
from accord.server.admission import Admission
from accord.server.callers import NOBODY, Caller
from accord.server.codec import Codec
from accord.server.idempotency import identify
from accord.server.request import READ, Peers, Settings, holders, read_headers
from accord.server.timeouts import TimeLimits, time_limits
from accord.server.types import NO_ERROR, GrpcContext, Req, Res, Status, Trailers
from accord.telemetry import edges
from accord.telemetry.propagation import incoming

IGNORED: Final = "metadata.ignored"
"""Count of headers that could not be read; each is followed by its name."""

CANCELLED: Final = "CANCELLED"

OPENED: Final[Trailers] = ((OPEN_KEY, "open"),)
"""Initial metadata of a resumable stream that has begun: a quiet one and a dead one look alike."""

_NO_TRACE: Final = Context()


@dataclass(slots=True, eq=False)
class IncomingCall:
    """A call on its way through the stages."""

    call: CallContext
    headers: dict[str, str | bytes]
    remaining: float | None
    """Seconds that the caller's deadline left on arrival; None: it has none."""
    limits: TimeLimits | None
    """What is to be watched; None: nothing."""
    observed: spans.ServerCall | None
    watched: edges.Watched | None
    arrived: float
    """When it came to this process."""
    caller: Caller
    holders: tuple[str, ...] = ()
    """Of a stream: who holds its place."""
    shared: bool = False
    """Whether they do."""
    permit: Permit | None = None
    abort: Code | None = None
    """With what a fault that an operator has injected ends it."""
    status: str = CANCELLED
    """Name of the status that the caller has been answered with, or will be."""


class Stages(Generic[Req, Res]):
    """The stages of one method."""

    def __init__(
        self,
        settings: Settings,
        policy: MethodPolicy,
        codec: Codec[Req, Res],
        peers: Peers,
        *,
        streamed: bool,
        streaming: bool,
        broken: ContractError | None,
    ) -> None:
        """`streamed`: its requests are a stream; `streaming`: they are, or its responses.

        `broken`: what is wrong with its contract, for which all calls are refused.
        """
        self.codec = codec
        self.faults = settings.state.faults
        self._settings = settings
        self._state = settings.state
        self._method = policy.method
        self._arrived = settings.state.arrivals(policy.method)
        self._peers = peers
        self.translate = settings.translate
        self.streamed = streamed
        self._streaming = streaming
        self._broken = broken
        self._count = partial(settings.state.counts.add, policy.method)
        self.admission = Admission(
            policy.method, settings.state, streaming=streaming, authorize=settings.authorize
        )
        self._keep(policy)
        self._generation = -1

    def arrive(
        self, grpc_context: GrpcContext, remaining: float | None, waited: float = 0.0
    ) -> IncomingCall:
        """A call has come, and is the current one from now on.

        `remaining`: seconds that the caller's deadline leaves; `waited`: those that it has waited
        for a thread.
        """
        next(self._arrived)
        metadata = grpc_context.invocation_metadata() or ()
        headers = {key: value for key, value in metadata if key in READ}
        if self._generation != self._state.overrides.generation:
            self._ask()
        settings, policy = self._settings, self._policy
        left = policy.timeout
        if left is None or (remaining is not None and remaining < left):
            left = remaining
        now = settings.clock()
        caller = self._peers.callers.find(grpc_context) if self._peers.secure else NOBODY
        call = CallContext(
            settings.service,
            policy,
            None if left is None else now + left,
            settings.clock,
            caller.principal,
            priority=Priority.DEFAULT if policy.limit is None else policy.limit.priority,
        )
        trace = _NO_TRACE
        if headers:
            trace, ignored = incoming(headers)
            read_headers(call, headers, ignored)
            for name in ignored:
                self._count(f"{IGNORED}.{name}")
        observed = spans.begin(self._method, trace, settings.clock)
        context.enter(call)
        limited = remaining is None or remaining > self._bound
        arrived, watched = now - waited, None
        if self._state.edges.watched:
            edge = edges.Key(True, call.principal, self._method)
            watched = self._state.edges.begin(edge, arrived)
        found = IncomingCall(
            call, headers, remaining, self._limits if limited else None, observed, watched,
            arrived, caller,
        )  # fmt: skip
        if self._streaming:
            found.holders = holders(grpc_context, call.principal)
        return found

    def check(self, incoming: IncomingCall) -> None:
        """Whether this caller may do this now. Raises ServiceError."""
        call = incoming.call
        if call.deadline is not None and call.clock() >= call.deadline:
            # The one who asked has gone: work that is late already is not begun.
            raise errors.DeadlineExceeded(message="the deadline had passed when the call arrived")
        self.admission.check(call, incoming.caller)
        token = incoming.headers.get(context.USER_KEY)
        if token is not None and self._settings.users is not None:
            call.user = self._settings.users(token)

    def enter(
        self,
        incoming: IncomingCall,
        raw: bytes | None,
        bell: Callable[[], Callable[[], None]],
        *,
        looped: bool,
    ) -> Waiter | None:
        """Take a place; a call that has to wait for one gets a `Waiter`: see `Admission`.

        `raw` is the one request; None: requests are a stream, or not one. `bell` makes what
        is rung when the wait is over; `looped`: an event loop runs the handler. Raises
        InvalidArgument or ResourceExhausted.
        """
        if raw is not None:
            if incoming.observed is not None:
                incoming.observed.received(len(raw), event=False)
        elif not self.streamed:
            problem = FieldViolation("", "the call has no request, or more than one")
            raise errors.InvalidArgument("UNDECODABLE", problem)
        if self._streaming:
            incoming.shared = self.admission.share(incoming.call, incoming.holders)
        waited = self._settings.clock() - incoming.arrived
        place = self.admission.enter(incoming.call, bell, waited=waited, looped=looped)
        if isinstance(place, Waiter):
            return place
        incoming.permit = place
        return None

    def accept(self, incoming: IncomingCall, raw: bytes | None) -> Req | None:
        """The request; None where they are a stream. Raises InvalidArgument."""
        call = incoming.call
        request = None if raw is None else self.codec.decode(raw)
        if call.policy.key is not Key.NONE:
            call.idempotency = identify(call, incoming.headers, request)
        return request

    @contextmanager
    def harm(self, incoming: IncomingCall) -> Iterator[float]:
        """What an operator does to this call, if `faults` are injected: the driver waits inside."""
        injected = self.faults.of(self._method)
        if injected is None:
            yield 0.0
            return
        fault = injected.faults.draw(incoming.headers.get(FAULT_KEY))
        incoming.abort = fault.abort
        if fault.delay > 0:
            self._count("fault.delayed")
        try:
            yield fault.delay
        finally:
            injected.faults.done(fault)

    def begin(self, incoming: IncomingCall) -> None:
        """Its handler is next. Raises ServiceError, or ContractError for a broken contract."""
        if incoming.abort is not None:
            self._count("fault.aborted")
            code = errors.grpc_code(incoming.abort)
            raise errors.ServiceError(code, INJECTED, "a fault was injected")
        call = incoming.call
        if call.deadline is not None and call.clock() >= call.deadline:
            raise errors.DeadlineExceeded(message="the deadline passed before the work was begun")
        if self._broken is not None:
            raise self._broken.with_traceback(None)  # the one object, each time

    def end(self, incoming: IncomingCall, grpc_context: GrpcContext | None) -> None:
        """A call has ended, whatever way. No context: nobody has heard the status that it has."""
        if incoming.shared:
            self._state.shares.give_back(incoming.holders)
        if incoming.permit is not None:
            self.admission.limiter.release(incoming.permit)
        if incoming.observed is not None or incoming.watched is not None:
            code = _outcome(incoming, None if grpc_context is None else grpc_context.code())
            if incoming.observed is not None:
                incoming.observed.finish(code)
            if incoming.watched is not None:
                incoming.watched.end(code)

    def _ask(self) -> None:
        """What holds now: live policy may have changed it.

        That of a method without a descriptor is asked for each time: it may be imported since.
        """
        generation = self._state.overrides.generation if known(self._method) else -1
        try:
            policy = self._state.overrides.policy(self._method)
        except ContractError:
            return  # it refuses every call
        if policy is not self._policy:
            self._keep(policy)
        self._generation = generation

    def _keep(self, policy: MethodPolicy) -> None:
        self._policy = policy
        self._limits = time_limits(policy)
        self._bound = math.inf if self._limits is None else min(self._limits)


def _outcome(incoming: IncomingCall, code: Status) -> str:
    """Name of the status with which a call has ended."""
    if code not in NO_ERROR:  # the handler has set it, or aborted, by itself
        return code.name if isinstance(code, grpc.StatusCode) else errors.grpc_code(code).name
    if incoming.status == CANCELLED and incoming.call.remaining() == 0:
        return "DEADLINE_EXCEEDED"
    return incoming.status
