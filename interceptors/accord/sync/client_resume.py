"""A server stream that survives its connection.

To the caller it is one call. Behind it, attempts come and go. It works only while it is read and
has no thread of its own. The twin of `accord.aio.client_resume`.
"""

import weakref
from collections.abc import Callable
from functools import partial
from threading import Event, Lock
from typing import Final, cast

import grpc

from accord.client.call import Attempt
from accord.client.request import OnResume
from accord.client.resume import ResumeTokens
from accord.client.types import Raise, Req, Res, tell
from accord.sync.client_call import CANCELLED, Refusal
from accord.sync.client_stream import StreamCall
from accord.sync.client_types import CallStatus, Responses, Start, SyncOutgoing
from accord.sync.timers import TIMERS

DROPPED: Final = 1.0
"""Seconds after which a call whose attempt has ended unseen is looked at: it may be dropped."""


class ResumableCall(StreamCall[Req, Res]):
    """The call object of a stream that is tried again, or resumed."""

    def __init__(
        self,
        start: Start[Req, Responses[Res]],
        request: Req,
        outgoing: SyncOutgoing[Req, Res],
        on_resume: OnResume | None,
    ) -> None:
        super().__init__(outgoing)
        self._start = start
        self._tokens = ResumeTokens(outgoing.call, request, on_resume)
        self.reading = False
        """Whether somebody reads, who sees to the ends of attempts."""
        self._lock = Lock()
        self._cancelled = False
        self._woken = Event()
        self._over = Event()
        self._code: grpc.StatusCode | None = None
        self._error: grpc.RpcError | None = None
        self._callbacks: list[Callable[[], None]] = []

    def open(self, after: grpc.RpcError | None = None, *, resumes: bool = False) -> None:
        """Make an attempt, the first or one that follows the error `after`.

        It begins behind the last token delivered. Raises the engine's refusal, or as gRPC does.
        """
        request = self._tokens.request(again=after is not None)
        with self._outgoing.sending() as attempt:
            if after is not None and resumes:
                self._tokens.announce(after)
            rpc = self._start(self._outgoing.details_of(attempt), request)
        with self._lock:
            self._rpc, self._attempt = rpc, attempt
            cancelled = self._cancelled
        seen = partial(_attempt_ended, weakref.ref(self), weakref.ref(rpc), self._outgoing, attempt)
        if not rpc.add_callback(seen):
            seen()
        self._watch_probe(attempt, rpc)
        if cancelled:
            rpc.cancel()
            self._outgoing.cancelled(attempt)

    def __next__(self) -> Res:
        self.reading = True
        while not self._over.is_set():
            try:
                self._notice_opening()
                message = next(self._rpc)
            except StopIteration:
                self._end(grpc.StatusCode.OK)
            except grpc.RpcError as error:
                self._resume_after(error)
            else:
                self._attempt.opened()
                if self._tokens.wanted(message):
                    self._outgoing.received()
                    return message
        if self._error is not None:
            raise self._error
        raise StopIteration

    def _notice_opening(self) -> None:
        if self._attempt.open or not self._tokens.resumes:
            return
        if self._tokens.accepted(self._rpc.initial_metadata()):
            self._attempt.opened()

    def _resume_after(self, error: grpc.RpcError) -> None:
        """Wait and open the next attempt, or end with `error`."""
        if self._cancelled:
            self._end_cancelled()
            return
        step = self._attempt.failed(self._tokens.failure(error))
        if isinstance(step, Raise):
            self._outgoing.mark(error, exhausted=step.exhausted)
            self._end(error.code(), error)
            return
        if self._woken.wait(step.delay):
            self._end_cancelled()
            return
        try:
            self.open(error, resumes=step.resumes)
        except Refusal as refusal:  # no time is left for another attempt
            refusal.__cause__ = error
            self._end(refusal.code(), refusal)

    def _end_cancelled(self) -> None:
        """The caller has cancelled, whatever else has happened."""
        self._end(grpc.StatusCode.CANCELLED, Refusal(grpc.StatusCode.CANCELLED, CANCELLED))

    def _end(self, code: grpc.StatusCode, error: grpc.RpcError | None = None) -> None:
        with self._lock:
            if self._code is not None:
                return
            self._code, self._error = code, error
            callbacks, self._callbacks = self._callbacks, []
            self._over.set()
        if code is grpc.StatusCode.OK:
            self._attempt.answered()
        self._outgoing.finish(code.name)
        tell(callbacks)

    def cancel(self) -> bool:
        """End the call and the attempt in hand; False if it has ended."""
        with self._lock:
            if self._code is not None or self._cancelled:
                return False
            self._cancelled = True
            rpc, attempt = self._rpc, self._attempt
        self._woken.set()
        rpc.cancel()
        self._outgoing.cancelled(attempt)
        self._end_cancelled()
        return True

    def cancelled(self) -> bool:
        """Whether the caller has cancelled it."""
        return self._cancelled

    def is_active(self) -> bool:
        """Whether it has not ended."""
        return self._code is None and not self._cancelled

    def time_remaining(self) -> float | None:
        """Seconds left of the whole call, attempts and waits included; None: no bound."""
        return self._outgoing.call.remaining()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call back when it has ended; False if it has."""
        with self._lock:
            if self._code is not None:
                return False
            self._callbacks.append(callback)
            return True

    def code(self) -> grpc.StatusCode:
        """Status code, once the call has ended."""
        if not self.reading and not self._over.is_set():
            # Nobody reads, so nothing will be resumed: the attempt's status is the call's.
            code = self._rpc.code()
            if not self.reading:
                return code
        if self._cancelled:
            return grpc.StatusCode.CANCELLED
        self._over.wait()
        return self._code or grpc.StatusCode.UNKNOWN  # it has one by now

    def _status(self) -> CallStatus:
        self.code()
        # The stubs give the trailers of an error another type than it has.
        return self._rpc if self._error is None else cast("CallStatus", self._error)


def _attempt_ended(
    call_of: Callable[[], ResumableCall[Req, Res] | None],
    rpc_of: Callable[[], Responses[Res] | None],
    outgoing: SyncOutgoing[Req, Res],
    attempt: Attempt,
) -> None:
    call, rpc = call_of(), rpc_of()
    if call is None:
        outgoing.cancelled(attempt)  # the caller has dropped it
        return
    if rpc is not None and not call.reading:  # else the reader sees to it, or has gone on
        outgoing.ended(attempt, rpc.code(), rpc.details(), rpc.trailing_metadata())
    if not attempt.ended:
        # The reader may come back, or drop the call. Nothing can be reported while it is collected:
        # that happens in any thread, under any lock.
        TIMERS.after(DROPPED, partial(_attempt_ended, call_of, rpc_of, outgoing, attempt))
