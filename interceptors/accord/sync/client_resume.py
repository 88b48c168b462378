"""A server stream that survives its connection.

To the caller it is one call. Behind it, attempts come and go. It works only while it is read and
has no thread of its own. The twin of `accord.aio.client_resume`.
"""

import weakref
from collections.abc import Callable
from functools import partial
from threading import Event, Lock
from typing import Any, Final

import grpc

from accord.client.decisions import Raise, Refuse
from accord.client.request import OnResume, broken, failure_from
from accord.client.resume import ResumeTokens
from accord.sync.client_request import CANCELLED, Outgoing, Refusal, Start
from accord.sync.client_stream import Ending, StreamCall
from accord.sync.timers import TIMERS

DROPPED: Final = 1.0
"""Seconds after which a call whose attempt has ended unseen is looked at: it may be dropped."""


class ResumableCall(StreamCall):
    """The call object of a stream that is tried again, or resumed."""

    def __init__(self, outgoing: Outgoing, on_resume: OnResume | None) -> None:
        super().__init__(outgoing)
        self._on_resume = on_resume
        self._start: Any = None
        self._reading = False
        """Whether somebody reads."""
        self._delivered = False
        """Whether the caller has seen a message."""
        self._lock = Lock()
        self._cancelled = False
        self._woken = Event()
        self._over = Event()
        self._code: grpc.StatusCode | None = None
        self._error: Any = None
        self._callbacks: list[Callable[[], None]] = []

    def start(self, start: Start, request: Any) -> Any:
        """Make the first attempt: this, or the engine's refusal. Raises as gRPC does."""
        self._start = start
        self._tokens = ResumeTokens(self._call, request, self._on_resume)
        refusal = self._open(None)
        if refusal is None:
            return self
        self._outgoing.finish(refusal.code().name)
        return refusal

    def _open(self, error: grpc.RpcError | None) -> Any:
        """Make an attempt from the last token delivered; `error` is what it resumes after.

        Returns the engine's refusal, or None.
        """
        request = self._tokens.request(again=self._rpc is not None)
        send = self._call.admit()
        if isinstance(send, Refuse):
            return self._outgoing.refusal(send)
        if error is not None:
            self._tokens.announce(error)
        self._send = send
        self._answered = False
        rpc, ending = self._sent(self._start, send, request), Ending(self._outgoing, send)
        with self._lock:
            self._rpc, self._ending = rpc, ending
            cancelled = self._cancelled
        seen = partial(_attempt_ended, weakref.ref(self), weakref.ref(rpc), ending)
        if not rpc.add_callback(seen):
            seen()
        if cancelled:
            rpc.cancel()
            ending.cancelled()
        return None

    def __next__(self) -> Any:
        self._reading = True
        while not self._over.is_set():
            try:
                self._notice_opening()
                message = next(self._rpc)
            except StopIteration:
                self._take()
                self._tokens.ended()
                self._answer()
                self._end(grpc.StatusCode.OK)
            except grpc.RpcError as error:
                self._resume_after(error)
            else:
                self._answer()
                if self._tokens.wanted(message):
                    self._delivered = True
                    self._outgoing.received()
                    return message
        if self._error is not None:
            raise self._error
        raise StopIteration

    def _notice_opening(self) -> None:
        if self._answered or not self._tokens.resumes:
            return
        if self._tokens.accepted(self._rpc.initial_metadata()):
            self._answer()

    def _resume_after(self, error: grpc.RpcError) -> None:
        """Wait and open the next attempt, or end with `error`."""
        if self._cancelled or self._send is None:
            self._end_cancelled()
            return
        self._take()
        step = self._call.failed(
            self._send, failure_from(error, transport=broken(error), started=self._delivered)
        )
        if isinstance(step, Raise):
            self._outgoing.mark(error, exhausted=step.exhausted)
            self._end(error.code(), error)
            return
        if self._woken.wait(step.delay):
            self._end_cancelled()
            return
        refusal = self._open(error if step.resumes else None)
        if refusal is not None:  # no time is left for another attempt
            refusal.__cause__ = error
            self._end(refusal.code(), refusal)

    def _take(self) -> None:
        """The reader has seen the end of the attempt in hand, and reports it."""
        if self._ending is not None:
            self._ending.taken()

    def _end_cancelled(self) -> None:
        """The caller has cancelled, whatever else has happened."""
        self._end(grpc.StatusCode.CANCELLED, Refusal(grpc.StatusCode.CANCELLED, CANCELLED))

    def _end(self, code: grpc.StatusCode, error: Any = None) -> None:
        with self._lock:
            if self._code is not None:
                return
            self._code, self._error = code, error
            callbacks, self._callbacks = self._callbacks, []
            self._over.set()
        self._outgoing.finish(code.name)
        for callback in callbacks:
            callback()

    def attempt_ended(self, rpc: Any, ending: Ending) -> None:
        """An attempt has ended. When there is a reader, it sees to it."""
        if not self._reading:
            ending.report(rpc.code(), rpc.trailing_metadata())

    def cancel(self) -> bool:
        """End the call and the attempt in hand; False if it has ended."""
        with self._lock:
            if self._code is not None or self._cancelled:
                return False
            self._cancelled = True
            rpc, ending = self._rpc, self._ending
        self._woken.set()
        rpc.cancel()
        if ending is not None:
            ending.cancelled()
        self._end_cancelled()
        return True

    def cancelled(self) -> bool:
        """Whether the caller has cancelled it."""
        return self._cancelled

    def is_active(self) -> bool:
        """Whether it has not ended."""
        return self._code is None and not self._cancelled

    def time_remaining(self) -> Any:
        """Seconds left of the whole call, attempts and waits included; None: no bound."""
        return self._call.remaining()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call back when it has ended; False if it has."""
        with self._lock:
            if self._code is not None:
                return False
            self._callbacks.append(callback)
            return True

    def code(self) -> Any:
        """Status code, once the call has ended."""
        if not self._reading and not self._over.is_set():
            # Nobody reads, so nothing will be resumed: the attempt's status is the call's.
            code = self._rpc.code()
            if not self._reading:
                return code
        if self._cancelled:
            return grpc.StatusCode.CANCELLED
        self._over.wait()
        return self._code

    def _last(self) -> Any:
        self.code()
        return self._rpc if self._error is None else self._error

    def trailing_metadata(self) -> Any:
        """Trailing metadata of the last attempt, once the call has ended."""
        return self._last().trailing_metadata()

    def details(self) -> Any:
        """Status message, once the call has ended."""
        return self._last().details()

    def debug_error_string(self) -> Any:
        """What gRPC itself says of the failure."""
        return self._last().debug_error_string()


def _attempt_ended(
    call_of: "weakref.ref[ResumableCall]", rpc_of: "weakref.ref[Any]", ending: Ending
) -> None:
    call, rpc = call_of(), rpc_of()
    if call is None:
        ending.cancelled()  # the caller has dropped it
        return
    if rpc is not None:  # else the reader has gone on to the next attempt
        call.attempt_ended(rpc, ending)
    if ending.missing():
        # The reader may come back, or drop the call. Nothing can be reported while it is collected:
        # that happens in any thread, under any lock.
        TIMERS.after(DROPPED, partial(_attempt_ended, call_of, rpc_of, ending))
