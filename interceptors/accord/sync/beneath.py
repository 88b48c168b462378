"""gRPC's own constructors, beneath any instrumentation: the twin of `accord.aio.beneath`."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc import _channel, _server

Options = Sequence[tuple[str, Any]]


def channel(target: str, credentials: grpc.ChannelCredentials | None, options: Options) -> Any:
    """As `grpc.secure_channel`, or `grpc.insecure_channel` without credentials."""
    found = None if credentials is None else credentials._credentials  # type: ignore[attr-defined]
    return _channel.Channel(target, options, found, None)


def server(
    pool: ThreadPoolExecutor,
    *,
    interceptors: Sequence[Any],
    options: Options,
    maximum_concurrent_rpcs: int | None,
    compression: Any = None,
    xds: bool = False,
) -> Any:
    """As `grpc.server`."""
    return _server.create_server(
        pool, (), interceptors, options, maximum_concurrent_rpcs, compression, xds
    )
