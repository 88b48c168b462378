"""A call that nobody waits for: its attempts, back-offs and hedge go on by themselves.

It is moved by what happens - an attempt ends, a timer is due - in the thread of gRPC or of the
timers, never by a thread of its own. Only what may block has one: a fallback, and the repeated
attempts of a blocking call that came through an interceptor.
"""

import contextvars
import logging
import time
from collections.abc import Callable
from functools import partial
from threading import Condition, RLock, Thread
from typing import Any

import grpc

from accord._log import log
from accord.client.decisions import Raise, Refuse, Send
from accord.client.request import failure_from, keep, lookup
from accord.sync.client_request import CANCELLED, Answer, Fallbacks, Outgoing, Refusal, Start
from accord.sync.timers import TIMERS, Timer


class FutureCall(grpc.Call, grpc.Future):  # type: ignore[type-arg]
    """A call with one response. Safe under threads.

    User code - callbacks, a fallback - never runs while the lock is held.
    """

    def __init__(
        self,
        fallbacks: Fallbacks,
        outgoing: Outgoing,
        start: Start,
        request: Any,
        *,
        once: bool = False,
    ) -> None:
        """`once`: the requests are streamed, so there is one attempt, and nothing else."""
        self._fallbacks = fallbacks
        self._outgoing = outgoing
        self._call = outgoing.call
        self._start = start
        self._request = request
        self._once = once
        self._context = contextvars.copy_context()
        self._condition = Condition(RLock())
        self._running: list[tuple[Send, Any]] = []
        self._blocking = False
        self._timer: Timer | None = None
        self._hedge_timer: Timer | None = None
        self._outcome: Any = None
        """The call object or the error with which it has ended."""
        self._cancelled = False
        self._callbacks: list[Callable[[], None]] = []

    def begin(self) -> "FutureCall":
        """Make the first attempt. Raises what gRPC raises for a call that cannot be made."""
        call = self._call
        if call.route.caches and not self._once:
            kept = lookup(call, self._outgoing, self._request)
            if kept is not None:
                self._end(Answer(kept), "OK")
                return self
        self._guarded(self._attempt)
        if isinstance(self._outcome, BaseException) and not isinstance(
            self._outcome, grpc.RpcError
        ):
            raise self._outcome
        return self

    # What happens to it.

    def _attempt(self) -> None:
        """The next attempt is due."""
        with self._condition:
            self._timer = None
            if self._outcome is not None:
                return
            send = self._call.admit()
            if isinstance(send, Refuse):
                error = self._outgoing.refusal(send)
                started = None
            else:
                error = None
                started = self._launch(send)
        if error is not None:
            self._fail(error)
        self._follow(started)

    def _hedge(self) -> None:
        """The first attempt takes longer than usual."""
        with self._condition:
            if self._outcome is not None or len(self._running) != 1:
                return
            send = self._call.admit_hedge()
            started = None if send is None else self._launch(send, hedge=True)
        self._follow(started)

    def _launch(self, send: Send, *, hedge: bool = False) -> tuple[Send, Any] | None:
        try:
            rpc = self._start(self._outgoing.attempt(send), self._request)
        except grpc.RpcError as error:
            rpc = error  # it is the ended call as well
        except BaseException as error:
            self._call.released(send)
            self._set(error, type(error).__name__)
            return None
        self._running.append((send, rpc))
        if rpc.done():
            # Either it was quick or it blocks; what may block must not hold up the timers.
            self._blocking = True
        elif not (hedge or self._once):
            delay = self._call.hedge_delay()
            if delay is not None:
                self._hedge_timer = TIMERS.after(delay, self._carried(self._hedge))
        return send, rpc

    def _follow(self, started: tuple[Send, Any] | None) -> None:
        if started is not None:
            send, rpc = started
            rpc.add_done_callback(partial(self._guarded, self._ended, send))
        self._tell()

    def _ended(self, send: Send, rpc: Any) -> None:
        """An attempt has ended."""
        with self._condition:
            if all(other is not send for other, _ in self._running):
                return  # it was cancelled, and is reported
            self._running = [pair for pair in self._running if pair[0] is not send]
            error = self._decide(send, rpc)
        if error is not None:
            self._fail(error)
        self._tell()

    def _decide(self, send: Send, rpc: Any) -> Any:
        """What follows; the error, if it is the end of the call."""
        call = self._call
        code = rpc.code()
        if code is grpc.StatusCode.OK:
            self._drop_rivals()
            call.succeeded(send)
            if call.route.caches and not self._once:
                keep(call, rpc.result(), rpc.trailing_metadata())
            self._set(Answer(rpc.result(), rpc), "OK")
            return None
        error = _error_of(rpc)
        if not isinstance(error, grpc.RpcError):
            self._drop_rivals()
            call.released(send)
            self._set(error, type(error).__name__)
            return None
        failure = failure_from(error)
        if self._running and failure.code in call.route.transient:
            call.recorded(send, failure)
            return None  # the other attempt may do better
        self._drop_rivals()
        if self._once:
            call.recorded(send, failure)
            self._outgoing.mark(error)
            return error
        step = call.failed(send, failure)
        if isinstance(step, Raise):
            return self._outgoing.mark(error, exhausted=step.exhausted)
        if self._blocking:
            Thread(target=self._carried(self._later), args=(step.delay,), daemon=True).start()
        else:
            self._timer = TIMERS.after(step.delay, self._carried(self._attempt))
        return None

    def _drop_rivals(self) -> None:
        if self._hedge_timer is not None:
            self._hedge_timer.cancel()
        for other, loser in self._running:
            loser.cancel()
            self._call.released(other, lost=True)
        self._running.clear()

    def _later(self, delay: float) -> None:
        time.sleep(delay)
        self._attempt()

    def _carried(self, action: Callable[..., None]) -> Callable[..., None]:
        return partial(self._context.copy().run, self._guarded, action)

    def _guarded(self, action: Callable[..., None], *args: Any) -> None:
        """Do what may raise where nobody would see it: then the call ends with that."""
        try:
            action(*args)
        except BaseException as problem:
            with self._condition:
                self._drop_rivals()
                self._set(problem, type(problem).__name__)
            self._tell()

    # How it ends.

    def _fail(self, error: grpc.RpcError) -> None:
        if self._once or not self._fallbacks.may_answer(self._outgoing, error):
            self._set(error, error.code().name)
            return
        # It may block, and this thread is gRPC's.
        Thread(target=self._carried(self._fall_back), args=(error,), daemon=True).start()

    def _fall_back(self, error: grpc.RpcError) -> None:
        answer = self._fallbacks.answer(self._outgoing, self._request, error)
        if answer is None:
            self._end(error, error.code().name)
        else:
            self._end(Answer(answer), error.code().name, fallback=True)

    def _end(self, outcome: Any, code: str, *, fallback: bool = False) -> None:
        self._set(outcome, code, fallback=fallback)
        self._tell()

    def _set(self, outcome: Any, code: str, *, fallback: bool = False) -> None:
        with self._condition:
            if self._outcome is not None:
                return
            self._outcome = outcome
            for timer in (self._timer, self._hedge_timer):
                if timer is not None:
                    timer.cancel()
            self._condition.notify_all()
            self._outgoing.finish(code, fallback=fallback)

    def _tell(self) -> None:
        """Call back whoever wants to know, if it has ended."""
        with self._condition:
            if self._outcome is None:
                return
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback()
            except Exception as error:
                log(logging.ERROR, "a callback of a call failed", error=error)

    def _settled(self, timeout: float | None = None) -> Any:
        """Wait for the end. Raises FutureTimeoutError."""
        with self._condition:
            if not self._condition.wait_for(lambda: self._outcome is not None, timeout):
                raise grpc.FutureTimeoutError()
            return self._outcome

    # What the caller sees of it.

    def result(self, timeout: float | None = None) -> Any:
        """The response; waits `timeout` seconds at most. Raises as gRPC's own."""
        error = self.exception(timeout)
        if error is not None:
            raise error
        return self._settled().result()

    def exception(self, timeout: float | None = None) -> Any:
        """The error; None: it succeeded."""
        outcome = self._settled(timeout)
        if self._cancelled:
            raise grpc.FutureCancelledError()
        return outcome if isinstance(outcome, BaseException) else None

    def traceback(self, timeout: float | None = None) -> Any:
        """Where the error was raised; None: it succeeded."""
        error = self.exception(timeout)
        return None if error is None else error.__traceback__

    def cancel(self) -> bool:
        """End the call; False if it has ended."""
        with self._condition:
            if self._outcome is not None:
                return False
            self._cancelled = True
            for send, rpc in self._running:
                rpc.cancel()
                self._call.released(send)
            self._running.clear()
            self._set(Refusal(grpc.StatusCode.CANCELLED, CANCELLED), "CANCELLED")
        self._tell()
        return True

    def cancelled(self) -> bool:
        """Whether the caller has cancelled it."""
        return self._cancelled

    def done(self) -> bool:
        """Whether it has ended."""
        return self._outcome is not None

    def running(self) -> bool:
        """Whether it has not ended."""
        return self._outcome is None

    def is_active(self) -> bool:
        """Whether it has not ended."""
        return self._outcome is None

    def time_remaining(self) -> Any:
        """Seconds left of the whole call, attempts and waits included."""
        return self._call.remaining()

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        """Call `fn` with this when it has ended, at once if it has."""
        if not self.add_callback(partial(fn, self)):
            fn(self)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call back when it has ended; False if it has."""
        with self._condition:
            if self._outcome is not None:
                return False
            self._callbacks.append(callback)
            return True

    def code(self) -> Any:
        """Status code, once the call has ended."""
        outcome = self._settled()
        return outcome.code() if hasattr(outcome, "code") else grpc.StatusCode.INTERNAL

    def details(self) -> Any:
        """Status message, once the call has ended."""
        outcome = self._settled()
        return outcome.details() if hasattr(outcome, "details") else str(outcome)

    def initial_metadata(self) -> Any:
        """Initial metadata of the last attempt, once the call has ended."""
        outcome = self._settled()
        return outcome.initial_metadata() if hasattr(outcome, "initial_metadata") else ()

    def trailing_metadata(self) -> Any:
        """Trailing metadata of the last attempt, once the call has ended."""
        outcome = self._settled()
        return outcome.trailing_metadata() if hasattr(outcome, "trailing_metadata") else ()

    def debug_error_string(self) -> str:
        """What gRPC itself says of the failure."""
        outcome = self._settled()
        return str(getattr(outcome, "debug_error_string", str)())


def _error_of(rpc: Any) -> Any:
    """What an attempt that failed would raise."""
    try:
        return rpc.exception()
    except grpc.FutureCancelledError:
        return rpc
