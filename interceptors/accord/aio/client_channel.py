"""A channel of the mesh for `grpc.aio`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from accord.aio.client_attempts import Attempts
from accord.aio.client_interceptors import Interceptor, interceptors
from accord.aio.client_stream import BidiCallable
from accord.aio.client_unary import Active, UnaryCallable
from accord.client.types import replacing

Options = Sequence[tuple[str, str | int]]

if TYPE_CHECKING:

    class Bare(grpc.aio.Channel):
        """GRPC's own channel, as far as the stubs do not know it."""

        def __init__(
            self,
            target: str,
            options: Options,
            credentials: object | None,  # gRPC's own, of its core
            compression: None,
            interceptors: Sequence[Interceptor],
        ) -> None: ...

        async def _close(self, grace: float | None) -> None: ...

else:
    from grpc.aio._channel import Channel as Bare


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
    ) -> None:
        """`credentials`: None for a channel without TLS."""
        core = getattr(credentials, "_credentials", None)
        super().__init__(target, options, core, None, interceptors(attempts))
        self._attempts = attempts
        self._active: Active = set()

    async def _close(self, grace: float | None) -> None:
        calls = getattr(self, "_active_calls", None)  # those that gRPC ends
        if calls is not None:
            calls.update(call for ref in self._active if (call := ref()))
        await super()._close(grace)

    unary_unary = replacing(
        Bare.unary_unary,
        lambda channel, method, made: UnaryCallable(
            channel._attempts, method, made, channel._active
        ),
    )
    stream_stream = replacing(Bare.stream_stream, lambda _, __, made: BidiCallable(made))
