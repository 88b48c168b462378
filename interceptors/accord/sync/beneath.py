"""gRPC's own constructors, beneath any instrumentation: the twin of `accord.aio.beneath`."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from grpc import _channel, _server

Options = Sequence[tuple[str, Any]]


def insecure_channel(target: str, options: Options, compression: Any = None) -> Any:
    """As `grpc.insecure_channel`."""
    return _channel.Channel(target, options, None, compression)


def server(
    pool: ThreadPoolExecutor,
    *,
    interceptors: Sequence[Any],
    options: Options,
    maximum_concurrent_rpcs: int | None,
    handlers: Sequence[Any] = (),
    compression: Any = None,
    xds: bool = False,
) -> Any:
    """As `grpc.server`."""
    return _server.create_server(
        pool, handlers, interceptors, options, maximum_concurrent_rpcs, compression, xds
    )
