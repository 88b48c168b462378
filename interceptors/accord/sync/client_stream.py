"""A stream of responses, as one call object.

gRPC's own is cancelled when it is collected, so nothing here may hold it but the caller's call
object: callbacks have a weak reference.
"""

import time
import weakref
from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import Generic, Self

import grpc

from accord.client.call import PROBE_SETTLES, Attempt
from accord.client.request import trailers_of
from accord.client.types import Pairs, Req, Res, tell
from accord.sync.client_call import CallBase, Refusal
from accord.sync.client_types import CallStatus, Responses, Start, SyncOutgoing


class StreamCall(CallBase, Generic[Req, Res]):
    """One attempt of a stream of responses."""

    _rpc: Responses[Res]
    _attempt: Attempt

    def __init__(self, outgoing: SyncOutgoing[Req, Res]) -> None:
        self._outgoing = outgoing

    def start(self, start: Start[Req, Responses[Res]], request: Req) -> Self | Refusal[Res]:
        """Make the attempt: this, or the engine's refusal. Raises as gRPC does."""
        try:
            with self._outgoing.sending() as attempt:
                rpc = start(self._outgoing.details_of(attempt), request)
        except Refusal as refusal:
            return refusal
        self._attempt, self._rpc = attempt, rpc
        if not rpc.add_callback(partial(_ended, self._outgoing, attempt, weakref.ref(rpc))):
            _ended(self._outgoing, attempt, lambda: rpc)
        self._watch_probe(attempt, rpc)
        return self

    def _watch_probe(self, attempt: Attempt, rpc: Responses[Res]) -> None:
        """See that a stream which is a probe is settled when the server begins to answer."""
        if attempt.permission is not None and attempt.permission.probe:
            weakref.finalize(self, rpc.cancel).atexit = False  # the thread holds it as well
            Thread(target=_answered, args=(attempt, rpc), daemon=True).start()

    def _status(self) -> CallStatus:
        return self._rpc

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Res:
        try:
            message = next(self._rpc)
        except grpc.RpcError as error:
            self._outgoing.mark(error)
            # The reader may be quicker than the callback, and ask for the next call.
            self._outgoing.ended(
                self._attempt, error.code(), error.details() or "", trailers_of(error)
            )
            raise
        # Not at the end: a probe must not hold the breaker for as long as a stream.
        self._attempt.opened()
        self._outgoing.received()
        return message

    def next(self) -> Res:
        """The next message."""
        return next(self)

    def cancel(self) -> bool:
        """End the call; False if it has ended."""
        return self._rpc.cancel()

    def cancelled(self) -> bool:
        """Whether the caller has cancelled it."""
        return self._rpc.cancelled()

    def is_active(self) -> bool:
        """Whether it has not ended."""
        return self._rpc.is_active()

    def time_remaining(self) -> float | None:
        """Seconds left of the call; None: no bound."""
        return self._rpc.time_remaining()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call back when it has ended; False if it has."""
        # One that raises would end the thread in which gRPC tells all calls of a channel.
        return self._rpc.add_callback(partial(tell, (callback,)))

    def initial_metadata(self) -> Pairs:
        """What the server sent first; waits for it."""
        metadata = self._rpc.initial_metadata()
        if metadata:  # without a server's own, it may be the status of a refusal
            self._attempt.opened()
        return metadata


def _answered(attempt: Attempt, rpc: Responses[Res]) -> None:
    rpc.initial_metadata()  # only a thread can wait for it
    time.sleep(PROBE_SETTLES)
    if rpc.is_active():
        attempt.accepted()


def _ended(
    outgoing: SyncOutgoing[Req, Res], attempt: Attempt, found: Callable[[], Responses[Res] | None]
) -> None:
    """Gives account of an attempt that has ended, or was collected."""
    rpc = found()
    if rpc is None:
        outgoing.cancelled(attempt)
    else:
        outgoing.ended(attempt, rpc.code(), rpc.details(), rpc.trailing_metadata())
