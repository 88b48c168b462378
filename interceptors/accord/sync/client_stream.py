"""A stream of responses, as one call object.

gRPC's own is cancelled when it is collected, so nothing here may hold it but the caller's call
object: callbacks have a weak reference.
"""

import weakref
from collections.abc import Callable, Iterator
from functools import partial
from threading import Lock
from typing import Any

import grpc

from accord.client.decisions import Refuse, Send
from accord.client.request import read_failure
from accord.sync.client_request import Outgoing, Start


class Ending:
    """Reports how an attempt ended, once."""

    __slots__ = ("_lock", "_outgoing", "_reported", "_send")

    def __init__(self, outgoing: Outgoing, send: Send) -> None:
        self._outgoing = outgoing
        self._send = send
        self._lock = Lock()
        self._reported = False

    def watch(self, rpc: Any) -> None:
        """Report when gRPC's call object `rpc` has ended or is collected."""
        if not rpc.add_callback(partial(self._seen, weakref.ref(rpc))):
            self._seen(lambda: rpc)

    def _seen(self, found: Callable[[], Any]) -> None:
        rpc = found()
        if rpc is None:
            self.cancelled()
        else:
            self.report(rpc.code(), rpc.trailing_metadata())

    def report(self, code: grpc.StatusCode, trailers: Any) -> None:
        """The attempt ended with this status, and the call with it."""
        if self._first():
            call, send = self._outgoing.call, self._send
            if code is grpc.StatusCode.OK:
                call.succeeded(send)
            else:
                call.recorded(send, read_failure(code, trailers))
            self._outgoing.finish(code.name)

    def cancelled(self) -> None:
        """The caller has ended it."""
        if self._first():
            self._outgoing.call.released(self._send)
            self._outgoing.finish("CANCELLED")

    def taken(self) -> None:
        """Its reader reports it, and decides what follows."""
        self._first()

    def missing(self) -> bool:
        """Whether nobody has reported it yet."""
        return not self._reported

    def _first(self) -> bool:
        with self._lock:
            first, self._reported = not self._reported, True
        return first


class StreamCall(grpc.Call):
    """One attempt of a stream of responses."""

    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing
        self._call = outgoing.call
        self._rpc: Any = None
        self._send: Send | None = None
        self._ending: Ending | None = None
        self._answered = False

    def start(self, start: Start, request: Any) -> Any:
        """Make the attempt: this, or the engine's refusal. Raises as gRPC does."""
        send = self._call.admit()
        if isinstance(send, Refuse):
            self._outgoing.finish(send.code.name)
            return self._outgoing.refusal(send)
        self._send = send
        self._rpc = self._sent(start, send, request)
        self._ending = Ending(self._outgoing, send)
        self._ending.watch(self._rpc)
        return self

    def _sent(self, start: Start, send: Send, request: Any) -> Any:
        """GRPC's call object of an attempt, which is released if it cannot be made."""
        try:
            return start(self._outgoing.attempt(send), request)
        except BaseException as error:
            self._call.released(send)
            self._outgoing.finish(type(error).__name__)
            raise

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            message = next(self._rpc)
        except grpc.RpcError as error:
            self._outgoing.mark(error)
            # The reader may be quicker than the callback, and ask for the next call.
            self._ended(error.code(), error)
            raise
        self._answer()
        self._outgoing.received()
        return message

    def next(self) -> Any:
        """The next message."""
        return next(self)

    def _ended(self, code: grpc.StatusCode, error: Any) -> None:
        if self._ending is not None:
            self._ending.report(code, error.trailing_metadata())

    def _answer(self) -> None:
        """The server has begun to answer: a probe must not hold the breaker for a whole stream."""
        if not self._answered and self._send is not None:
            self._answered = True
            self._call.succeeded(self._send)

    def cancel(self) -> bool:
        """End the call; False if it has ended."""
        return bool(self._rpc.cancel())

    def cancelled(self) -> bool:
        """Whether the caller has cancelled it."""
        return bool(self._rpc.cancelled())

    def done(self) -> bool:
        """Whether it has ended."""
        return not self.is_active()

    def is_active(self) -> bool:
        """Whether it has not ended."""
        return bool(self._rpc.is_active())

    def time_remaining(self) -> Any:
        """Seconds left of the call; None: no bound."""
        return self._rpc.time_remaining()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call back when it has ended; False if it has."""
        return bool(self._rpc.add_callback(callback))

    def initial_metadata(self) -> Any:
        """What the server sent first; waits for it."""
        metadata = self._rpc.initial_metadata()
        if metadata:  # without a server's own, it may be the status of a refusal
            self._answer()
        return metadata

    def trailing_metadata(self) -> Any:
        """What the server sent last, once the call has ended."""
        return self._rpc.trailing_metadata()

    def code(self) -> Any:
        """Status code, once the call has ended."""
        return self._rpc.code()

    def details(self) -> Any:
        """Status message, once the call has ended."""
        return self._rpc.details()

    def debug_error_string(self) -> Any:
        """What gRPC itself says of the failure."""
        return self._rpc.debug_error_string()
