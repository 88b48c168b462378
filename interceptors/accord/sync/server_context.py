"""What a handler in a thread sees of its call: messages in and out, and the servicer context."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Generic, Protocol

import grpc

from accord.errors import InvalidArgument, grpc_code
from accord.server import types
from accord.server.codec import Codec
from accord.server.error_mapping import Answer, known, text, with_mark
from accord.server.servicer_context import ServicerContext
from accord.server.spans import ServerCall
from accord.server.types import Metadata, Req, Res, Status
from accord.sync.server_timeouts import Watchdog
from accord.sync.timers import TIMERS


class GrpcContext(types.GrpcContext, Protocol):
    """gRPC's own context of a call that is handled in a thread."""

    def time_remaining(self) -> float | None:
        """Seconds that the caller's deadline leaves; very many if it has none."""

    def is_active(self) -> bool:
        """Whether the call has not ended yet."""

    def add_callback(self, callback: Callable[[], object], /) -> bool:  # nobody asks for it
        """Call `callback` when the call has ended; False if it has."""

    def cancel(self) -> None:
        """End the call."""

    def send_initial_metadata(self, initial_metadata: Metadata, /) -> None:
        """Send what comes before the responses."""

    def abort(self, code: Status, details: str, /) -> None:
        """End the call with a status. Raises an exception."""


class CallEnded(Exception):
    """The call has ended while its handler was at work: there is nobody to send anything to."""


class Requests(Generic[Req, Res]):
    """The requests of a client stream, each decoded and validated as it is read."""

    def __init__(
        self,
        requests: Iterator[bytes],
        codec: Codec[Req, Res],
        watchdog: Watchdog | None,
        observed: ServerCall | None,
    ) -> None:
        self._requests = requests
        self._codec = codec
        self._watchdog = watchdog
        self._observed = observed
        self._read = 0

    def __iter__(self) -> Iterator[Req]:
        return self

    def __next__(self) -> Req:
        """The next request. Raises InvalidArgument, which names the item."""
        raw = next(self._requests, None)
        if raw is None:
            # A call that has been cancelled, or whose deadline has passed, may end like this as
            # well. gRPC reports both in order: another read raises its RpcError then.
            next(self._requests, None)
            if self._watchdog is not None and self._watchdog.error is not None:
                # Not the caller's end of the stream: a handler must not take it for all there is.
                raise self._watchdog.error from None
            raise StopIteration
        if self._watchdog is not None:
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


class ServerContext(ServicerContext[GrpcContext]):
    """gRPC's servicer context, without UNKNOWN."""

    def __init__(self, context: GrpcContext) -> None:
        super().__init__(context)
        self.aborted = False
        """Whether the handler has ended the call by `abort`."""
        self.lets_go = False
        """Whether the handler sends by itself, from whichever thread."""

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call `callback` when the call has ended; False if it has."""
        if self.lets_go:
            # Not by the thread that serves all: gRPC's health service holds, while it sends, the
            # lock that its callback waits for, and what it sends is sent by that thread.
            return self._context.add_callback(partial(TIMERS.after, 0.0, callback))
        return self._context.add_callback(callback)

    def abort(self, code: Status, details: str = "") -> None:
        """End the call with a status. Raises an exception that must not be caught."""
        trailers = with_mark(self._context.trailing_metadata() or ())
        self._context.set_trailing_metadata(trailers)
        details = text(details)
        self._context.set_details(details)  # what is no text fails here, as an error of the handler
        self.aborted = True
        self._context.abort(known(code), details)

    def abort_with_status(self, status: grpc.Status) -> None:
        """As gRPC's own."""
        self.set_trailing_metadata(status.trailing_metadata)
        self.abort(status.code, status.details)


def put(context: GrpcContext, answer: Answer) -> grpc.StatusCode:
    """Let gRPC's context end its call with this answer."""
    code = grpc_code(answer.status.code)
    context.set_trailing_metadata(answer.trailers(context.trailing_metadata()))
    context.set_code(code)
    context.set_details(answer.status.message)
    return code
