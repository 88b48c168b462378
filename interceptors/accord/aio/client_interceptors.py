"""Client interceptors: gRPC registers one for one arity only, so there are four thin ones."""

from typing import Any

import grpc
import grpc.aio

from accord.aio.client_attempts import Attempts


class UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
    """One request, one response."""

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts

    async def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        """See the class."""
        continuation = self._attempts.alone(continuation)
        return await self._attempts.unary(continuation, client_call_details, request)


class UnaryStream(grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[type-arg]
    """One request, many responses; tried again before the first of them, resumed after it."""

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts

    async def intercept_unary_stream(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        """See the class."""
        outgoing = self._attempts.begin(client_call_details, request)
        continuation = self._attempts.alone(continuation)
        from accord.aio.client_resume import ResumableCall  # late: it is built on this module
        from accord.aio.client_stream import StreamCall

        call = outgoing.call
        if call.resumption is None and call.policy.retry is None:
            return await StreamCall(outgoing).start(continuation, request)
        resumable = ResumableCall(
            continuation, request, outgoing, self._attempts.settings.on_resume
        )
        await resumable.open()
        return resumable


class StreamUnary(grpc.aio.StreamUnaryClientInterceptor):  # type: ignore[type-arg]
    """Many requests, one response."""

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts

    async def intercept_stream_unary(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        """See the class."""
        continuation = self._attempts.alone(continuation)
        return await self._attempts.streamed(continuation, client_call_details, request_iterator)


class StreamStream(grpc.aio.StreamStreamClientInterceptor):  # type: ignore[type-arg]
    """Many requests, many responses."""

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts

    async def intercept_stream_stream(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        """See the class."""
        continuation = self._attempts.alone(continuation)
        return await self._attempts.streamed(continuation, client_call_details, request_iterator)


def interceptors(attempts: Attempts) -> list[Any]:
    """One interceptor per arity."""
    return [
        UnaryUnary(attempts),
        UnaryStream(attempts),
        StreamUnary(attempts),
        StreamStream(attempts),
    ]
