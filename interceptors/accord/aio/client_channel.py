"""A channel of the mesh for `grpc.aio`."""

from types import TracebackType
from typing import Any

import grpc
import grpc.aio
from grpc.aio import _channel

from accord.aio.client_attempts import Attempts
from accord.aio.client_core_call import active_calls
from accord.aio.client_stream import BidiCallable
from accord.aio.client_unary import Active, UnaryCallable


def bare(target: str, credentials: grpc.ChannelCredentials | None, **settings: Any) -> Any:
    """As `grpc.aio.secure_channel`, or `grpc.aio.insecure_channel` without credentials.

    Beneath any instrumentation, which replaces these two and puts its interceptors before all
    others: opentelemetry-instrumentation-grpc would count every call twice, keep a caller's
    cancellation from the server (opentelemetry-python-contrib#3271) and break streams (#3066).
    """
    if credentials is None:
        return _channel.insecure_channel(target, **settings)
    return _channel.secure_channel(target, credentials, **settings)


class Channel(grpc.aio.Channel):
    """A channel of gRPC's with the mesh's interceptors, made faster."""

    def __init__(self, channel: Any, attempts: Attempts) -> None:
        self._channel = channel
        self._attempts = attempts
        self._active: Active = set()

    async def __aenter__(self) -> "Channel":
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """As gRPC's own."""
        active_calls(self._channel).update(call for ref in self._active if (call := ref()))
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """As gRPC's own."""
        state: grpc.ChannelConnectivity = self._channel.get_state(try_to_connect)
        return state

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """As gRPC's own."""
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """As gRPC's own."""
        await self._channel.channel_ready()

    def unary_unary(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        """As gRPC's own."""
        intercepted = self._channel.unary_unary(method, *args, **kwargs)
        bare = self._channel.unary_unary(method, *args, **kwargs)
        bare._interceptors = None
        return UnaryCallable(self._attempts, method, bare, intercepted, self._active)

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        """As gRPC's own."""
        return self._channel.unary_stream(*args, **kwargs)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        """As gRPC's own."""
        return self._channel.stream_unary(*args, **kwargs)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """As gRPC's own."""
        return BidiCallable(self._channel.stream_stream(*args, **kwargs))
