"""The attempts of calls to one target: what the engine decides, done with `grpc.aio`.

Errors are not converted: the caller gets gRPC's `AioRpcError` and may parse it with
`accord.failure_of`.
"""

import asyncio
import logging
from collections.abc import Coroutine
from inspect import isawaitable
from typing import Any, Final

import grpc
import grpc.aio

from accord import context
from accord._log import log
from accord.aio.client_hedge import race
from accord.aio.client_request import Continuation, Ending, Outgoing
from accord.client.call import Call
from accord.client.decisions import Again, Raise, Refuse, Send
from accord.client.method_state import Route
from accord.client.request import (
    WORTH_A_FALLBACK,
    ClientSettings,
    failure_from,
    keep,
    lookup,
    new_call,
)
from accord.contract.policy import ContractError
from accord.telemetry.spans import suppressed

PROBE_SETTLES: Final = 0.05
"""Seconds after which a stream that has been answered, and has not ended, was not refused."""


class Attempts:
    """The way to one target."""

    __slots__ = ("_plain", "_target", "settings")

    def __init__(self, settings: ClientSettings, target: str, *, plain: bool) -> None:
        self.settings = settings
        """`plain`: no other interceptors follow."""
        self._target = target
        self._plain = plain

    def quick(self, method: str) -> Route | None:
        """The route of a method whose calls need nothing before their first attempt."""
        try:
            route = self.settings.env.routes.find(self._target, method)
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
            with suppressed():
                return await continuation(details, request)

        return go_on

    def has_fallback(self, outgoing: Outgoing) -> bool:
        """Whether the method has one."""
        return outgoing.call.policy.method in self.settings.fallbacks

    def begin(self, details: Any, request: Any = None, route: Route | None = None) -> Outgoing:
        """A new call. Raises ContractError."""
        env, method = self.settings.env, details.method
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
        step: Again | Raise,
    ) -> Any:
        """As `unary`, after a first attempt that has failed with `error`."""

        async def rest() -> Any:
            if isinstance(step, Raise):
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
            if self.settings.fallbacks and error.code() in WORTH_A_FALLBACK:
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
            if isinstance(send, Refuse):
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
                if not isinstance(step, Again):
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
        fallback = self.settings.fallbacks.get(route.policy.method)
        if fallback is None:
            return None
        try:
            answer = fallback(request, error)
            if isawaitable(answer):
                answer = await answer
        except Exception as problem:
            # The caller is told what happened to the call, not to its replacement.
            log(logging.ERROR, "a fallback failed", error=problem, method=route.policy.method)
            return None
        if answer is not None:
            route.fallbacks += 1
            self.settings.env.count(route.policy.method, "fallback")
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
        if isinstance(send, Refuse):
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


async def _answered(call: Call, send: Send, rpc: Any) -> None:
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
