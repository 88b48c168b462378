"""Client interceptors: gRPC registers one for one arity only, so there are four thin ones."""

import grpc.aio

from accord.aio.client_attempts import Attempts
from accord.aio.client_call import SingleCall
from accord.aio.client_stream import StreamCall
from accord.aio.client_types import (
    AioOutgoing,
    Continuation,
    Requests,
    Response,
    Responses,
    Rpc,
    WholeResponse,
)
from accord.client.types import CallDetails, Req, Res, stands_for


class Interceptor:
    """What the four have in common."""

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts

    async def streamed(
        self,
        continuation: Continuation[Requests[Req], Rpc],
        details: CallDetails,
        requests: Requests[Req],
    ) -> Rpc:
        """A call of many requests; `continuation` makes an attempt."""
        attempts = self._attempts
        outgoing: AioOutgoing[Requests[Req], Rpc] = attempts.begin(details)
        with outgoing.sending() as attempt:
            rpc = await attempts.start(continuation)(outgoing.details_of(attempt), requests)
        return attempts.uploads(outgoing, attempt, rpc)


@stands_for(grpc.aio.UnaryUnaryClientInterceptor)
class UnaryUnary(Interceptor):
    """One request, one response."""

    async def intercept_unary_unary(
        self,
        continuation: Continuation[Req, WholeResponse[Res]],
        client_call_details: CallDetails,
        request: Req,
    ) -> Response[Res]:
        """See the class."""
        outgoing: AioOutgoing[Req, Res] = self._attempts.begin(client_call_details, request)
        start = self._attempts.start(continuation)
        if outgoing.single:
            # As a call without us: its caller may ask it, or cancel, while it is on its way.
            with outgoing.sending() as attempt:
                rpc = await start(outgoing.details_of(attempt), request)
            return SingleCall(outgoing, attempt, rpc)
        return await self._attempts.unary(start, outgoing, request)


@stands_for(grpc.aio.UnaryStreamClientInterceptor)
class UnaryStream(Interceptor):
    """One request, many responses; tried again before the first of them, resumed after it."""

    async def intercept_unary_stream(
        self,
        continuation: Continuation[Req, Responses[Res]],
        client_call_details: CallDetails,
        request: Req,
    ) -> StreamCall[Req, Res]:
        """See the class."""
        attempts = self._attempts
        outgoing: AioOutgoing[Req, Res] = attempts.begin(client_call_details, request)
        start = attempts.start(continuation)
        call = attempts.stream(start, outgoing, request)
        with outgoing.sending() as attempt:
            rpc = await start(outgoing.details_of(attempt), request)
        return call.began(attempt, rpc)


@stands_for(grpc.aio.StreamUnaryClientInterceptor)
class StreamUnary(Interceptor):
    """Many requests, one response."""

    intercept_stream_unary = Interceptor.streamed


@stands_for(grpc.aio.StreamStreamClientInterceptor)
class StreamStream(Interceptor):
    """Many requests, many responses."""

    intercept_stream_stream = Interceptor.streamed


def interceptors(attempts: Attempts) -> list[Interceptor]:
    """One interceptor per arity."""
    return [kind(attempts) for kind in (UnaryUnary, UnaryStream, StreamUnary, StreamStream)]
