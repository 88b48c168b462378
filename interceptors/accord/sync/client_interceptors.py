"""Client interceptors for gRPC with threads, one for each arity.

The twins of `accord.aio.client_interceptors`. An interceptor is not told whether its call blocks,
and one that blocks cannot be hedged: a channel of the mesh knows (see `client_channel`).
"""

from typing import Any

import grpc

from accord.sync.client_attempts import Attempts
from accord.sync.client_request import Start
from accord.telemetry.spans import suppressed


class UnaryUnary(grpc.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
    """One request, one response."""

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts

    def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        """See the class."""
        return self._attempts.future(
            _alone(continuation), self._attempts.begin(client_call_details, request), request
        )


class UnaryStream(grpc.UnaryStreamClientInterceptor):  # type: ignore[type-arg]
    """One request, many responses."""

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts

    def intercept_unary_stream(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        """See the class."""
        return self._attempts.stream(_alone(continuation), client_call_details, request)


class StreamUnary(grpc.StreamUnaryClientInterceptor):  # type: ignore[type-arg]
    """Many requests, one response."""

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts

    def intercept_stream_unary(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        """See the class."""
        return self._attempts.future_once(
            _alone(continuation), client_call_details, request_iterator
        )


class StreamStream(grpc.StreamStreamClientInterceptor):  # type: ignore[type-arg]
    """Many requests, many responses."""

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts

    def intercept_stream_stream(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        """See the class."""
        return self._attempts.bidi(_alone(continuation), client_call_details, request_iterator)


def interceptors(attempts: Attempts) -> list[Any]:
    """One interceptor per arity."""
    return [
        UnaryUnary(attempts),
        UnaryStream(attempts),
        StreamUnary(attempts),
        StreamStream(attempts),
    ]


def _alone(continuation: Start) -> Start:
    """`continuation`, in which nobody else makes a span of the same call."""

    def start(details: Any, request: Any) -> Any:
        with suppressed():
            return continuation(details, request)

    return start
