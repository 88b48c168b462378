"""Client interceptors for gRPC with threads, one for each arity.

The twins of `accord.aio.client_interceptors`. An interceptor is not told whether its call blocks,
and one that blocks cannot be hedged: a channel of the mesh knows (see `client_channel`).
"""

from collections.abc import Iterator

import grpc

from accord.client.types import CallDetails, Details, Req, Res, stands_for
from accord.sync.client_attempts import Attempts
from accord.sync.client_call import Refusal
from accord.sync.client_future import FutureCall
from accord.sync.client_stream import StreamCall
from accord.sync.client_types import Response, Responses, Rpc, Start, SyncOutgoing
from accord.telemetry.instrumentation import suppressed


class Interceptor:
    """What the four have in common."""

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts


@stands_for(grpc.UnaryUnaryClientInterceptor)
class UnaryUnary(Interceptor):
    """One request, one response."""

    def intercept_unary_unary(
        self,
        continuation: Start[Req, Response[Res]],
        client_call_details: CallDetails,
        request: Req,
    ) -> FutureCall[Req, Res]:
        """See the class."""
        outgoing: SyncOutgoing[Req, Res] = self._attempts.begin(client_call_details, request)
        return FutureCall(_alone(continuation), outgoing, request).begin()


@stands_for(grpc.UnaryStreamClientInterceptor)
class UnaryStream(Interceptor):
    """One request, many responses."""

    def intercept_unary_stream(
        self,
        continuation: Start[Req, Responses[Res]],
        client_call_details: CallDetails,
        request: Req,
    ) -> StreamCall[Req, Res] | Refusal[Res]:
        """See the class."""
        return self._attempts.stream(_alone(continuation), client_call_details, request)


@stands_for(grpc.StreamUnaryClientInterceptor)
class StreamUnary(Interceptor):
    """Many requests, one response."""

    def intercept_stream_unary(
        self,
        continuation: Start[Iterator[Req], Response[Res]],
        client_call_details: CallDetails,
        request_iterator: Iterator[Req],
    ) -> FutureCall[Iterator[Req], Res]:
        """See the class."""
        outgoing: SyncOutgoing[Iterator[Req], Res] = self._attempts.begin(client_call_details)
        return FutureCall(_alone(continuation), outgoing, request_iterator, once=True).begin()


@stands_for(grpc.StreamStreamClientInterceptor)
class StreamStream(Interceptor):
    """Many requests, many responses."""

    def intercept_stream_stream(
        self,
        continuation: Start[Iterator[Req], Responses[Res]],
        client_call_details: CallDetails,
        request_iterator: Iterator[Req],
    ) -> StreamCall[Iterator[Req], Res] | Refusal[Res]:
        """See the class."""
        return self._attempts.bidi(_alone(continuation), client_call_details, request_iterator)


def interceptors(attempts: Attempts) -> list[Interceptor]:
    """One interceptor per arity."""
    return [kind(attempts) for kind in (UnaryUnary, UnaryStream, StreamUnary, StreamStream)]


def _alone(continuation: Start[Req, Rpc]) -> Start[Req, Rpc]:
    """`continuation`, in which nobody else makes a span of the same call."""

    def start(details: Details, request: Req) -> Rpc:
        with suppressed():
            return continuation(details, request)

    return start
