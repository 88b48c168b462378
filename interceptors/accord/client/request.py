"""An outgoing call on its way to gRPC: what travels with it, and how its attempts are read.

What the drivers share; each adds the call details and the errors of its own kind of gRPC.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from accord import context, errors
from accord.client.call import Call, Environment
from accord.client.decisions import Failure, Refuse, Send
from accord.client.method_state import Route
from accord.client.observation import ClientCall, outgoing
from accord.errors import DEPENDENCY, EXHAUSTED
from accord.policies.fault_injection import FAULT_KEY
from accord.policies.retry import ATTEMPT_KEY, PUSHBACK_KEY, format_pushback, parse_pushback
from accord.policies.types import Code, small_number
from accord.telemetry.propagation import TRACEPARENT

MAX_ATTEMPTS_KEY: Final = "accord-max-attempts"
"""Metadata that a caller sets to make fewer attempts than the contract allows; it stays here."""

AT_LEAST_KEY: Final = "accord-at-least"
"""Metadata that a caller sets to a position that it has seen; an older kept answer is passed by."""

POSITION_KEY: Final = "accord-position"
"""Trailer in which a handler says the position of the state that its answer shows."""

POSITION_DIGITS: Final = 19
"""Those of the largest int64; what is longer counts as absent."""

WORTH_A_FALLBACK: Final = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
)
E = TypeVar("E", bound=grpc.RpcError)
_NONE: Final[Mapping[str, Any]] = MappingProxyType({})
_CODES: Final = {code: Code(code.value[0]) for code in grpc.StatusCode}


class Outgoing:
    """The call details that only lack the timeout and the number of the attempt."""

    __slots__ = ("_details", "_metadata", "_traced", "call", "observed", "options")

    def __init__(self, details: Any, handled: context.CallContext | None) -> None:
        self._details = details
        self.call: Call
        self.options: Mapping[str, Any] = _NONE
        self.observed: ClientCall | None = None
        self._traced = False
        given = details.metadata
        if not given:
            self._metadata = () if handled is None else tuple(context.outgoing(handled))
            return
        metadata: list[tuple[str, Any]] = []
        options: dict[str, Any] = {}
        for key, value in given:
            if key == TRACEPARENT:
                self._traced = True
            if key == context.IDEMPOTENCY_KEY:
                options[key] = value
            elif key.startswith(context.RESERVED_PREFIX) and key != FAULT_KEY:
                options[key] = value
                continue
            metadata.append((key, value))
        self.options = options
        if handled is not None:
            metadata += context.outgoing(handled)
        self._metadata = tuple(metadata)

    def observe(self, route: Route, clock: Callable[[], float]) -> None:
        """Begin to record the call, if it is, and let its trace travel with it."""
        self.observed, headers = outgoing(route, clock, traced=self._traced)
        if headers:
            self._metadata += headers

    def metadata(self, send: Send) -> tuple[tuple[str, Any], ...]:
        """The metadata of an attempt."""
        if send.number:
            return (*self._metadata, (ATTEMPT_KEY, str(send.number)))
        return self._metadata

    def option(self, key: str) -> int:
        """A number that the caller has set for the library; 0 if not."""
        return small_number(self.options.get(key), POSITION_DIGITS) or 0

    def mark(self, error: E, *, exhausted: bool = False) -> E:
        """`error`, which ends the call, with what the server side needs to know of it.

        `exhausted`: it is not to be retried further up; what its own trailers say holds anyway.
        """
        setattr(error, DEPENDENCY, self.call.policy.method)
        if exhausted:
            setattr(error, EXHAUSTED, True)
        return error

    def finish(self, code: str, *, fallback: bool = False) -> None:
        """The call has ended; the first time counts. `code` as in `ClientCall.finish`."""
        if self.observed is not None:
            self.observed.finish(code, fallback=fallback)

    def received(self) -> None:
        """A message of a stream of responses has come."""
        if self.observed is not None:
            self.observed.received()


def failure_from(error: Any, *, transport: bool = False, started: bool = False) -> Failure:
    """What a failed attempt says to the engine."""
    return read_failure(
        error.code(), error.trailing_metadata(), transport=transport, started=started
    )


def read_failure(
    code: grpc.StatusCode, trailers: Any, *, transport: bool = False, started: bool = False
) -> Failure:
    """What a status and its trailers say to the engine."""
    pushbacks: list[Any] = []
    reason, retry_info = "", None
    for key, value in trailers or ():
        if key == PUSHBACK_KEY:
            pushbacks.append(value)
        elif key == errors.DETAILS_KEY and isinstance(value, bytes):
            try:
                found = errors.ServiceError.from_status(status_pb2.Status.FromString(value))
            except DecodeError:  # a garbled trailer must not hide the status itself
                continue
            reason, retry_info = found.reason, found.retry_after
    return Failure(
        _CODES.get(code, Code.INTERNAL),
        reason,
        parse_pushback(*pushbacks),
        retry_info,
        transport,
        started,
    )


def refusal_trailers(step: Refuse) -> tuple[tuple[str, str | bytes], ...]:
    """The trailers of a local refusal, as a server would have sent them."""
    if step.retry_after is None:
        return ()
    status = errors.ServiceError(
        grpc_code(step.code), step.reason, step.message, retry_after=step.retry_after
    ).to_status()
    return (
        (errors.DETAILS_KEY, status.SerializeToString()),
        (PUSHBACK_KEY, format_pushback(step.retry_after)),
    )


def position_of(trailers: Any) -> int:
    """The position of the state that an answer shows; 0: unknown."""
    position = 0
    for key, value in trailers or ():
        if key == POSITION_KEY:
            position = small_number(value, POSITION_DIGITS) or 0
    return position


def broken(error: Any) -> bool:
    """Whether the transport broke below the status: nobody's answer, so nobody's decision."""
    text = error.details() or ""
    return (error.code() is grpc.StatusCode.INTERNAL and "RST_STREAM" in text) or (
        error.code() is grpc.StatusCode.UNKNOWN and text == "Stream removed"
    )


def grpc_code(code: Code) -> grpc.StatusCode:
    """A status code as gRPC has it."""
    return errors.CODES[code.value]


OnResume = Callable[[str, int, Any], None]
"""Told (method, number of the next attempt, error) before a stream is opened again.

The error is gRPC's: an `AioRpcError`, or an `RpcError` of a call over threads.
"""

Fallback = Callable[[Any, Any], Any]
"""Given a request and the error of its call, the response to use instead, or None for the error.

The error is gRPC's, as in `OnResume`.
May be a coroutine function, which only calls of `grpc.aio` can use. It should not call the same
target again.
"""


class ClientSettings:
    """What the calls of one process share."""

    def __init__(self, env: Environment, on_resume: OnResume | None = None) -> None:
        self.env = env
        self.on_resume = on_resume
        self.fallbacks: dict[str, Fallback] = {}
        """By method as it travels, "/pkg.Service/Method"."""


def new_call(
    route: Route,
    env: Environment,
    outgoing: Outgoing,
    handled: context.CallContext | None,
    *,
    timeout: float | None,
    request: Any,
    make: Callable[..., Call] = Call,
) -> Call:
    """The engine's side of a call that begins now; `request` is None for a stream of them."""
    policy = route.policy
    keyed, attempts, token = False, None, None
    if outgoing.options:
        keyed = context.IDEMPOTENCY_KEY in outgoing.options
        attempts = outgoing.option(MAX_ATTEMPTS_KEY) or None
    if policy.resume is not None and request is not None:
        token = int(getattr(request, policy.resume.request_field))
    if handled is None:
        call = make(route, env, explicit=timeout, keyed=keyed, max_attempts=attempts, token=token)
    else:
        call = make(
            route,
            env,
            explicit=timeout,
            declared=handled.policy.calls.get(policy.method),
            inherits=handled.deadline,
            inherited_attempt=handled.attempt,
            keyed=keyed,
            max_attempts=attempts,
            token=token,
        )
    outgoing.observe(route, env.clock)
    call.observer = outgoing.observed
    return call


def lookup(call: Call, outgoing: Outgoing, request: Any) -> Any:
    """A copy of the kept answer to a request, or None."""
    handled = context.current()
    kept = call.lookup(
        request,
        principal="" if handled is None else handled.principal,
        at_least=outgoing.option(AT_LEAST_KEY),
    )
    return None if kept is None else type(kept).FromString(kept.SerializeToString())


def keep(call: Call, answer: Any, trailers: Any) -> None:
    """Keep a copy of an answer: the caller may change its own."""
    raw = answer.SerializeToString()
    call.keep(type(answer).FromString(raw), size=len(raw), position=position_of(trailers))
