"""Server interceptor: one pipeline around every handler.

context -> deadline -> authorisation -> depth -> rate limit -> concurrency limit -> validation
    -> idempotency -> fault injection -> handler

What costs nothing to refuse comes first: a call is not even decoded before there is room for it.

It goes first in a server's list of interceptors: to those before it, messages are bytes and every
call sends a stream of them.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import grpc
import grpc.aio

from accord import context, errors, telemetry
from accord.aio import EOF, handlers
from accord.aio.admission import Admission
from accord.aio.failure import Answer, answer_to
from accord.aio.repeat import Repeats
from accord.aio.resumable import OPEN_KEY
from accord.aio.servicer import Codec, ServerContext
from accord.aio.watchdog import Watchdog
from accord.context import CallContext, Idempotency
from accord.contract import ContractError, Key, MethodPolicy, method_policy
from accord.control import Control
from accord.hooks import FieldViolation, IdempotencyStore, Validator
from accord.policies import idempotency
from accord.policies.depth import DEPTH_KEY, read_depth
from accord.policies.faults import FAULT_KEY, INJECTED
from accord.policies.pushback import PUSHBACK_KEY
from accord.policies.queue import Permit, Waiter
from accord.policies.retry import ATTEMPT_KEY, read_attempt

T = TypeVar("T")

_READ: Final = telemetry.HEADERS | {
    DEPTH_KEY,
    FAULT_KEY,
    ATTEMPT_KEY,
    context.PRIORITY_KEY,
    context.IDEMPOTENCY_KEY,
}
_SPIFFE: Final = "peer_spiffe_id"
_MAX_METHODS: Final = 4096


@dataclass(frozen=True, slots=True)
class Settings:
    """What the pipeline of one process works with."""

    service: str
    clock: Callable[[], float]
    control: Control
    validator: Validator | None = None
    idempotency: IdempotencyStore | None = None
    translate: errors.Translate | None = None
    authorize: bool = False
    """Whether every caller needs a verified identity. One that has it is checked in any case."""


class ServerInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Enforces the contract of every method that a server serves."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._repeats = (
            Repeats(settings.idempotency, settings.clock) if settings.idempotency else None
        )
        self._wrapped: dict[str, tuple[Any, Any]] = {}

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """The method's handler inside its pipeline, which is built once."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        known = self._wrapped.get(method)
        if known is None or known[0] is not handler:
            if len(self._wrapped) >= _MAX_METHODS:
                self._wrapped.clear()  # a generic handler that serves any name
            known = self._wrapped[method] = (handler, self._wrap(method, handler))
        return known[1]

    def _wrap(self, method: str, handler: Any) -> Any:
        try:
            policy = method_policy(method)
        except ContractError as error:
            return _broken_contract(method, self._settings, error)
        codec = Codec(
            handler.request_deserializer,
            handler.response_serializer,
            self._settings.validator if handler.request_deserializer else None,
        )
        streaming = handler.request_streaming or handler.response_streaming
        pipeline = Pipeline(self._settings, self._repeats, policy, codec, streaming=streaming)
        # A single request is read like a stream of one: when gRPC reads it, a call without one is
        # never answered, and none of our limits hold before it comes.
        streamed = handler.request_streaming
        if handler.response_streaming:
            handle = handler.stream_stream if streamed else handler.unary_stream
            return grpc.stream_stream_rpc_method_handler(
                pipeline.many(handlers.many(handle), streamed=streamed)
            )
        handle = handler.stream_unary if streamed else handler.unary_unary
        return grpc.stream_unary_rpc_method_handler(
            pipeline.single(handlers.single(handle), streamed=streamed)
        )


class Pipeline:
    """The stages of one method."""

    def __init__(
        self,
        settings: Settings,
        repeats: Repeats | None,
        policy: MethodPolicy,
        codec: Codec,
        *,
        streaming: bool,
    ) -> None:
        self._settings = settings
        self._control = settings.control
        self._repeats = repeats
        self._method = policy.method
        self._initial = policy
        self._codec = codec
        self._admission = Admission(
            policy.method,
            settings.control,
            streaming=streaming,
            authorize=settings.authorize,
        )

    def single(self, handle: handlers.Single, *, streamed: bool) -> Any:
        """A gRPC behaviour that answers with one response, as bytes."""

        async def behaviour(requests: Any, grpc_context: Any) -> bytes:
            async def body(active: Active, outer: ServerContext) -> bytes:
                request = None if streamed else self._codec.decode(active.raw)
                call = active.call
                call.idempotency = self._identify(active, request)

                async def run() -> bytes:
                    if self._control.faults:
                        await self._harm(active)
                    active.begin()
                    response = await handle(request, outer)
                    return b"" if outer.failed() else self._codec.encode(response)

                if call.idempotency is None or streamed or self._repeats is None:
                    return await run()
                return await self._repeats.answer(call.idempotency, call.deadline, run)

            return await self._run(grpc_context, body, streamed=streamed)

        return behaviour

    def many(self, handle: handlers.Many, *, streamed: bool) -> Any:
        """A gRPC behaviour that writes its responses."""

        async def behaviour(requests: Any, grpc_context: Any) -> None:
            async def body(active: Active, outer: ServerContext) -> None:
                request = None if streamed else self._codec.decode(active.raw)
                active.call.idempotency = self._identify(active, request)
                if self._control.faults:
                    await self._harm(active)
                active.begin()
                if active.call.policy.resume is not None:
                    # A quiet stream and a dead one look the same until the server says "open".
                    await grpc_context.send_initial_metadata(((OPEN_KEY, "open"),))
                await handle(request, outer)

            await self._run(grpc_context, body, streamed=streamed)

        return behaviour

    async def _run(
        self,
        grpc_context: Any,
        body: Callable[["Active", ServerContext], Awaitable[T]],
        *,
        streamed: bool,
    ) -> T:
        """Everything around the handler. Whatever happens inside, the caller gets a status."""
        headers = _headers(grpc_context)
        remaining = grpc_context.time_remaining()
        span = telemetry.server_span(self._method, headers)
        call = self._enter(grpc_context, headers, remaining)
        watchdog = Watchdog(call.policy, remaining)
        active = Active(call, headers)
        permit: Permit | None = None
        code = "CANCELLED"
        try:
            # The one who asked has gone: work that is late already is not begun.
            if remaining is not None and remaining <= 0:
                raise errors.DeadlineExceeded("the deadline had passed when the call arrived")
            self._admission.check(call)
            if not streamed:
                # Before there is a place for it: who never sends its request must not hold one.
                active.raw = await _only_request(grpc_context)
            admitted = self._admission.begin(call)
            if isinstance(admitted, Waiter):
                permit = await self._admission.wait(call, admitted)
            else:
                permit = admitted
            outer = ServerContext(grpc_context, self._codec, watchdog)
            result = await body(active, outer)
            late = watchdog.expired()
            if late is not None:
                raise late
            code = "OK"
            return result
        except BaseException as error:
            watchdog.stop()
            answer = answer_to(watchdog.expired() or error, call, self._settings.translate)
            if answer is None:
                raise
            code = _code(answer.status.code).name
            await grpc_context.abort(
                _code(answer.status.code),
                answer.status.message,
                _trailers(grpc_context, answer),
            )
            raise  # for the type checker: abort always raises
        finally:
            watchdog.stop()
            if permit is not None:
                # A caller that lost patience says nothing of the load; a deadline does.
                self._admission.end(
                    permit,
                    sample=active.begun and (code != "CANCELLED" or call.remaining() == 0),
                )
            telemetry.end_span(span, self._method, code)

    def _enter(
        self, grpc_context: Any, headers: dict[str, Any], remaining: float | None
    ) -> CallContext:
        clock = self._settings.clock
        policy = self._policy()
        bounds = [seconds for seconds in (remaining, policy.timeout) if seconds is not None]
        call = CallContext(
            service=self._settings.service,
            policy=policy,
            deadline=clock() + min(bounds) if bounds else None,
            clock=clock,
            principal=_principal(grpc_context),
            depth=read_depth(headers.get(DEPTH_KEY)),
            priority=context.read_priority(
                headers.get(context.PRIORITY_KEY), policy.limit.priority
            ),
            attempt=read_attempt(headers.get(ATTEMPT_KEY)),
        )
        context.enter(call)
        return call

    def _policy(self) -> MethodPolicy:
        """What holds now: live policy may have changed it."""
        try:
            return self._control.overrides.policy(self._method)
        except ContractError:
            return self._initial

    def _identify(self, active: "Active", request: Any) -> Idempotency | None:
        """How a repeat of this call is recognised. Raises InvalidArgument for a bad key."""
        needed = active.call.policy.key
        if needed is Key.NONE:
            return None
        key = active.headers.get(context.IDEMPOTENCY_KEY)
        if key is None:
            if needed is Key.REQUIRED:
                raise _bad_key("is required", "IDEMPOTENCY_KEY_REQUIRED")
            return None
        problem = idempotency.key_problem(key)
        if problem is not None:
            raise _bad_key(problem, "IDEMPOTENCY_KEY_INVALID")
        seen = b"" if request is None else idempotency.fingerprint(self._method, request)
        return Idempotency(idempotency.Scope(active.call.principal, self._method, key), seen)

    async def _harm(self, active: "Active") -> None:
        """The fault that an operator has injected: first a delay, then an abort."""
        drawn = self._control.faults.draw(self._method, active.headers.get(FAULT_KEY))
        if drawn is None:
            return
        fault, faults = drawn
        if fault.delay > 0:
            self._control.counts.add(self._method, "fault.delayed")
            try:
                await asyncio.sleep(fault.delay)
            finally:
                faults.done(fault)
        if fault.abort is not None:
            self._control.counts.add(self._method, "fault.aborted")
            raise errors.ServiceError(_code(fault.abort), INJECTED, "a fault was injected")


class Active:
    """A call on its way through the pipeline."""

    __slots__ = ("begun", "call", "headers", "raw")

    def __init__(self, call: CallContext, headers: dict[str, Any]) -> None:
        self.call = call
        self.headers = headers
        self.begun = False
        self.raw: Any = None
        """The one request, as it came; None for a stream of them."""

    def begin(self) -> None:
        """Its handler is next. Raises DeadlineExceeded: it may have waited for too long."""
        if self.call.remaining() == 0:
            raise errors.DeadlineExceeded("the deadline passed before the work was begun")
        self.begun = True


async def _only_request(grpc_context: Any) -> Any:
    """The request of a call that has one, as bytes. Raises InvalidArgument for none."""
    raw = await grpc_context.read()
    if raw is EOF:
        raise errors.InvalidArgument(
            FieldViolation("", "the call has no request"), reason="UNDECODABLE"
        )
    return raw


def _headers(grpc_context: Any) -> dict[str, Any]:
    """The metadata that the library reads. Of several values the last one counts."""
    metadata = grpc_context.invocation_metadata() or ()
    return {key: value for key, value in metadata if key in _READ}


def _trailers(grpc_context: Any, answer: Answer) -> tuple[tuple[str, str | bytes], ...]:
    trailers = tuple(grpc_context.trailing_metadata() or ())
    if answer.pushback is not None:
        # Two values of this trailer would mean "never".
        trailers = tuple(item for item in trailers if item[0] != PUSHBACK_KEY)
        trailers += ((PUSHBACK_KEY, answer.pushback),)
    return (*trailers, (errors.DETAILS_KEY, answer.status.SerializeToString()))


def _principal(grpc_context: Any) -> str:
    """Who calls, by certificate and nothing else."""
    found = grpc_context.auth_context().get(_SPIFFE)
    return found[0].decode(errors="replace") if found else context.ANONYMOUS


def _bad_key(problem: str, reason: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(
        FieldViolation(f"metadata.{context.IDEMPOTENCY_KEY}", problem), reason=reason
    )


def _code(number: int) -> grpc.StatusCode:
    return errors.CODES.get(number, grpc.StatusCode.INTERNAL)


def _broken_contract(method: str, settings: Settings, error: ContractError) -> Any:
    """A handler that answers INTERNAL to all four arities; the log has the reason."""

    async def refuse(request: Any, outer: ServerContext) -> Any:
        raise error

    pipeline = Pipeline(
        settings, None, MethodPolicy(method), Codec(None, None, None), streaming=False
    )
    return grpc.stream_unary_rpc_method_handler(pipeline.single(refuse, streamed=True))
