"""Client interceptors: every call leaves with a deadline, a trace and what travels.

gRPC registers an interceptor for one arity only, so there are four thin adapters over one driver.
Errors are not converted: the caller gets gRPC's `AioRpcError` and may parse it with
`accord.failure_of`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
import grpc.aio
from opentelemetry import trace

from accord import context, engine, errors, telemetry
from accord.contract import MethodPolicy, method_policy

Continuation = Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]]
OnResume = Callable[[str, int, grpc.aio.AioRpcError], None]
"""Told (method, number of the next attempt, error) before a stream is opened again."""

DEPENDENCY: Final = "accord_dependency"
"""Attribute of an `AioRpcError` that came through here: the method that failed."""


class Driver:
    """What the four adapters of one channel share."""

    def __init__(self, env: engine.Environment, on_resume: OnResume | None = None) -> None:
        self.env = env
        self.on_resume = on_resume

    def begin(
        self, details: grpc.aio.ClientCallDetails, request: Any = None
    ) -> tuple[engine.Call, "Prepared"]:
        """The engine of a new call, and what its attempts are sent with. Raises ContractError."""
        policy = method_policy(_text(details.method))
        handled = context.current()
        call = engine.Call(
            policy,
            self.env,
            explicit=details.timeout,
            declared=handled.policy.calls.get(policy.method) if handled is not None else None,
            inherits=handled.deadline if handled is not None else None,
            token=_token(policy, request),
        )
        return call, Prepared(policy, details, handled)


class Prepared:
    """Call details that only lack the timeout of the attempt."""

    __slots__ = ("_details", "_span", "policy")

    def __init__(
        self,
        policy: MethodPolicy,
        details: grpc.aio.ClientCallDetails,
        handled: context.CallContext | None,
    ) -> None:
        self.policy = policy
        self._span = telemetry.client_span(policy.method)
        given: Any = details
        metadata = grpc.aio.Metadata()
        traced = False
        for key, value in given.metadata or ():
            if not key.startswith(context.RESERVED_PREFIX):
                metadata.add(key, value)
                traced = traced or key == telemetry.TRACEPARENT
        if not traced:
            for key, value in telemetry.headers_of(self._span.get_span_context()).items():
                metadata.add(key, value)
        for key, value in context.outgoing(handled):
            metadata.add(key, value)
        self._details = given._replace(metadata=metadata)

    def attempt(self, step: engine.Send | engine.Refuse) -> grpc.aio.ClientCallDetails:
        """The details of the next attempt. Raises the refusal, which ends the call."""
        if isinstance(step, engine.Refuse):
            raise self.refusal(step)
        return self._details._replace(timeout=step.timeout)  # type: ignore[no-any-return]

    def refusal(self, step: engine.Refuse) -> grpc.aio.AioRpcError:
        """A local refusal as gRPC's own error."""
        code = grpc.StatusCode[step.code.name]
        self.finish(code.name)
        return self.mark(
            grpc.aio.AioRpcError(
                code, grpc.aio.Metadata(), grpc.aio.Metadata(), step.message, step.message
            )
        )

    def mark(self, error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """`error`, which ends the call, with the name of the method that failed."""
        setattr(error, DEPENDENCY, self.policy.method)
        return error

    def finish(self, code: str) -> None:
        """The call has ended."""
        telemetry.end_span(self._span, self.policy.method, code)

    def finish_with(self, rpc: Any) -> None:
        """End the span when `rpc` ends; the call itself is handed on untouched."""
        if self._span.is_recording():
            rpc.add_done_callback(_Ending(self._span, self.policy.method))


class _Ending:
    """Done callback: reads the code of an ended call and ends its span."""

    def __init__(self, span: trace.Span, method: str) -> None:
        self._span = span
        self._method = method
        self._task: asyncio.Task[None] | None = None

    def __call__(self, rpc: Any) -> None:
        self._task = asyncio.ensure_future(self._end(rpc))

    async def _end(self, rpc: Any) -> None:
        telemetry.end_span(self._span, self._method, (await rpc.code()).name)


class UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
    """One request, one response."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        """See the class."""
        call, prepared = self._driver.begin(client_call_details)
        while True:
            rpc = await continuation(prepared.attempt(call.admit()), request)
            try:
                # Not `rpc.code()`: it would keep the caller's cancellation from the server.
                await rpc
            except grpc.aio.AioRpcError as error:
                step = call.failed(errors.code_of(error))
                if not isinstance(step, engine.Again):
                    prepared.finish(prepared.mark(error).code().name)
                    raise
                await asyncio.sleep(step.delay)
            except BaseException as error:
                cancelled = isinstance(error, asyncio.CancelledError)
                prepared.finish("CANCELLED" if cancelled else type(error).__name__)
                raise
            else:
                prepared.finish("OK")
                return rpc


class UnaryStream(grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[type-arg]
    """One request, many responses; resumed after a drop if the contract says how."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def intercept_unary_stream(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        """See the class."""
        call, prepared = self._driver.begin(client_call_details, request)
        from accord.aio.resumable import ResumableCall  # late: it is built on this module
        from accord.aio.stream import StreamCall

        if call.resumption is None:
            details = prepared.attempt(call.admit())
            return StreamCall(prepared).over(await continuation(details, request))
        resumable = ResumableCall(
            continuation, request, call, call.resumption, prepared, self._driver.on_resume
        )
        await resumable.open()
        return resumable


class StreamUnary(grpc.aio.StreamUnaryClientInterceptor):  # type: ignore[type-arg]
    """Many requests, one response. Handed on untouched: `write()` would deadlock otherwise."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def intercept_stream_unary(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        """See the class."""
        call, prepared = self._driver.begin(client_call_details)
        rpc = await continuation(prepared.attempt(call.admit()), request_iterator)
        rpc.add_done_callback(_stop_requests)
        prepared.finish_with(rpc)
        return rpc


class StreamStream(grpc.aio.StreamStreamClientInterceptor):  # type: ignore[type-arg]
    """Many requests, many responses. Handed on untouched, as above."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def intercept_stream_stream(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        """See the class."""
        call, prepared = self._driver.begin(client_call_details)
        rpc = await continuation(prepared.attempt(call.admit()), request_iterator)
        rpc.add_done_callback(_stop_requests)
        prepared.finish_with(rpc)
        return rpc


def interceptors(driver: Driver) -> list[Any]:
    """One interceptor per arity."""
    return [UnaryUnary(driver), UnaryStream(driver), StreamUnary(driver), StreamStream(driver)]


def _stop_requests(rpc: Any) -> None:
    """Stop the task in which gRPC waits for requests even after the server has ended the call."""
    poller = getattr(rpc, "_async_request_poller", None)
    if poller is not None:
        poller.cancel()


def _text(method: str | bytes) -> str:
    return method.decode() if isinstance(method, bytes) else method


def _token(policy: MethodPolicy, request: Any) -> int | None:
    if policy.resume is None or request is None:
        return None
    return int(getattr(request, policy.resume.request_field))
