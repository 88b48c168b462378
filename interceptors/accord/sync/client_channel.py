"""A channel of the mesh for gRPC with threads.

It knows what an interceptor is not told: whether a call blocks. So a call that blocks takes gRPC's
direct way, and is hedged all the same.
"""

from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

import grpc
from grpc import _channel

from accord.client.types import Details, Given, Options, P, Req, Res, T, replacing, stands_for
from accord.sync.client_attempts import Attempts
from accord.sync.client_call import Answer, Refusal
from accord.sync.client_future import FutureCall
from accord.sync.client_stream import StreamCall
from accord.sync.client_types import CallStatus, Response, Responses, Start, SyncOutgoing

R = TypeVar("R")


class ResponseCallable(Protocol[Res]):
    """GRPC's own callable of a method with one response, as far as it is used."""

    with_call: Callable[..., tuple[Res, CallStatus]]
    future: Callable[..., Response[Res]]


class Callables(Generic[Req, Res, P]):
    """The ways to call a method with one response; it takes one `Req`, or an iterator of them."""

    def __init__(
        self,
        channel: "Channel",
        method: str,
        bare: ResponseCallable[Res],
        given: Given[P],
    ) -> None:
        self._channel = channel  # as long as it is referred to, its mesh closes it
        self._attempts = channel._attempts
        self._method = method
        self._given = given
        self._blocking: Start[Req, Response[Res]] = _blocking(bare.with_call)
        self._future: Start[Req, Response[Res]] = _plain(bare.future)


@stands_for(grpc.UnaryUnaryMultiCallable)
class UnaryCallable(Callables[Req, Res, P]):
    """A method with one request and one response."""

    def __call__(self, request: Req, *args: P.args, **kwargs: P.kwargs) -> Res:
        """The response."""
        return self._settled(request, *args, **kwargs).result()

    def with_call(
        self, request: Req, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[Res, Response[Res]]:
        """The response and its call object."""
        call = self._settled(request, *args, **kwargs)
        return call.result(), call

    def future(self, request: Req, *args: P.args, **kwargs: P.kwargs) -> FutureCall[Req, Res]:
        """The call object, without waiting."""
        outgoing: SyncOutgoing[Req, Res] = self._attempts.begin(
            self._given(self._method, *args, **kwargs), request
        )
        return FutureCall(self._future, outgoing, request).begin()

    def _settled(self, request: Req, *args: P.args, **kwargs: P.kwargs) -> Response[Res]:
        details = self._given(self._method, *args, **kwargs)
        outgoing: SyncOutgoing[Req, Res] = self._attempts.begin(details, request)
        if outgoing.call.state.hedge is None:
            return self._attempts.unary(self._blocking, outgoing, request)
        # Two attempts at once: one that blocks could not be cancelled.
        call = FutureCall(self._future, outgoing, request).begin()
        try:
            call.result()
        except BaseException:
            call.cancel()
            raise
        return call


@stands_for(grpc.StreamUnaryMultiCallable)
class UploadCallable(Callables[Iterator[Req], Res, P]):
    """A method with many requests and one response."""

    def __call__(self, request_iterator: Iterator[Req], *args: P.args, **kwargs: P.kwargs) -> Res:
        """The response."""
        return self.with_call(request_iterator, *args, **kwargs)[0]

    def with_call(
        self, request_iterator: Iterator[Req], *args: P.args, **kwargs: P.kwargs
    ) -> tuple[Res, Response[Res]]:
        """The response and its call object."""
        details = self._given(self._method, *args, **kwargs)
        call = self._attempts.once(self._blocking, details, request_iterator)
        return call.result(), call

    def future(
        self, request_iterator: Iterator[Req], *args: P.args, **kwargs: P.kwargs
    ) -> FutureCall[Iterator[Req], Res]:
        """The call object, without waiting."""
        details = self._given(self._method, *args, **kwargs)
        outgoing: SyncOutgoing[Iterator[Req], Res] = self._attempts.begin(details)
        return FutureCall(self._future, outgoing, request_iterator, once=True).begin()


Streamed = StreamCall[Req, Res] | Refusal[Res]


@stands_for(grpc.UnaryStreamMultiCallable)
class StreamCallable(Generic[Req, Res, P]):
    """A method with one request and many responses."""

    def __init__(
        self,
        channel: "Channel",
        method: str,
        bare: Callable[..., Responses[Res]],
        given: Given[P],
    ) -> None:
        self._channel = channel
        self._attempts = channel._attempts
        self._method = method
        self._given = given
        self._start: Start[Req, Responses[Res]] = _plain(bare)

    def __call__(self, request: Req, *args: P.args, **kwargs: P.kwargs) -> Streamed[Req, Res]:
        """The call object."""
        return self._open(self._given(self._method, *args, **kwargs), request)

    def _open(self, details: Details, request: Req) -> Streamed[Req, Res]:
        return self._attempts.stream(self._start, details, request)


@stands_for(grpc.StreamStreamMultiCallable)
class BidiCallable(StreamCallable[Req, Res, P]):
    """A method with many requests and many responses."""

    def _open(self, details: Details, request: Req) -> Streamed[Req, Res]:
        return self._attempts.bidi(self._start, details, request)


def _plain(bare: Callable[..., T]) -> Callable[[Details, R], T]:
    """Makes attempts that do not block."""
    return lambda details, request: bare(request, *details[1:])


def _blocking(
    with_call: Callable[..., tuple[Res, CallStatus]],
) -> Callable[[Details, R], Answer[Res]]:
    """Makes attempts that block. Raises the error of one that failed."""
    return lambda details, request: Answer(*with_call(request, *details[1:]))


class Channel(_channel.Channel):
    """A channel of gRPC's that enforces the contracts of what is called over it.

    Beneath any instrumentation, as that of `accord.aio.client_channel`.
    """

    def __init__(
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None,
        options: Options,
        attempts: Attempts,
    ) -> None:
        """`credentials`: None for a channel without TLS."""
        super().__init__(target, options, getattr(credentials, "_credentials", None), None)
        self._attempts = attempts

    unary_unary = replacing(_channel.Channel.unary_unary, UnaryCallable)
    unary_stream = replacing(_channel.Channel.unary_stream, StreamCallable)
    stream_unary = replacing(_channel.Channel.stream_unary, UploadCallable)
    stream_stream = replacing(_channel.Channel.stream_stream, BidiCallable)
