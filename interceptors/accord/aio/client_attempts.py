"""The attempts of calls to one target: what the engine decides, done with `grpc.aio`.

Errors are not converted: the caller gets gRPC's `AioRpcError` and may parse it with
`accord.failure_of`.
"""

import asyncio
from collections.abc import Coroutine
from inspect import isawaitable
from typing import cast

import grpc.aio
from grpc.aio._interceptor import UnaryUnaryCallResponse

from accord.aio.client_call import Ending, local_error, watch_probe
from accord.aio.client_hedge import race
from accord.aio.client_resume import ResumableCall
from accord.aio.client_stream import StreamCall
from accord.aio.client_types import (
    AioOutgoing,
    CallObject,
    Continuation,
    Error,
    Response,
    Responses,
    Rpc,
    Start,
)
from accord.client.call import Attempt
from accord.client.request import Caller, ClientSettings, failure_from
from accord.client.types import Again, Details, Raise, Req, Res
from accord.telemetry.instrumentation import suppressed


class Attempts(Caller[Error]):
    """Makes the attempts of calls to one target."""

    __slots__ = ()

    def __init__(self, settings: ClientSettings, target: str) -> None:
        super().__init__(settings, target, local_error)

    def start(self, continuation: Continuation[Req, Rpc]) -> Start[Req, Rpc]:
        """Makes attempts by `continuation`, in which nobody else makes a span of the same call."""

        async def start(attempt: Details, request: Req) -> Rpc:
            details = grpc.aio.ClientCallDetails(
                attempt.method,
                attempt.timeout,
                grpc.aio.Metadata(*attempt.metadata or ()),
                attempt.credentials,
                attempt.wait_for_ready,
            )
            with suppressed():
                return await continuation(details, request)

        return start

    async def unary(
        self, start: Start[Req, Response[Res]], outgoing: AioOutgoing[Req, Res], request: Req
    ) -> Response[Res]:
        """One request, one response: the ended call. Raises AioRpcError."""
        kept = outgoing.lookup(request)
        if kept is not None:
            return given(kept)
        return await self._settled(self._attempts(start, outgoing, request), outgoing, request)

    async def recover(
        self,
        start: Start[Req, Response[Res]],
        outgoing: AioOutgoing[Req, Res],
        request: Req,
        error: Error,
        step: Again | Raise,
    ) -> Response[Res]:
        """As `unary`, after a first attempt that has failed with `error`."""

        async def rest() -> Response[Res]:
            if isinstance(step, Raise):
                raise error
            await asyncio.sleep(step.delay)
            return await self._attempts(start, outgoing, request, error)

        return await self._settled(rest(), outgoing, request)

    async def _settled(
        self,
        attempts: Coroutine[None, None, Response[Res]],
        outgoing: AioOutgoing[Req, Res],
        request: Req,
    ) -> Response[Res]:
        """What the attempts lead to, or the fallback instead."""
        try:
            rpc = await attempts
        except Error as error:
            answer = await self._fall_back(outgoing, request, error)
            outgoing.finish(error.code().name, fallback=answer is not None)
            if answer is None:
                raise
            return given(answer)
        except BaseException as error:
            cancelled = isinstance(error, asyncio.CancelledError)
            outgoing.finish("CANCELLED" if cancelled else type(error).__name__)
            raise
        outgoing.finish("OK")
        return rpc

    async def _attempts(
        self,
        start: Start[Req, Response[Res]],
        outgoing: AioOutgoing[Req, Res],
        request: Req,
        last: Error | None = None,
    ) -> Response[Res]:
        """The call object of the attempt that was answered. Raises the error of the last one.

        `last`: that of an attempt that was made before.
        """
        call = outgoing.call
        while True:
            for wait in call.state.target.waits(call.turn):
                await asyncio.sleep(wait)
            attempt = outgoing.admit(last)
            try:
                rpc = await start(outgoing.details_of(attempt), request)
                if call.state.hedge is not None and (delay := call.hedge_delay()) is not None:
                    attempt, rpc = await race(outgoing, start, request, attempt, rpc, delay)
                # Not `rpc.code()`: it would keep the caller's cancellation from the server.
                answer = await rpc
            except Error as error:
                step = attempt.failed(failure_from(error))
                if isinstance(step, Raise):
                    outgoing.mark(error, exhausted=step.exhausted)
                    raise
                last = error
            except BaseException:
                attempt.released()
                raise
            else:
                attempt.answered()
                if call.state.remembers:
                    outgoing.keep(answer, await rpc.trailing_metadata())
                return rpc
            await asyncio.sleep(step.delay)

    async def _fall_back(
        self, outgoing: AioOutgoing[Req, Res], request: Req, error: Error
    ) -> Res | None:
        """The answer of the method's fallback; None if it has none."""
        fallback = outgoing.fallback(error)
        if fallback is None:
            return None
        try:
            answer = fallback(request, error)
            if isawaitable(answer):
                answer = await answer
        except Exception as problem:
            outgoing.fallback_failed(problem)
            return None
        return outgoing.fell_back(answer)

    def stream(
        self,
        start: Start[Req, Responses[Res]],
        outgoing: AioOutgoing[Req, Res],
        request: Req,
    ) -> StreamCall[Req, Res]:
        """One request, many responses, to be told of its first attempt.

        It is tried again before the first response, resumed after it; `start` makes attempts then.
        """
        if outgoing.call.resumption is None and outgoing.call.policy.retry is None:
            return StreamCall(outgoing)
        return ResumableCall(start, request, outgoing, self.settings.on_resume)

    def uploads(self, outgoing: AioOutgoing[Req, Res], attempt: Attempt, rpc: Rpc) -> Rpc:
        """A call whose requests are streamed: handed on untouched, `write()` would deadlock.

        It is one attempt: what a generator has yielded cannot be sent again.
        """
        rpc.add_done_callback(_stop_requests)
        rpc.add_done_callback(Ending(outgoing, attempt))
        watch_probe(attempt, rpc)
        return rpc


def given(answer: Res) -> Response[Res]:
    """The call object of an answer that no attempt has brought."""
    # Its own types are those of another `Metadata` than the one in the stubs.
    return cast("Response[Res]", UnaryUnaryCallResponse(answer))


def _stop_requests(rpc: CallObject) -> None:
    """Stop the task in which gRPC waits for requests even after the server has ended the call."""
    poller = getattr(rpc, "_async_request_poller", None)
    if poller is not None:
        poller.cancel()
