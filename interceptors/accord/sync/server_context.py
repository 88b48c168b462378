"""What a handler in a thread sees of its call: messages in and out, and the servicer context."""

from collections.abc import Iterator
from threading import Lock
from typing import Any

import grpc

from accord import errors
from accord.context import CallContext
from accord.errors import InvalidArgument
from accord.server import error_mapping as failure
from accord.server.codec import Codec
from accord.server.error_mapping import Answer, with_mark
from accord.server.observation import ServerCall
from accord.server.request import SILENT, grpc_code, known, sendable
from accord.sync.server_timeouts import Watchdog


def answer_to(
    error: BaseException, call: CallContext, translate: errors.Translate | None
) -> Answer | None:
    """What to answer with, or None if gRPC must see the exception itself."""
    if isinstance(error, failure.Answered):
        return failure.answer_to(error, call, translate)
    if not isinstance(error, Exception) or caller_has_gone(error):
        return None
    return failure.answer_to(error, call, translate)


def caller_has_gone(error: BaseException) -> bool:
    """Whether this is what gRPC raises when there is nobody to talk to: an error without status."""
    return isinstance(error, grpc.RpcError) and not hasattr(error, "code")


class CallEnded(Exception):
    """The call has ended while its handler was at work: there is nobody to send anything to."""


class Requests:
    """The requests of a client stream, each decoded and validated as it is read."""

    def __init__(
        self, requests: Any, codec: Codec, watchdog: Watchdog, observed: ServerCall | None
    ) -> None:
        self._requests = requests
        self._codec = codec
        self._watchdog = watchdog
        self._observed = observed
        self._read = 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        """The next request. Raises InvalidArgument, which names the item."""
        raw = next(self._requests, None)
        if raw is None:
            # A call that has been cancelled, or whose deadline has passed, may end like this as
            # well. gRPC reports both in order: another read raises its RpcError then.
            next(self._requests, None)
            if self._watchdog.error is not None:
                # Not the caller's end of the stream: a handler must not take it for all there is.
                raise self._watchdog.error from None
            raise StopIteration
        self._watchdog.touch()
        if self._observed is not None:
            self._observed.received(len(raw))
        try:
            request = self._codec.decode(raw)
        except InvalidArgument as error:
            error.metadata["item"] = str(self._read)
            raise
        self._read += 1
        return request


class ServerContext:
    """gRPC's servicer context, without UNKNOWN."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self.aborted = False
        """Whether the handler has ended the call by `abort`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def abort(self, code: Any, details: str = "") -> None:
        """End the call with a status. Raises an exception that must not be caught."""
        trailers = with_mark(self._context.trailing_metadata() or ())
        self._context.set_trailing_metadata(trailers)
        self._context.set_details(details)  # what is no text fails here, as an error of the handler
        self.aborted = True
        self._context.abort(known(code), details)

    def abort_with_status(self, status: Any) -> None:
        """As gRPC's own."""
        self.set_trailing_metadata(status.trailing_metadata)
        self.abort(status.code, status.details)

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Set the trailers of the answer. Raises TypeError."""
        self._context.set_trailing_metadata(sendable(trailing_metadata))

    def set_code(self, code: Any) -> None:
        """Set the status code of the answer."""
        self._context.set_code(known(code))

    def failed(self) -> bool:
        """Whether the handler has set a status code that is not OK."""
        return self._context.code() not in SILENT


class Responses:
    """The responses of a call, sent one by one and closed once, from whichever thread."""

    def __init__(self, context: Any, send: Any) -> None:
        """`send` is gRPC's callback: a message, or None for the status that the context has."""
        self._context = context
        self._send = send
        self._lock = Lock()
        self._closed = False

    def send(self, raw: bytes) -> None:
        """Send one response. Raises CallEnded."""
        if not self._closed:
            self._send(raw)
        if self._closed or not self._context.is_active():
            raise CallEnded

    def close(self, answer: Answer | None = None) -> bool:
        """End the call: with this answer, or as its context says. False if it was closed."""
        with self._lock:
            if self._closed:
                return False
            self._closed = True
            if answer is not None:
                put(self._context, answer)
        self._send(None)
        return True


def put(context: Any, answer: Answer) -> grpc.StatusCode:
    """Let gRPC's context end its call with this answer."""
    code = grpc_code(answer.status.code)
    context.set_trailing_metadata(answer.trailers(context.trailing_metadata()))
    context.set_code(code)
    context.set_details(answer.status.message)
    return code
