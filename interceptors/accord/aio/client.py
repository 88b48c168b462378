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

from accord import context, engine, telemetry
from accord.aio.failure_marks import DEPENDENCY as DEPENDENCY
from accord.aio.hedging import race
from accord.aio.outgoing import (
    AT_LEAST_KEY,
    MAX_ATTEMPTS_KEY,
    POSITION_KEY,
    Outgoing,
    ended,
    failure_from,
    read_failure,
)
from accord.contract import ContractError, MethodPolicy
from accord.route import Route

Continuation = Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]]
OnResume = Callable[[str, int, grpc.aio.AioRpcError], None]
"""Told (method, number of the next attempt, error) before a stream is opened again."""

Fallback = Callable[[Any, grpc.aio.AioRpcError], Any]
"""Given a request and the error of its call, the response to use instead, or None for the error.

May be a coroutine function. It should not call the same target again.
"""

_WORTH_A_FALLBACK: Final = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
)


class Driver:
    """What the calls of one process share."""

    def __init__(self, env: engine.Environment, on_resume: OnResume | None = None) -> None:
        self.env = env
        self.on_resume = on_resume
        self.fallbacks: dict[str, Fallback] = {}
        """By method as it travels, "/pkg.Service/Method"."""


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
        if route.hedge is not None or route.caches or telemetry.configured():
            return None
        return route

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
        policy = route.policy
        if handled is None:
            outgoing.call = engine.Call(
                route,
                env,
                explicit=details.timeout,
                keyed=context.IDEMPOTENCY_KEY in outgoing.options,
                max_attempts=outgoing.option(MAX_ATTEMPTS_KEY) or None,
                token=None if policy.resume is None else _token(policy, request),
            )
        else:
            outgoing.call = engine.Call(
                route,
                env,
                explicit=details.timeout,
                declared=handled.policy.calls.get(policy.method),
                inherits=handled.deadline,
                inherited_attempt=handled.attempt,
                keyed=context.IDEMPOTENCY_KEY in outgoing.options,
                max_attempts=outgoing.option(MAX_ATTEMPTS_KEY) or None,
                token=None if policy.resume is None else _token(policy, request),
            )
        return outgoing

    async def unary(self, continuation: Continuation, details: Any, request: Any) -> Any:
        """One request, one response: gRPC's call object, or a response that was kept."""
        outgoing = self.begin(details, request)
        call = outgoing.call
        if call.route.caches:
            kept = _lookup(call, outgoing, request)
            if kept is not None:
                outgoing.finish("OK")
                return kept
        found = await self._settled(
            self._attempts(continuation, outgoing, request), outgoing, request
        )
        if call.route.caches and isinstance(found, grpc.aio.UnaryUnaryCall):
            await _keep(call, found)
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
            if self.driver.fallbacks and error.code() in _WORTH_A_FALLBACK:
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
        self._outgoing.finish(code.name)
        if code is grpc.StatusCode.OK:
            call.succeeded(send)
        else:
            call.recorded(send, read_failure(code, trailers))


class UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
    """One request, one response."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        """See the class."""
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
        return await self._line.streamed(continuation, client_call_details, request_iterator)


class StreamStream(grpc.aio.StreamStreamClientInterceptor):  # type: ignore[type-arg]
    """Many requests, many responses."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def intercept_stream_stream(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        """See the class."""
        return await self._line.streamed(continuation, client_call_details, request_iterator)


def interceptors(line: Line) -> list[Any]:
    """One interceptor per arity."""
    return [UnaryUnary(line), UnaryStream(line), StreamUnary(line), StreamStream(line)]


def _stop_requests(rpc: Any) -> None:
    """Stop the task in which gRPC waits for requests even after the server has ended the call."""
    poller = getattr(rpc, "_async_request_poller", None)
    if poller is not None:
        poller.cancel()


def _token(policy: MethodPolicy, request: Any) -> int | None:
    if policy.resume is None or request is None:
        return None
    return int(getattr(request, policy.resume.request_field))


def _lookup(call: engine.Call, outgoing: Outgoing, request: Any) -> Any:
    """A copy of the kept answer, or None."""
    handled = context.current()
    kept = call.lookup(
        request,
        principal="" if handled is None else handled.principal,
        at_least=outgoing.option(AT_LEAST_KEY),
    )
    return None if kept is None else type(kept).FromString(kept.SerializeToString())


async def _keep(call: engine.Call, rpc: Any) -> None:
    """Keep a copy of the answer: the caller may change its own."""
    answer = await rpc
    position = 0
    for key, value in await rpc.trailing_metadata() or ():
        if key == POSITION_KEY and isinstance(value, str) and value.isdecimal():
            position = int(value)
    raw = answer.SerializeToString()
    call.keep(type(answer).FromString(raw), size=len(raw), position=position)
