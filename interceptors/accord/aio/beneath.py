"""gRPC's own constructors, beneath any instrumentation.

Instrumentation replaces `grpc.aio.insecure_channel` and its like, and puts its interceptors before
all others. opentelemetry-instrumentation-grpc would count every call twice, keep a caller's
cancellation from the server (opentelemetry-python-contrib#3271) and break streams (#3066).
"""

from typing import Any

import grpc
from grpc.aio import _channel, _server

server: Any = _server.server


def channel(target: str, credentials: grpc.ChannelCredentials | None, **settings: Any) -> Any:
    """As `grpc.aio.secure_channel`, or `grpc.aio.insecure_channel` without credentials."""
    if credentials is None:
        return _channel.insecure_channel(target, **settings)
    return _channel.secure_channel(target, credentials, **settings)
