"""Client interceptors: what the engine decides, done with gRPC.

gRPC registers an interceptor for one arity only, so there are four thin adapters over one driver.
Errors are not converted: the caller gets gRPC's `AioRpcError` and may parse it with
`accord.failure_of`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from inspect import isawaitable
from typing import Any, Final

import grpc
import grpc.aio

from accord import context, engine, observation, telemetry
from accord.aio.hedging import race
from accord.aio.outgoing import Outgoing, ended
from accord.contract import ContractError
from accord.line import Driver, keep, lookup, new_call
from accord.outgoing import WORTH_A_FALLBACK, failure_from, read_failure
from accord.route import Route

PROBE_SETTLES: Final = 0.05
"""Seconds after which a stream that has been answered, and has not ended, was not refused."""

Continuation = Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]]


class Line:
    """The way to one target."""

    __slots__ = ("_plain", "_target", "driver")

    def __init__(self, driver: Driver, target: str, *, plain: bool) -> None:
        self.driver = driver
        """`plain`: no other interceptors follow."""
        self._target = target
        self._plain = plain

    def quick(self, method: str) -> Route | None:
        """The route of a method whose calls need nothing before their first attempt."""
        try:
            route = self.driver.env.routes.find(self._target, method)
        except ContractError:
            return None  # to be raised when the call is awaited
        if route.hedge is not None or route.caches:
            return None
        return route

    def alone(self, continuation: Continuation) -> Continuation:
        """`continuation`, in which nobody else makes a span of the same call."""
        if self._plain:
            return continuation

        async def go_on(details: Any, request: Any) -> Any:
            with observation.suppressed():
                return await continuation(details, request)

        return go_on

    def has_fallback(self, outgoing: Outgoing) -> bool:
        """Whether the method has one."""
        return outgoing.call.policy.method in self.driver.fallbacks

    def begin(self, details: Any, request: Any = None, route: Route | None = None) -> Outgoing:
        """A new call. Raises ContractError."""
        env, method = self.driver.env, details.method
        if route is None:
            route = env.routes.find(
                self._target, method.decode() if isinstance(method, bytes) else method
            )
        handled = context.current()
        outgoing = Outgoing(details, handled, plain=self._plain)
        outgoing.call = new_call(
            route, env, outgoing, handled, timeout=details.timeout, request=request
        )
        return outgoing

    async def unary(self, continuation: Continuation, details: Any, request: Any) -> Any:
        """One request, one response: gRPC's call object, or a response that was kept."""
        outgoing = self.begin(details, request)
        call = outgoing.call
        if call.route.caches:
            kept = lookup(call, outgoing, request)
            if kept is not None:
                outgoing.finish("OK")
                return kept
        found = await self._settled(
            self._attempts(continuation, outgoing, request), outgoing, request
        )
        if call.route.caches and isinstance(found, grpc.aio.UnaryUnaryCall):
            keep(call, await found, await found.trailing_metadata())
        return found

    async def recover(
        self,
        continuation: Continuation,
        outgoing: Outgoing,
        request: Any,
        error: grpc.aio.AioRpcError,
        step: engine.Again | engine.Raise,
    ) -> Any:
        """As `unary`, after a first attempt that has failed with `error`."""

        async def rest() -> Any:
            if isinstance(step, engine.Raise):
                raise error
            await asyncio.sleep(step.delay)
            return await self._attempts(continuation, outgoing, request)

        return await self._settled(rest(), outgoing, request)

    async def _settled(
        self, attempts: Coroutine[Any, Any, Any], outgoing: Outgoing, request: Any
    ) -> Any:
        """What the attempts lead to, or the fallback instead."""
        try:
            rpc = await attempts
        except grpc.aio.AioRpcError as error:
            answer = None
            if self.driver.fallbacks and error.code() in WORTH_A_FALLBACK:
                answer = await self._fall_back(outgoing, request, error)
            outgoing.finish(error.code().name, fallback=answer is not None)
            if answer is None:
                raise
            return answer
        except BaseException as error:
            cancelled = isinstance(error, asyncio.CancelledError)
            outgoing.finish("CANCELLED" if cancelled else type(error).__name__)
            raise
        outgoing.finish("OK")
        return rpc

    async def _attempts(self, continuation: Continuation, outgoing: Outgoing, request: Any) -> Any:
        """The call object of the attempt that was answered. Raises the error of the last one."""
        call = outgoing.call
        while True:
            send = call.admit()
            if isinstance(send, engine.Refuse):
                raise outgoing.refusal(send)
            rpc: Any = None
            try:
                rpc = await continuation(outgoing.attempt(send), request)
                if call.route.hedge is not None and (delay := call.hedge_delay()) is not None:
                    send, rpc = await race(
                        call,
                        send,
                        rpc,
                        delay,
                        lambda backup: continuation(outgoing.attempt(backup), request),
                    )
                # Not `rpc.code()`: it would keep the caller's cancellation from the server.
                await rpc
            except grpc.aio.AioRpcError as error:
                step = call.failed(send, failure_from(error))
                if not isinstance(step, engine.Again):
                    outgoing.mark(error, exhausted=step.exhausted)
                    raise
                delay = step.delay
            except BaseException:
                call.released(send)
                raise
            else:
                call.succeeded(send)
                return rpc
            await asyncio.sleep(delay)

    async def _fall_back(
        self, outgoing: Outgoing, request: Any, error: grpc.aio.AioRpcError
    ) -> Any:
        """The answer of the method's fallback; None if it has none."""
        route = outgoing.call.route
        fallback = self.driver.fallbacks.get(route.policy.method)
        if fallback is None:
            return None
        try:
            answer = fallback(request, error)
            if isawaitable(answer):
                answer = await answer
        except Exception as problem:
            # The caller is told what happened to the call, not to its replacement.
            telemetry.log(
                logging.ERROR, "a fallback failed", error=problem, method=route.policy.method
            )
            return None
        if answer is not None:
            route.fallbacks += 1
            self.driver.env.count(route.policy.method, "fallback")
        return answer

    async def streamed(
        self, continuation: Continuation, details: Any, request_iterator: Any
    ) -> Any:
        """A call whose requests are streamed: handed on untouched, `write()` would deadlock.

        It is one attempt: what a generator has yielded cannot be sent again.
        """
        outgoing = self.begin(details)
        call = outgoing.call
        send = call.admit()
        if isinstance(send, engine.Refuse):
            outgoing.finish(send.code.name)
            raise outgoing.refusal(send)
        try:
            rpc = await continuation(outgoing.attempt(send), request_iterator)
        except BaseException as error:
            call.released(send)
            outgoing.finish(type(error).__name__)
            raise
        rpc.add_done_callback(_stop_requests)
        rpc.add_done_callback(Ending(outgoing, send))
        if send.permission is not None and send.permission.probe:
            probe = asyncio.ensure_future(_answered(call, send, rpc))
            rpc.add_done_callback(lambda _: probe.cancel())
        return rpc


class Ending:
    """Done callback: reports how a call ended that is not awaited here."""

    __slots__ = ("_outgoing", "_send", "_task")

    def __init__(self, outgoing: Outgoing, send: engine.Send) -> None:
        self._outgoing = outgoing
        self._send = send
        self._task: asyncio.Task[None] | None = None

    def __call__(self, rpc: Any) -> None:
        """See the class."""
        found = ended(rpc)
        if found is not None:
            self._report(*found)
        else:
            self._task = asyncio.ensure_future(self._wait(rpc))

    async def _wait(self, rpc: Any) -> None:
        self._report(await rpc.code(), await rpc.trailing_metadata())

    def _report(self, code: grpc.StatusCode, trailers: Any) -> None:
        call, send = self._outgoing.call, self._send
        if code is grpc.StatusCode.OK:
            call.succeeded(send)
        else:
            call.recorded(send, read_failure(code, trailers))
        self._outgoing.finish(code.name)


class UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
    """One request, one response."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        """See the class."""
        continuation = self._line.alone(continuation)
        return await self._line.unary(continuation, client_call_details, request)


class UnaryStream(grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[type-arg]
    """One request, many responses; tried again before the first of them, resumed after it."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def intercept_unary_stream(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        """See the class."""
        outgoing = self._line.begin(client_call_details, request)
        continuation = self._line.alone(continuation)
        from accord.aio.resumable import ResumableCall  # late: it is built on this module
        from accord.aio.stream import StreamCall

        call = outgoing.call
        if call.resumption is None and call.policy.retry is None:
            return await StreamCall(outgoing).start(continuation, request)
        resumable = ResumableCall(continuation, request, outgoing, self._line.driver.on_resume)
        await resumable.open()
        return resumable


class StreamUnary(grpc.aio.StreamUnaryClientInterceptor):  # type: ignore[type-arg]
    """Many requests, one response."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def intercept_stream_unary(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        """See the class."""
        continuation = self._line.alone(continuation)
        return await self._line.streamed(continuation, client_call_details, request_iterator)


class StreamStream(grpc.aio.StreamStreamClientInterceptor):  # type: ignore[type-arg]
    """Many requests, many responses."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def intercept_stream_stream(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        """See the class."""
        continuation = self._line.alone(continuation)
        return await self._line.streamed(continuation, client_call_details, request_iterator)


def interceptors(line: Line) -> list[Any]:
    """One interceptor per arity."""
    return [UnaryUnary(line), UnaryStream(line), StreamUnary(line), StreamStream(line)]


async def _answered(call: engine.Call, send: engine.Send, rpc: Any) -> None:
    """Report that the server has begun to answer a stream, whose messages are not seen here."""
    await rpc.initial_metadata()
    # A refusal has initial metadata as well, and its status comes with them.
    await asyncio.sleep(PROBE_SETTLES)
    if not rpc.done():
        call.accepted(send)


def _stop_requests(rpc: Any) -> None:
    """Stop the task in which gRPC waits for requests even after the server has ended the call."""
    poller = getattr(rpc, "_async_request_poller", None)
    if poller is not None:
        poller.cancel()
