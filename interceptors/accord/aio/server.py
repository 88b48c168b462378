"""Server interceptor: one pipeline around every handler.

context -> deadline -> (identity, rate, limit: to come) -> validation -> idempotency -> handler

It goes first in a server's list of interceptors: to those before it, messages are bytes and every
call sends a stream of them.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import grpc
import grpc.aio

from accord import context, errors, telemetry
from accord.aio import EOF, handlers
from accord.aio.failure import status_of
from accord.aio.repeat import Repeats
from accord.aio.resumable import OPEN_KEY
from accord.aio.servicer import Codec, ServerContext
from accord.aio.watchdog import Watchdog
from accord.context import CallContext, Idempotency
from accord.contract import ContractError, Key, MethodPolicy, method_policy
from accord.hooks import FieldViolation, IdempotencyStore, Validator
from accord.policies import idempotency

T = TypeVar("T")

_READ: Final = telemetry.HEADERS | {
    context.DEPTH_KEY,
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
    validator: Validator | None = None
    idempotency: IdempotencyStore | None = None
    translate: errors.Translate | None = None


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
        pipeline = Pipeline(self._settings, self._repeats, policy, codec)
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
        self, settings: Settings, repeats: Repeats | None, policy: MethodPolicy, codec: Codec
    ) -> None:
        self._settings = settings
        self._repeats = repeats
        self._policy = policy
        self._codec = codec

    def single(self, handle: handlers.Single, *, streamed: bool) -> Any:
        """A gRPC behaviour that answers with one response, as bytes."""

        async def behaviour(requests: Any, grpc_context: Any) -> bytes:
            async def body(call: CallContext, outer: ServerContext) -> bytes:
                request = None if streamed else await self._only(grpc_context)
                call.idempotency = self._identify(call, outer, request)

                async def run() -> bytes:
                    response = await handle(request, outer)
                    return b"" if outer.failed() else self._codec.encode(response)

                if call.idempotency is None or streamed or self._repeats is None:
                    return await run()
                return await self._repeats.answer(call.idempotency, call.deadline, run)

            return await self._run(grpc_context, body)

        return behaviour

    def many(self, handle: handlers.Many, *, streamed: bool) -> Any:
        """A gRPC behaviour that writes its responses."""

        async def behaviour(requests: Any, grpc_context: Any) -> None:
            async def body(call: CallContext, outer: ServerContext) -> None:
                request = None if streamed else await self._only(grpc_context)
                call.idempotency = self._identify(call, outer, request)
                if self._policy.resume is not None:
                    # A quiet stream and a dead one look the same until the server says "open".
                    await grpc_context.send_initial_metadata(((OPEN_KEY, "open"),))
                await handle(request, outer)

            await self._run(grpc_context, body)

        return behaviour

    async def _only(self, grpc_context: Any) -> Any:
        """The request of a call that has one. Raises InvalidArgument for none or a bad one."""
        raw = await grpc_context.read()
        if raw is EOF:
            raise errors.InvalidArgument(
                FieldViolation("", "the call has no request"), reason="UNDECODABLE"
            )
        return self._codec.decode(raw)

    async def _run(
        self, grpc_context: Any, body: Callable[[CallContext, ServerContext], Awaitable[T]]
    ) -> T:
        """Everything around the handler. Whatever happens inside, the caller gets a status."""
        headers = _headers(grpc_context)
        remaining = grpc_context.time_remaining()
        span = telemetry.server_span(self._policy.method, headers)
        call = self._enter(grpc_context, headers, remaining)
        watchdog = Watchdog(self._policy, remaining)
        code = "CANCELLED"
        try:
            # The one who asked has gone: work that is late already is not begun.
            if remaining is not None and remaining <= 0:
                raise errors.DeadlineExceeded("the deadline had passed when the call arrived")
            outer = ServerContext(grpc_context, self._codec, watchdog)
            result = await body(call, outer)
            late = watchdog.expired()
            if late is not None:
                raise late
            code = "OK"
            return result
        except BaseException as error:
            watchdog.stop()
            status = status_of(watchdog.expired() or error, call, self._settings.translate)
            if status is None:
                raise
            code = _code(status.code).name
            trailers = tuple(grpc_context.trailing_metadata() or ())
            trailers += ((errors.DETAILS_KEY, status.SerializeToString()),)
            await grpc_context.abort(_code(status.code), status.message, trailers)
            raise  # for the type checker: abort always raises
        finally:
            watchdog.stop()
            telemetry.end_span(span, self._policy.method, code)

    def _enter(
        self, grpc_context: Any, headers: dict[str, Any], remaining: float | None
    ) -> CallContext:
        policy, clock = self._policy, self._settings.clock
        bounds = [seconds for seconds in (remaining, policy.timeout) if seconds is not None]
        call = CallContext(
            service=self._settings.service,
            policy=policy,
            deadline=clock() + min(bounds) if bounds else None,
            clock=clock,
            principal=_principal(grpc_context),
            depth=context.read_depth(headers.get(context.DEPTH_KEY)),
            priority=context.read_priority(
                headers.get(context.PRIORITY_KEY), policy.limit.priority
            ),
        )
        context.enter(call)
        return call

    def _identify(self, call: CallContext, grpc_context: Any, request: Any) -> Idempotency | None:
        """How a repeat of this call is recognised. Raises InvalidArgument for a bad key."""
        if self._policy.key is Key.NONE:
            return None
        key = _headers(grpc_context).get(context.IDEMPOTENCY_KEY)
        if key is None:
            if self._policy.key is Key.REQUIRED:
                raise _bad_key("is required", "IDEMPOTENCY_KEY_REQUIRED")
            return None
        problem = idempotency.key_problem(key)
        if problem is not None:
            raise _bad_key(problem, "IDEMPOTENCY_KEY_INVALID")
        method = self._policy.method
        seen = b"" if request is None else idempotency.fingerprint(method, request)
        return Idempotency(idempotency.Scope(call.principal, method, key), seen)


def _headers(grpc_context: Any) -> dict[str, Any]:
    """The metadata that the library reads. Of several values the last one counts."""
    metadata = grpc_context.invocation_metadata() or ()
    return {key: value for key, value in metadata if key in _READ}


def _principal(grpc_context: Any) -> str:
    """Who calls, by certificate and nothing else."""
    found = grpc_context.auth_context().get(_SPIFFE)
    return found[0].decode() if found else context.ANONYMOUS


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

    pipeline = Pipeline(settings, None, MethodPolicy(method), Codec(None, None, None))
    return grpc.stream_unary_rpc_method_handler(pipeline.single(refuse, streamed=True))
