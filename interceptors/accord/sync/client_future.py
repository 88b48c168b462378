"""A call that nobody waits for: its attempts, back-offs and hedge go on by themselves.

It is moved by what happens - an attempt ends, a timer is due - in the thread of gRPC or of the
timers, never by a thread of its own. Only what may block has one: a fallback, and the repeated
attempts of a blocking call that came through an interceptor.
"""

import contextvars
import inspect
import time
from collections.abc import Callable, Iterator
from functools import partial
from threading import Condition, RLock, Thread
from types import TracebackType
from typing import Generic, Self, cast

import grpc

from accord.client.call import Attempt
from accord.client.request import failure_from
from accord.client.types import Raise, Refuse, Req, Res, stands_for, tell
from accord.sync.client_call import CANCELLED, Answer, CallBase, Ended, Refusal
from accord.sync.client_types import CallStatus, Response, Start, SyncOutgoing
from accord.sync.timers import TIMERS, Timer

Running = tuple[Attempt, Response[Res]]
Outcome = Answer[Res] | BaseException


@stands_for(grpc.Future)
class FutureCall(CallBase, Generic[Req, Res]):
    """A call with one response. Safe under threads.

    User code - callbacks, a fallback - never runs while the lock is held.
    """

    def __init__(
        self,
        start: Start[Req, Response[Res]],
        outgoing: SyncOutgoing[Req, Res],
        request: Req,
        *,
        once: bool = False,
    ) -> None:
        """`once`: the requests are streamed, so there is one attempt, and nothing else."""
        self._outgoing = outgoing
        self._call = outgoing.call
        self._start = start
        self._request = request
        self._once = once
        self._context = contextvars.copy_context()
        self._condition = Condition(RLock())
        self._running: list[Running[Res]] = []
        self._blocking = False
        self._timer: Timer | None = None
        self._hedge_timer: Timer | None = None
        self._outcome: Outcome[Res] | None = None
        """With what it has ended."""
        self._cancelled = False
        self._last: grpc.RpcError | None = None
        """The error of the attempt before."""
        self._callbacks: list[Callable[[], None]] = []

    def begin(self) -> Self:
        """Make the first attempt. Raises what gRPC raises for a call that cannot be made."""
        kept = None if self._once else self._outgoing.lookup(self._request)
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

    def _attempt(self, waits: Iterator[float] | None = None) -> None:
        """The next attempt is due, after these waits."""
        with self._condition:
            self._timer = None
            if self._outcome is not None:
                return
            waits = waits or self._call.state.target.waits(self._call.turn)
            if not self._blocking and (wait := next(waits, None)) is not None:
                self._timer = TIMERS.after(wait, self._carried(partial(self._attempt, waits)))
                return
            step = self._call.admit()
            refusal = self._outgoing.refusal(step) if isinstance(step, Refuse) else None
            started = None if isinstance(step, Refuse) else self._launch(step)
        if refusal is not None:
            refusal.__cause__ = self._last
            self._fail(refusal)
        self._follow(started)

    def _hedge(self, waits: Iterator[float] | None = None) -> None:
        """The first attempt takes longer than usual; a backup is due, after these waits."""
        with self._condition:
            if self._outcome is not None or len(self._running) != 1:
                return
            waits = waits or self._call.state.target.waits(self._call.turn)
            if (wait := next(waits, None)) is not None:
                again = self._carried(partial(self._hedge, waits))
                self._hedge_timer = TIMERS.after(wait, again)
                return
            backup = self._call.admit_hedge()
            started = None if backup is None else self._launch(backup, hedge=True)
        self._follow(started)

    def _launch(self, attempt: Attempt, *, hedge: bool = False) -> Running[Res] | None:
        try:
            rpc = self._start(self._outgoing.details_of(attempt), self._request)
        except grpc.RpcError as error:
            # It is the ended call as well, whatever the stubs say.
            rpc = cast("Response[Res]", error)
        except BaseException as error:
            attempt.released()
            self._set(error, type(error).__name__)
            return None
        self._running.append((attempt, rpc))
        if rpc.done():
            # Either it was quick or it blocks; what may block must not hold up the timers.
            self._blocking = True
        elif not (hedge or self._once):
            delay = self._call.hedge_delay()
            if delay is not None:
                self._hedge_timer = TIMERS.after(delay, self._carried(self._hedge))
        return attempt, rpc

    def _follow(self, started: Running[Res] | None) -> None:
        if started is not None:
            attempt, rpc = started
            rpc.add_done_callback(lambda ended: self._guarded(partial(self._ended, attempt, ended)))
        self._tell()

    def _ended(self, attempt: Attempt, rpc: Response[Res]) -> None:
        """An attempt has ended."""
        with self._condition:
            if attempt.ended:
                return  # it was cancelled, and is reported
            self._running = [pair for pair in self._running if pair[0] is not attempt]
            error = self._decide(attempt, rpc)
        if error is not None:
            self._fail(error)
        self._tell()

    def _decide(self, attempt: Attempt, rpc: Response[Res]) -> grpc.RpcError | None:
        """What follows; the error, if it is the end of the call."""
        call, outgoing = self._call, self._outgoing
        if rpc.code() is grpc.StatusCode.OK:
            self._drop_others()
            attempt.answered()
            if call.state.remembers and not self._once:
                outgoing.keep(rpc.result(), rpc.trailing_metadata())
            self._set(Answer(rpc.result(), rpc), "OK")
            return None
        error = _error_of(rpc)
        if not isinstance(error, grpc.RpcError):
            self._drop_others()
            attempt.released()
            self._set(error, type(error).__name__)
            return None
        self._last = error
        failure = failure_from(error)
        if self._running and not failure.own and failure.code in call.state.transient:
            attempt.recorded(failure, last=False)
            return None  # the other attempt may do better
        self._drop_others()
        if self._once:
            attempt.recorded(failure)
            return outgoing.mark(error)
        step = attempt.failed(failure)
        if isinstance(step, Raise):
            return outgoing.mark(error, exhausted=step.exhausted)
        if self._blocking:
            self._thread(partial(self._later, step.delay))
        else:
            self._timer = TIMERS.after(step.delay, self._carried(self._attempt))
        return None

    def _drop_others(self) -> None:
        if self._hedge_timer is not None:
            self._hedge_timer.cancel()
        for other, loser in self._running:
            loser.cancel()
            other.released(lost=True)
        self._running.clear()

    def _later(self, delay: float) -> None:
        time.sleep(delay)
        self._attempt()

    def _thread(self, action: Callable[[], None]) -> None:
        Thread(target=self._carried(action), daemon=True).start()

    def _carried(self, action: Callable[[], None]) -> Callable[[], None]:
        return partial(self._context.copy().run, self._guarded, action)

    def _guarded(self, action: Callable[[], None]) -> None:
        """Do what may raise where nobody would see it: then the call ends with that."""
        try:
            action()
        except BaseException as problem:
            with self._condition:
                self._drop_others()
                self._set(problem, type(problem).__name__)
            self._tell()

    # How it ends.

    def _fail(self, error: grpc.RpcError) -> None:
        if self._once or self._outgoing.fallback(error) is None:
            self._set(error, error.code().name)
            return
        # It may block, and this thread is gRPC's.
        self._thread(partial(self._fall_back, error))

    def _fall_back(self, error: grpc.RpcError) -> None:
        answer = fall_back(self._outgoing, self._request, error)
        outcome: Outcome[Res] = error if answer is None else Answer(answer)
        self._end(outcome, error.code().name, fallback=answer is not None)

    def _end(self, outcome: Outcome[Res], code: str, *, fallback: bool = False) -> None:
        self._set(outcome, code, fallback=fallback)
        self._tell()

    def _set(self, outcome: Outcome[Res], code: str, *, fallback: bool = False) -> None:
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
        tell(callbacks)

    def _settled(self, timeout: float | None = None) -> Outcome[Res]:
        """Wait for the end. Raises FutureTimeoutError."""
        with self._condition:
            self._condition.wait_for(lambda: self._outcome is not None, timeout)
            if self._outcome is None:
                raise grpc.FutureTimeoutError()
            return self._outcome

    # What the caller sees of it.

    def result(self, timeout: float | None = None) -> Res:
        """The response; waits `timeout` seconds at most. Raises as gRPC's own."""
        outcome = self._settled(timeout)
        if self._cancelled:
            raise grpc.FutureCancelledError()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome.result()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The error; None: it succeeded."""
        outcome = self._settled(timeout)
        if self._cancelled:
            raise grpc.FutureCancelledError()
        return outcome if isinstance(outcome, BaseException) else None

    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        """Where the error was raised, here if it was not yet; None: it succeeded."""
        error = self.exception(timeout)
        try:
            if error is not None:
                raise error
        except BaseException as raised:
            return raised.__traceback__
        return None

    def cancel(self) -> bool:
        """End the call; False if it has ended."""
        with self._condition:
            if self._outcome is not None:
                return False
            self._cancelled = True
            for attempt, rpc in self._running:
                rpc.cancel()
                attempt.released()
            self._running.clear()
            self._set(Refusal(grpc.StatusCode.CANCELLED, CANCELLED), "CANCELLED")
        self._tell()
        return True

    def cancelled(self) -> bool:
        """Whether the caller has cancelled it."""
        return self._cancelled

    def is_active(self) -> bool:
        """Whether it has not ended."""
        return self._outcome is None

    def time_remaining(self) -> float | None:
        """Seconds left of the whole call, attempts and waits included."""
        return self._call.remaining()

    def add_done_callback(self, fn: Callable[[Self], None]) -> None:
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

    def _status(self) -> CallStatus:
        outcome = self._settled()
        if isinstance(outcome, BaseException) and not hasattr(outcome, "code"):
            return Ended(grpc.StatusCode.INTERNAL, str(outcome))
        # An error of gRPC's is the ended call as well, whatever the stubs say.
        return cast("CallStatus", outcome)


def _error_of(rpc: Response[Res]) -> BaseException:
    """What an attempt that failed would raise."""
    try:
        error = rpc.exception()
    except grpc.FutureCancelledError:
        error = None
    # A call that was cancelled, or is an error itself, is what it would raise.
    return cast("BaseException", rpc) if error is None else error


def fall_back(outgoing: SyncOutgoing[Req, Res], request: Req, error: grpc.RpcError) -> Res | None:
    """The answer of the method's fallback; None if there is none."""
    fallback = outgoing.fallback(error)
    if fallback is None:
        return None
    try:
        answer = fallback(request, error)
        if inspect.iscoroutine(answer):
            answer.close()
            raise TypeError("a coroutine function cannot be the fallback of a sync call")
    except Exception as problem:
        outgoing.fallback_failed(problem)
        return None
    return outgoing.fell_back(answer)
