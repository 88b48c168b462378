"""An outgoing call on its way to gRPC: what travels with it, and how its attempts are read.

What the drivers share; each makes the attempts and the errors of its own kind of gRPC.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final, Generic, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2

from accord import context, errors
from accord._log import log
from accord.client import local_status
from accord.client.call import Attempt, Call
from accord.client.kept_answers import KeptAnswers
from accord.client.method_state import Environment, MethodState
from accord.client.spans import observe
from accord.client.types import (
    CallDetails,
    Details,
    E,
    Failure,
    Metadata,
    Pair,
    Pairs,
    Refuse,
    Req,
    Res,
)
from accord.contract.names import wrong_response
from accord.contract.policy_types import ContractError, MethodPolicy
from accord.errors import DEPENDENCY, EXHAUSTED
from accord.policies.consistency import CONSISTENCY_KEY, read_token
from accord.policies.fault_injection import FAULT_KEY
from accord.policies.retry import ATTEMPT_KEY, PUSHBACK_KEY, format_pushback, parse_pushback
from accord.policies.types import Code, small_number
from accord.telemetry.propagation import TRACEPARENT

MAX_ATTEMPTS_KEY: Final = "accord-max-attempts"
"""Metadata that a caller sets to make fewer attempts than the contract allows; it stays here."""

_TRAVELS: Final = (CONSISTENCY_KEY, context.USER_KEY)
"""Metadata of the library's that a caller may set."""

_DIGITS: Final = 19
"""Those of the largest int64; what is longer counts as absent."""

WORTH_A_FALLBACK: Final = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
)
_NONE: Final[Mapping[str, str | bytes]] = MappingProxyType({})
_CODES: Final = {code: Code(code.value[0]) for code in grpc.StatusCode}

OnResume = Callable[..., None]
"""Told (method, number of the next attempt, error) before a stream is opened again.

The error is gRPC's: an `AioRpcError`, or an `RpcError` of a call over threads.
"""

Shadow = Callable[[MethodPolicy, object, Pairs, float | None], None]  # of any request
"""Sends a copy of a call, if it is one's turn: see `accord.client.shadow.Shadows.send`."""

Fallback = Callable[..., object]  # of any request and response: each method has its own
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
        self.shadow: Shadow = lambda *_: None


class Caller(Generic[E]):
    """Begins the calls to one target."""

    __slots__ = ("_target", "error", "settings")

    def __init__(
        self,
        settings: ClientSettings,
        target: str,
        error: Callable[[grpc.StatusCode, str, Pairs], E],
    ) -> None:
        """`error` makes an error like gRPC's own of a status, its message and its trailers."""
        self.settings = settings
        self._target = target
        self.error = error

    def begin(self, details: CallDetails, request: Req | None = None) -> "Outgoing[Req, Res, E]":
        """A new call; `request` is None for a stream of them. Raises ContractError."""
        method = details.method
        name = method.decode() if isinstance(method, bytes) else method
        return Outgoing(self, details, request, self.settings.env.methods.find(self._target, name))

    def quick(self, method: str) -> MethodState | None:
        """The state of a method; None: its contract is wrong."""
        try:
            return self.settings.env.methods.find(self._target, method)
        except ContractError:
            return None  # to be raised when the call is awaited


class Outgoing(Generic[Req, Res, E]):
    """One call: what the engine decides about it, what travels with it, what is recorded of it."""

    __slots__ = ("_caller", "_kept", "_metadata", "_options", "call", "details")

    def __init__(
        self, caller: Caller[E], details: CallDetails, request: Req | None, state: MethodState
    ) -> None:
        self._caller = caller
        self.details = details
        self._options = _NONE
        self._kept: KeptAnswers | None = None
        env, policy, handled = caller.settings.env, state.policy, context.current()
        metadata: Pairs = ()
        keyed = traced = False
        attempts = token = declared = inherits = None
        inherited_attempt = 0
        if details.metadata:
            metadata, self._options, traced = _sorted(details.metadata)
            keyed = context.IDEMPOTENCY_KEY in self._options
            attempts = self._option(MAX_ATTEMPTS_KEY) or None
        if policy.resume is not None and request is not None:
            token = int(getattr(request, policy.resume.request_field))
        if handled is not None:
            acts_for = None if context.USER_KEY in self._options else handled.user
            metadata = (*metadata, *context.outgoing(handled, acts_for))
            declared = handled.policy.calls.get(policy.method)
            inherits, inherited_attempt = handled.deadline, handled.attempt
        elif (left := context.scope_left()) is not None:
            inherits = env.clock() + left
        self.call = Call(
            state,
            env,
            explicit=details.timeout,
            declared=declared,
            inherits=inherits,
            inherited_attempt=inherited_attempt,
            keyed=keyed,
            max_attempts=attempts,
            token=token,
        )
        self.call.observer, headers = observe(state, env.clock, env.edges, traced=traced)
        self._metadata = metadata + headers if headers else metadata
        if policy.shadow is not None and not (handled is not None and handled.shadow):
            caller.settings.shadow(policy, request, self._metadata, self.call.remaining())

    def details_of(self, attempt: Attempt) -> Details:
        """The details of an attempt."""
        details, metadata = self.details, self._metadata
        if attempt.number:
            metadata = (*metadata, (ATTEMPT_KEY, str(attempt.number)))
        return Details(
            details.method,
            None if attempt.timeout == math.inf else attempt.timeout,
            metadata,
            details.credentials,
            details.wait_for_ready,
            getattr(details, "compression", None),
        )

    def _option(self, key: str) -> int:
        """A number that the caller has set for the library; 0 if not."""
        return small_number(self._options.get(key), _DIGITS) or 0

    # Its attempts.

    @property
    def single(self) -> bool:
        """Whether there is one attempt at most, and nothing to answer instead."""
        state, policy = self.call.state, self.call.policy
        return not (
            policy.retry is not None
            or state.hedge is not None
            or state.remembers
            or policy.method in self._caller.settings.fallbacks
        )

    def admit(self, after: E | None = None) -> Attempt:
        """The next attempt, which follows the error `after`, if any.

        Raises the refusal of one, as gRPC's error; its cause is `after`.
        """
        step = self.call.admit()
        if isinstance(step, Refuse):
            raise self.refusal(step) from after
        return step

    @contextmanager
    def sending(self) -> Iterator[Attempt]:
        """An attempt while it is made: a refusal, or what goes wrong in the block, ends the call.

        Raises the refusal, as gRPC's error.
        """
        step = self.call.admit()
        if isinstance(step, Refuse):
            self.finish(step.code.name)
            raise self.refusal(step)
        with step:
            try:
                yield step
            except BaseException as error:
                self.finish(type(error).__name__)
                raise

    def refusal(self, step: Refuse) -> E:
        """A local refusal as gRPC's own error."""
        code = errors.CODES[step.code.value]
        trailers: Pairs = ()
        if step.retry_after is not None:  # as a server would have sent them
            status = errors.ServiceError(
                code, step.reason, step.message, retry_after=step.retry_after
            ).to_status()
            trailers = (
                (errors.DETAILS_KEY, status.SerializeToString()),
                (PUSHBACK_KEY, format_pushback(step.retry_after)),
            )
        # An open circuit: what there was to be tried has been tried.
        return self.mark(
            self._caller.error(code, step.message, trailers),
            exhausted=step.retry_after is not None,
        )

    def mark(self, error: E, *, exhausted: bool = False) -> E:
        """`error`, which ends the call, with what the server side needs to know of it.

        `exhausted`: it is not to be retried further up; what its own trailers say holds anyway.
        """
        setattr(error, DEPENDENCY, self.call.policy.method)
        if exhausted:
            setattr(error, EXHAUSTED, True)
        return error

    # What is recorded of it.

    def ended(
        self, attempt: Attempt, code: grpc.StatusCode, details: str, trailers: Metadata | None
    ) -> None:
        """The attempt has ended with this status, and the call with it."""
        if code is grpc.StatusCode.OK:
            first = attempt.answered()
        else:
            first = attempt.recorded(read_failure(code, details, trailers))
        if first:
            self.finish(code.name)

    def cancelled(self, attempt: Attempt) -> None:
        """The caller has ended the attempt, and the call with it."""
        if attempt.released():
            self.finish("CANCELLED")

    def finish(self, code: str, *, fallback: bool = False) -> None:
        """The call has ended; the first time counts. `code` as in `ClientCall.finish`."""
        if self.call.observer is not None:
            self.call.observer.finish(code, fallback=fallback)

    def received(self) -> None:
        """A message of a stream of responses has come."""
        if self.call.observer is not None:
            self.call.observer.received()

    # Answers from elsewhere.

    def lookup(self, request: Req) -> Res | None:
        """The kept answer to a request; None: it must be asked."""
        if not self.call.state.caches or not isinstance(request, Message | bytes):
            return None
        asked = read_token(self._options.get(CONSISTENCY_KEY))
        reader = _reader(context.current(), self._options.get(context.USER_KEY))
        with self.call.env.lock:
            self._kept = KeptAnswers(self.call.state)
            kept = self._kept.lookup(request, reader, asked)
        if kept is None:
            if self._kept.seen is not None and CONSISTENCY_KEY not in self._options:
                self._metadata = (*self._metadata, (CONSISTENCY_KEY, str(self._kept.seen)))
            return None
        self.call.kept()
        self.finish("OK")
        # The cache holds the answers of all methods; this one was given to this very method.
        return cast("Res", kept)

    def keep(self, answer: Res, trailers: Metadata | None) -> None:
        """Note what an answer shows, and keep a copy of it."""
        if isinstance(answer, Message):
            (self._kept or KeptAnswers(self.call.state)).keep(answer, trailers)

    def fallback(self, error: E) -> Fallback | None:
        """What may answer instead, after the call has ended with `error`."""
        if error.code() not in WORTH_A_FALLBACK:
            return None
        return self._caller.settings.fallbacks.get(self.call.policy.method)

    def fallback_failed(self, problem: Exception) -> None:
        """The caller is told what happened to the call, not to its replacement."""
        log(logging.ERROR, "a fallback failed", error=problem, method=self.call.policy.method)

    def fell_back(self, answer: object) -> Res | None:  # whatever the application's function gave
        """The answer of the fallback; None: it had none either, or not one of this method."""
        problem = None if answer is None else wrong_response(self.call.policy.method, type(answer))
        if problem is not None:
            self.fallback_failed(TypeError(problem))
            return None
        if answer is not None:
            env, state = self._caller.settings.env, self.call.state
            with env.lock:
                state.fallbacks += 1
                env.count(state.policy.method, "fallback")
        # Fallbacks of all methods are kept in one table; this one was given for this very method.
        return cast("Res | None", answer)


def _reader(handled: context.CallContext | None, token: str | bytes | None) -> str:
    """For whom an answer is kept: what one user may read is nobody else's."""
    if token is not None:
        return str(token)
    if handled is None:
        return ""
    user = handled.user
    return handled.principal if user is None else f"{handled.actor} {sorted(user.roles)}"


def _sorted(given: Metadata) -> tuple[Pairs, Mapping[str, str | bytes], bool]:
    """A caller's metadata: what travels, what is for the library, whether a trace is in it."""
    metadata: list[Pair] = []
    options: dict[str, str | bytes] = {}
    traced = False
    for key, value in given:
        # gRPC takes bytes as well; what it does not take is told by itself, as without us.
        name = key.decode(errors="replace") if isinstance(key, bytes) else str(key)
        if name == TRACEPARENT:
            traced = True
        if name == context.IDEMPOTENCY_KEY:
            options[name] = value
        elif name.startswith(context.RESERVED_PREFIX) and name != FAULT_KEY:
            options[name] = value
            if name not in _TRAVELS:
                continue
        metadata.append((key, value))
    return tuple(metadata), options, traced


def failure_from(error: grpc.RpcError, *, started: bool = False) -> Failure:
    """What a failed attempt says to the engine."""
    return read_failure(error.code(), error.details() or "", trailers_of(error), started=started)


def read_failure(
    code: grpc.StatusCode, details: str, trailers: Metadata | None, *, started: bool = False
) -> Failure:
    """What a status and its trailers say to the engine."""
    pushbacks: list[str | bytes] = []
    reason, retry_info, explained = "", None, False
    for key, value in trailers or ():
        if key == PUSHBACK_KEY:
            pushbacks.append(value)
        elif key == errors.DETAILS_KEY and isinstance(value, bytes):
            explained = True
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
        local_status.broken(code, details),
        started,
        own=not explained and local_status.own(code, details),
        lost=not explained and local_status.lost(code, details),
        handshake="" if explained else local_status.handshake(code, details),
    )


def trailers_of(error: grpc.RpcError) -> Metadata:
    """The trailers of an error."""
    # The stubs give them another type than both kinds of gRPC do.
    return cast("Metadata", error.trailing_metadata())
