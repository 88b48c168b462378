"""A channel of the mesh for `grpc.aio`.

Its calls are made at once, as gRPC's own, and not in a task as those of an interceptor. So a call
may be asked or cancelled right away, and says the same as a bare one.
"""

import asyncio
import weakref
from collections.abc import Callable, Sequence
from functools import cache, partial, wraps
from typing import TYPE_CHECKING, Generic, TypeVar, cast

import grpc
import grpc.aio

from accord.aio.client_attempts import Attempts
from accord.aio.client_call import RefusedCall, attempting
from accord.aio.client_interceptors import Interceptor, UnaryUnary, interceptors
from accord.aio.client_stream import BidiCall, StreamCall
from accord.aio.client_types import (
    AioOutgoing,
    Bidi,
    CallObject,
    Error,
    Requests,
    Responses,
    Rpc,
)
from accord.aio.client_unary import Active, UnaryCallable
from accord.client.call import Attempt
from accord.client.types import Details, Given, Options, P, Req, Res, replacing, stands_for

C = TypeVar("C", bound=Callable[..., object])  # gRPC has four
Anyone = Interceptor | grpc.aio.ClientInterceptor

if TYPE_CHECKING:

    class Bare(grpc.aio.Channel):
        """GRPC's own channel, as far as the stubs do not know it."""

        def __init__(
            self,
            target: str,
            options: Options,
            credentials: object | None,  # gRPC's own, of its core
            compression: None,
            interceptors: Sequence[Anyone],
        ) -> None: ...

        async def _close(self, grace: float | None) -> None: ...

else:
    from grpc.aio._channel import Channel as Bare


def _running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class Streams(Generic[Req, Res, Rpc, P]):
    """Makes the calls of one method whose requests or responses are streamed."""

    def __init__(
        self,
        attempts: Attempts,
        method: str,
        bare: Callable[..., Rpc],
        given: Given[P],
        active: Active,
    ) -> None:
        """`bare` is gRPC's own; `active` are the calls of its channel."""
        self._attempts = attempts
        self._method = method
        self._make: Callable[[Details, Req], Rpc] = attempting(bare)
        self._given = given
        self._active = active

    def _made(self, outgoing: AioOutgoing[Req, Res], request: Req) -> tuple[Attempt, Rpc]:
        """The first attempt. Raises the engine's refusal, or as gRPC does."""
        with outgoing.sending() as attempt:
            return attempt, self._make(outgoing.details_of(attempt), request)


@stands_for(grpc.aio.StreamUnaryMultiCallable)
class UploadCallable(Streams[Requests[Req] | None, Res, Rpc, P]):
    """A method with many requests and one response."""

    def __call__(
        self, request_iterator: Requests[Req] | None = None, *args: P.args, **kwargs: P.kwargs
    ) -> CallObject:
        """The call object, gRPC's own."""
        outgoing: AioOutgoing[Requests[Req] | None, Res] = self._attempts.begin(
            self._given(self._method, *args, **kwargs)
        )
        try:
            attempt, rpc = self._made(outgoing, request_iterator)
        except Error as refusal:
            return RefusedCall(refusal)
        return self._held(self._attempts.uploads(outgoing, attempt, rpc))

    def _held(self, rpc: Rpc) -> CallObject:
        """What the caller is given."""
        return rpc


@stands_for(grpc.aio.StreamStreamMultiCallable)
class BidiCallable(UploadCallable[Req, Res, Bidi[Req, Res], P]):
    """A method with many requests and many responses."""

    def _held(self, rpc: Bidi[Req, Res]) -> CallObject:
        return BidiCall(rpc)


@stands_for(grpc.aio.UnaryStreamMultiCallable)
class StreamCallable(Streams[Req, Res, Responses[Res], P]):
    """A method with one request and many responses."""

    def __call__(
        self, request: Req, *args: P.args, **kwargs: P.kwargs
    ) -> StreamCall[Req, Res] | RefusedCall:
        """The call object."""
        outgoing: AioOutgoing[Req, Res] = self._attempts.begin(
            self._given(self._method, *args, **kwargs), request
        )
        call = self._attempts.stream(self._again, outgoing, request)
        try:
            call.began(*self._made(outgoing, request))
        except Error as refusal:
            return RefusedCall(refusal)
        self._active.add(weakref.ref(call, self._active.discard))
        return call

    async def _again(self, details: Details, request: Req) -> Responses[Res]:
        return self._make(details, request)


def _ours(theirs: Callable[P, C], kind: Callable[..., object]) -> Callable[P, C]:  # as gRPC's own
    """A channel's method that gives a `kind`, or gRPC's own if there are other interceptors.

    What it gives before a loop runs is made when that is first called.
    """

    def ours(channel: "Channel", *made: object) -> object:  # for `kind`
        method, bare, given = made
        found = bare
        if channel._quick:
            found = kind(channel._attempts, method, bare, given, channel._active)
        vars(found)["channel"] = channel  # a channel without references closes itself
        return found

    make = replacing(theirs, ours)

    @wraps(theirs)
    def later(*args: P.args, **kwargs: P.kwargs) -> C:
        made = cache(partial(make, *args, **kwargs))
        if _running():
            return made()
        return cast("C", lambda *call, **how: made()(*call, **how))  # which stands for it

    return later


class Channel(Bare):
    """A channel of gRPC's with the mesh's interceptors, made faster.

    Beneath any instrumentation, which replaces `grpc.aio.secure_channel` and its like and puts its
    interceptors before all others: opentelemetry-instrumentation-grpc would count every call twice,
    keep a caller's cancellation from the server (opentelemetry-python-contrib#3271) and break
    streams (#3066).
    """

    def __init__(
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None,
        options: Options,
        attempts: Attempts,
        theirs: Sequence[grpc.aio.ClientInterceptor] = (),
    ) -> None:
        """`credentials`: None for a channel without TLS. `theirs` go before the mesh's own.

        Raises ValueError: one of `theirs` is no interceptor of `grpc.aio`.
        """
        strangers = [each for each in theirs if not isinstance(each, grpc.aio.ClientInterceptor)]
        if strangers:
            raise ValueError(f"no client interceptor of grpc.aio: {strangers}")
        self._attempts = attempts
        self._active: Active = set()
        self._quick = not theirs
        core = getattr(credentials, "_credentials", None)
        # Without theirs only calls that are not quick go through an interceptor.
        ours = interceptors(attempts) if theirs else [UnaryUnary(attempts)]
        everybody: list[Anyone] = [*theirs, *ours]
        begin = partial(super().__init__, target, options, core, None, everybody)
        if _running():
            begin()
        else:
            self._begin = begin

    def __getattr__(self, name: str) -> object:  # whatever gRPC's own has
        if "_begin" not in vars(self) or not _running():
            raise AttributeError(f"{name}: a channel has none, or not before an event loop runs")
        vars(self).pop("_begin")()
        return getattr(self, name)

    async def _close(self, grace: float | None) -> None:
        calls = getattr(self, "_active_calls", None)  # those that gRPC ends
        if calls is not None:
            calls.update(call for ref in self._active if (call := ref()))
        await super()._close(grace)

    unary_unary = _ours(Bare.unary_unary, UnaryCallable)
    unary_stream = _ours(Bare.unary_stream, StreamCallable)
    stream_unary = _ours(Bare.stream_unary, UploadCallable)
    stream_stream = _ours(Bare.stream_stream, BidiCallable)
