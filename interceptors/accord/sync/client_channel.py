"""A channel of the mesh for gRPC with threads.

It knows what an interceptor is not told: whether a call blocks. So a call that blocks takes gRPC's
direct way, and is hedged all the same.
"""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import grpc
from grpc import _channel

from accord.sync.client_attempts import Attempts
from accord.sync.client_request import Answer, Details, Start

Options = Sequence[tuple[str, Any]]


def bare(target: str, credentials: grpc.ChannelCredentials | None, options: Options) -> Any:
    """As `grpc.secure_channel`, or `grpc.insecure_channel` without credentials."""
    found = None if credentials is None else credentials._credentials  # type: ignore[attr-defined]
    return _channel.Channel(target, options, found, None)


class Channel(grpc.Channel):
    """A channel of gRPC's that enforces the contracts of what is called over it."""

    def __init__(self, channel: grpc.Channel, attempts: Attempts) -> None:
        self._channel: Any = channel
        self._attempts = attempts

    def __enter__(self) -> "Channel":
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all calls, then the connection."""
        self._channel.close()

    def subscribe(
        self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool = False
    ) -> None:
        """As gRPC's own."""
        self._channel.subscribe(callback, try_to_connect=try_to_connect)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """As gRPC's own."""
        self._channel.unsubscribe(callback)

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """As gRPC's own."""
        return UnaryCallable(
            self._attempts, method, self._channel.unary_unary(method, *args, **kwargs)
        )

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """As gRPC's own."""
        bare = self._channel.unary_stream(method, *args, **kwargs)
        return StreamCallable(method, bare, self._attempts.stream)

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """As gRPC's own."""
        return UploadCallable(
            self._attempts, method, self._channel.stream_unary(method, *args, **kwargs)
        )

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """As gRPC's own."""
        bare = self._channel.stream_stream(method, *args, **kwargs)
        return StreamCallable(method, bare, self._attempts.bidi)


class UnaryCallable(grpc.UnaryUnaryMultiCallable):  # type: ignore[type-arg]
    """A method with one request and one response."""

    def __init__(self, attempts: Attempts, method: str, bare: Any) -> None:
        self._attempts = attempts
        self._method = method
        self._blocking = _blocking(bare)
        self._future = _plain(bare.future)

    def __call__(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """The response."""
        return self._settled(request, *args, **kwargs).result()

    def with_call(self, request: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """The response and its call object."""
        call = self._settled(request, *args, **kwargs)
        return call.result(), call

    def future(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """The call object, without waiting."""
        outgoing = self._attempts.begin(_details(self._method, *args, **kwargs), request)
        return self._attempts.future(self._future, outgoing, request)

    def _settled(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        outgoing = self._attempts.begin(_details(self._method, *args, **kwargs), request)
        if outgoing.call.route.hedge is None:
            return self._attempts.unary(self._blocking, outgoing, request)
        # Two attempts at once: one that blocks could not be cancelled.
        call = self._attempts.future(self._future, outgoing, request)
        try:
            call.result()
        except BaseException:
            call.cancel()
            raise
        return call


class UploadCallable(grpc.StreamUnaryMultiCallable):  # type: ignore[type-arg]
    """A method with many requests and one response."""

    def __init__(self, attempts: Attempts, method: str, bare: Any) -> None:
        self._attempts = attempts
        self._method = method
        self._blocking = _blocking(bare)
        self._future = _plain(bare.future)

    def __call__(self, request_iterator: Any, *args: Any, **kwargs: Any) -> Any:
        """The response."""
        return self.with_call(request_iterator, *args, **kwargs)[0]

    def with_call(self, request_iterator: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """The response and its call object."""
        details = _details(self._method, *args, **kwargs)
        call = self._attempts.once(self._blocking, details, request_iterator)
        return call.result(), call

    def future(self, request_iterator: Any, *args: Any, **kwargs: Any) -> Any:
        """The call object, without waiting."""
        details = _details(self._method, *args, **kwargs)
        return self._attempts.future_once(self._future, details, request_iterator)


class StreamCallable(grpc.UnaryStreamMultiCallable):  # type: ignore[type-arg]
    """A method with many responses."""

    def __init__(self, method: str, bare: Any, open_: Callable[[Start, Any, Any], Any]) -> None:
        self._method = method
        self._start = _plain(bare)
        self._open = open_

    def __call__(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """The call object."""
        return self._open(self._start, _details(self._method, *args, **kwargs), request)


def _details(
    method: str,
    timeout: float | None = None,
    metadata: Any = None,
    credentials: Any = None,
    wait_for_ready: bool | None = None,
    compression: Any = None,
) -> Details:
    """The details of a call, given as gRPC's own callables take them."""
    return Details(method, timeout, metadata, credentials, wait_for_ready, compression)


def _plain(bare: Callable[..., Any]) -> Start:
    """Makes attempts that do not block."""

    def start(details: Any, request: Any) -> Any:
        return bare(request, **_options(details))

    return start


def _blocking(bare: Any) -> Start:
    """Makes attempts that block. Raises the error of one that failed."""

    def start(details: Any, request: Any) -> Any:
        return Answer(*bare.with_call(request, **_options(details)))

    return start


def _options(details: Details) -> dict[str, Any]:
    return {
        "timeout": details.timeout,
        "metadata": details.metadata,
        "credentials": details.credentials,
        "wait_for_ready": details.wait_for_ready,
        "compression": details.compression,
    }
