"""Client interceptors: gRPC registers one for one arity only, so there are four thin ones."""

import grpc.aio

from accord.aio.client_attempts import Attempts
from accord.aio.client_resume import ResumableCall
from accord.aio.client_stream import StreamCall
from accord.aio.client_types import AioOutgoing, Continuation, Requests, Response, Responses, Rpc
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
        return await self._attempts.streamed(self._attempts.start(continuation), details, requests)


@stands_for(grpc.aio.UnaryUnaryClientInterceptor)
class UnaryUnary(Interceptor):
    """One request, one response."""

    async def intercept_unary_unary(
        self,
        continuation: Continuation[Req, Response[Res]],
        client_call_details: CallDetails,
        request: Req,
    ) -> Response[Res]:
        """See the class."""
        start = self._attempts.start(continuation)
        return await self._attempts.unary(start, client_call_details, request)


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
        if outgoing.call.resumption is None and outgoing.call.policy.retry is None:
            stream = StreamCall(outgoing)
            await stream.start(start, request)
            return stream
        resumable = ResumableCall(start, request, outgoing, attempts.settings.on_resume)
        await resumable.open()
        return resumable


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
