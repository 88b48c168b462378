"""A channel of the mesh for `grpc.aio`."""

import asyncio
from collections.abc import Callable, Sequence
from functools import cache, partial, wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast

import grpc
import grpc.aio

from accord.aio.client_attempts import Attempts
from accord.aio.client_interceptors import Interceptor, interceptors
from accord.aio.client_stream import BidiCallable
from accord.aio.client_unary import Active, UnaryCallable
from accord.client.types import replacing

Options = Sequence[tuple[str, str | int]]

P = ParamSpec("P")
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


def _later(theirs: Callable[P, C]) -> Callable[P, C]:
    """A channel's method; what it gives before a loop runs is made when that is first called."""

    @wraps(theirs)
    def ours(*args: P.args, **kwargs: P.kwargs) -> C:
        made = cache(partial(theirs, *args, **kwargs))
        if _running():
            return made()
        return cast("C", lambda *call, **how: made()(*call, **how))  # which stands for it

    return ours


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
        """`credentials`: None for a channel without TLS. `theirs` go before the mesh's own."""
        self._attempts = attempts
        self._active: Active = set()
        self._quick = not theirs
        core = getattr(credentials, "_credentials", None)
        everybody: list[Anyone] = [*theirs, *interceptors(attempts)]
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

    unary_unary = _later(
        replacing(
            Bare.unary_unary,
            lambda channel, method, made: (
                UnaryCallable(channel._attempts, method, made, channel._active)
                if channel._quick
                else made
            ),
        )
    )
    unary_stream = _later(Bare.unary_stream)
    stream_unary = _later(Bare.stream_unary)
    stream_stream = _later(replacing(Bare.stream_stream, lambda _, __, made: BidiCallable(made)))
