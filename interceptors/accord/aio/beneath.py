"""gRPC's own constructors, beneath any instrumentation.

Instrumentation replaces `grpc.aio.insecure_channel` and its like, and puts its interceptors before
all others. opentelemetry-instrumentation-grpc would count every call twice, keep a caller's
cancellation from the server (opentelemetry-python-contrib#3271) and break streams (#3066).
"""

from typing import Any

from grpc.aio import _channel, _server

insecure_channel: Any = _channel.insecure_channel
secure_channel: Any = _channel.secure_channel
server: Any = _server.server
