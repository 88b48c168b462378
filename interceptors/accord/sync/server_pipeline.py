"""Server pipeline for gRPC with threads: the twin of `accord.aio.server_pipeline`.

context -> deadline -> authorisation -> depth -> rate limit -> concurrency limit -> validation
    -> idempotency -> fault injection -> handler

A thread cannot be interrupted. So a call of one request and one response that takes longer than
its contract allows is answered when its handler returns (a caller with a deadline has gone by
then). All others are answered when a time limit is reached: they go through gRPC's interface for
handlers that send by themselves, which its own health service uses.
"""

from collections.abc import Callable, Iterator
from threading import Event, Lock, RLock
from typing import Any, Final

import grpc

from accord import errors
from accord.context import CallContext
from accord.contract.policy import DEFAULT_TIMEOUT, Key, MethodPolicy
from accord.interfaces import FieldViolation
from accord.policies.fault_injection import FAULT_KEY, INJECTED
from accord.policies.queue import Permit
from accord.policies.resume import OPEN_KEY
from accord.server import error_mapping as failure
from accord.server.codec import Codec
from accord.server.error_mapping import Answer
from accord.server.observation import ServerCall, ServerMethod
from accord.server.request import (
    IGNORED,
    SILENT,
    Active,
    Entry,
    Peers,
    Settings,
    grpc_code,
    read_headers,
)
from accord.server.timeouts import TIMEOUT_GRACE
from accord.sync.server_admission import Admission
from accord.sync.server_context import CallEnded, Requests, Responses, ServerContext, answer_to, put
from accord.sync.server_idempotency import KeyedCalls
from accord.sync.server_timeouts import ASLEEP, Watchdog, watch
from accord.sync.timers import TIMERS

FOREVER: Final = 1e9
"""Seconds; where there is no deadline, gRPC says that more than this is left."""


class Pipeline:
    """The stages of one method."""

    def __init__(
        self,
        settings: Settings,
        keyed: KeyedCalls | None,
        policy: MethodPolicy,
        codec: Codec,
        peers: Peers,
        lock: "RLock",
        *,
        streaming: bool,
    ) -> None:
        self._settings = settings
        self._control = settings.control
        self._lock = lock
        self._keyed = keyed
        self._method = policy.method
        self._observation = ServerMethod(policy.method)
        self._entry = Entry(settings, policy, peers)
        self.codec = codec
        self._admission = Admission(
            policy.method,
            settings.control,
            lock,
            streaming=streaming,
            authorize=settings.authorize,
        )

    def unary(self, handle: Callable[..., Any]) -> Any:
        """A gRPC behaviour with one request and one response, as bytes."""

        def behaviour(requests: Any, grpc_context: Any) -> bytes:
            active = self._begin(grpc_context)
            outer = active.outer
            try:
                request = self._admit(active, requests, streamed=False)

                def run() -> bytes:
                    self._prepare(active)
                    response = handle(request, outer)
                    return b"" if outer.failed() else self.codec.encode(response)

                keyed, call = self._keyed, active.call
                if call.idempotency is None or keyed is None:
                    raw = run()
                else:
                    raw = keyed.answer(call.idempotency, call.deadline, run)
                if active.observed is not None:
                    active.observed.sent(len(raw), event=False)
                active.answered = grpc_context.is_active()
                return raw
            except CallEnded:
                return b""  # to nobody
            except BaseException as error:
                self._refuse(active, error)
                raise
            finally:
                self.end(active)

        return behaviour

    def stream(self, handle: Callable[..., Any], *, streamed: bool, streams: bool) -> Any:
        """A gRPC behaviour with a stream of requests, of responses or of both."""
        free = bool(getattr(handle, "experimental_non_blocking", False))

        def behaviour(requests: Any, grpc_context: Any, send: Any = None) -> Any:
            if send is None:
                return self._generate(handle, requests, grpc_context, streamed, streams)
            active = self._begin(grpc_context)
            responses = Responses(grpc_context, send)
            sender = Sender(self, active, responses)
            try:
                active.watchdog = watch(active.call.policy, active.remaining, sender.expired)
                request = self._admit(active, requests, streamed=streamed)
                self._prepare(active)
                if active.call.policy.resume is not None:
                    # A quiet stream and a dead one look the same until the server says "open".
                    grpc_context.send_initial_metadata(((OPEN_KEY, "open"),))
                if free:
                    sender.let_go()
                    handle(request, active.outer, sender.callback)
                    return None
                found = handle(request, active.outer)
                if streams:
                    sender.all(found)
                elif not active.outer.failed():
                    sender.one(found)
            except BaseException as error:
                sender.finish(error)
                if not isinstance(error, Exception):
                    raise
            else:
                sender.finish()
            return None

        # gRPC then lets it end its call by itself, and from any thread.
        behaviour.experimental_non_blocking = True  # type: ignore[attr-defined]
        pool = getattr(handle, "experimental_thread_pool", None)
        if pool is not None:
            behaviour.experimental_thread_pool = pool  # type: ignore[attr-defined]
        return behaviour

    def _generate(
        self, handle: Callable[..., Any], requests: Any, grpc_context: Any, *arity: bool
    ) -> Iterator[bytes]:
        """As `stream`, for an interceptor before ours that knows no way but to iterate.

        Time limits are kept by the caller's deadline alone then. `arity` is streamed, streams.
        """
        streamed, streams = arity
        active = self._begin(grpc_context)
        try:
            request = self._admit(active, requests, streamed=streamed)
            self._prepare(active)
            if active.call.policy.resume is not None:
                grpc_context.send_initial_metadata(((OPEN_KEY, "open"),))
            found = handle(request, active.outer)
            for response in found if streams else () if active.outer.failed() else (found,):
                raw = self.codec.encode(response)
                yield raw
                if active.observed is not None:
                    active.observed.sent(len(raw), event=streams)
            active.answered = grpc_context.is_active()
        except CallEnded:
            return
        except Exception as error:
            self._refuse(active, error)
            raise
        finally:
            self.end(active)

    def _refuse(self, active: "Handling", error: BaseException) -> None:
        """Answer a call that has failed; returns if gRPC must see the error itself."""
        grpc_context = active.grpc_context
        active.answered = grpc_context.is_active()
        answer = self.answer(error, active)
        if answer is not None:
            grpc_context.abort(put(grpc_context, answer), answer.status.message)

    def _begin(self, grpc_context: Any) -> "Handling":
        """A call has come in."""
        headers, trace, ignored = read_headers(grpc_context)
        left = grpc_context.time_remaining()
        remaining = None if left is None or left > FOREVER else left
        for name in ignored:
            with self._lock:
                self._control.counts.add(self._method, f"{IGNORED}.{name}")
        observed = self._observation.begin(trace, self._settings.clock)
        call = self._entry.enter(grpc_context, headers, remaining)
        return Handling(call, headers, grpc_context, remaining, observed)

    def _admit(self, active: "Handling", requests: Any, *, streamed: bool) -> Any:
        """The request, or an iterator of them, of a call that has got a place."""
        call, raw = active.call, None
        # The one who asked has gone: work that is late already is not begun.
        if active.remaining is not None and active.remaining <= 0:
            raise errors.DeadlineExceeded("the deadline had passed when the call arrived")
        self._admission.check(call)
        if not streamed:
            # Before there is a place for it: who never sends its request must not hold one.
            raw = self._read(active, requests)
            if raw is None:
                raise _no_request()
            if active.observed is not None:
                active.observed.received(len(raw), event=False)
        active.permit = self._admission.enter(call)
        if not active.grpc_context.is_active():
            raise CallEnded
        if streamed:
            call.idempotency = self._entry.identify(active, None)
            return Requests(requests, self.codec, active.watchdog, active.observed)
        request = self.codec.decode(raw)  # type: ignore[arg-type]
        if call.policy.key is not Key.NONE:
            call.idempotency = self._entry.identify(active, request)
        return request

    def _read(self, active: "Handling", requests: Any) -> bytes | None:
        """The one request. Its thread waits as long for it as a unary call may take, no longer."""
        longest = (active.call.policy.timeout or DEFAULT_TIMEOUT) + TIMEOUT_GRACE
        if active.remaining is not None and active.remaining <= longest:
            return next(requests, None)
        timer = TIMERS.after(longest, active.grpc_context.cancel)
        try:
            return next(requests, None)
        finally:
            timer.cancel()

    def _prepare(self, active: "Handling") -> None:
        """What comes right before the handler."""
        if self._control.faults:
            self._harm(active)
        active.begin()

    def _harm(self, active: "Handling") -> None:
        """The fault that an operator has injected: first a delay, then an abort."""
        with self._lock:
            drawn = self._control.faults.draw(self._method, active.headers.get(FAULT_KEY))
        if drawn is None:
            return
        fault, faults = drawn
        if fault.delay > 0:
            with self._lock:
                self._control.counts.add(self._method, "fault.delayed")
            ended = Event()
            try:
                if active.grpc_context.add_callback(ended.set):
                    ended.wait(fault.delay)
            finally:
                faults.done(fault)
        if fault.abort is not None:
            with self._lock:
                self._control.counts.add(self._method, "fault.aborted")
            raise errors.ServiceError(grpc_code(fault.abort), INJECTED, "a fault was injected")

    def answer(self, error: BaseException, active: "Handling") -> Answer | None:
        """What to answer an error with; None: nothing, or it is answered already."""
        if active.outer.aborted or isinstance(error, CallEnded):
            return None
        return answer_to(error, active.call, self._settings.translate)

    def end(self, active: "Handling") -> None:
        """A call has ended, whatever way."""
        active.watchdog.stop()
        if active.permit is not None:
            # A caller that lost patience says nothing of the load; a deadline does.
            self._admission.end(
                active.permit,
                sample=active.begun and (active.answered or active.call.remaining() == 0),
            )
        if active.observed is not None:
            active.observed.finish(active.outcome())


class Handling(Active):
    """A call that is being handled in a thread."""

    __slots__ = (
        "answered",
        "grpc_context",
        "observed",
        "outer",
        "permit",
        "remaining",
        "watchdog",
    )

    def __init__(
        self,
        call: CallContext,
        headers: dict[str, Any],
        grpc_context: Any,
        remaining: float | None,
        observed: ServerCall | None,
    ) -> None:
        super().__init__(call, headers)
        self.grpc_context = grpc_context
        self.outer = ServerContext(grpc_context)
        self.remaining = remaining
        """Seconds that the caller's deadline left on arrival; None: it has none."""
        self.observed = observed
        self.watchdog: Watchdog = ASLEEP
        self.permit: Permit | None = None
        self.answered = False
        """Whether the caller was still there to be answered."""

    def outcome(self) -> str:
        """Name of the status with which the call has ended."""
        if not self.answered:
            return "DEADLINE_EXCEEDED" if self.call.remaining() == 0 else "CANCELLED"
        status = self.grpc_context.code()
        if status in SILENT:
            return "OK"
        return status.name if isinstance(status, grpc.StatusCode) else grpc_code(status).name


class Sender:
    """Sends what a handler answers with, and ends its call once."""

    def __init__(self, pipeline: Pipeline, active: Handling, responses: Responses) -> None:
        self._pipeline = pipeline
        self._active = active
        self._responses = responses
        self._once = Lock()

    def one(self, response: Any, *, event: bool = False) -> None:
        """Send one response; `event`: as one of a stream. Raises CallEnded."""
        raw = self._pipeline.codec.encode(response)
        self._responses.send(raw)
        self._active.watchdog.touch()
        if self._active.observed is not None:
            self._active.observed.sent(len(raw), event=event)

    def all(self, found: Any) -> None:
        """Send what an iterator yields. Raises CallEnded."""
        iterator = iter(found)
        try:
            for response in iterator:
                self.one(response, event=True)
        finally:
            # Here and now, not whenever the collector finds it: it may hold resources.
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    def let_go(self) -> None:
        """The handler ends the call by itself, in `callback`, or its caller does."""
        if not self._active.grpc_context.add_callback(self.finish):
            raise CallEnded

    def callback(self, response: Any) -> None:
        """What a handler that sends by itself is given: a response, or None for the end."""
        if response is None:
            self.finish()
            return
        try:
            self.one(response, event=True)
        except Exception as error:
            self.finish(error)

    def finish(self, error: BaseException | None = None) -> None:
        """End the call, with the status of an error; the first time counts."""
        if not self._once.acquire(blocking=False):
            return
        active = self._active
        try:
            answer = None if error is None else self._pipeline.answer(error, active)
            if active.grpc_context.is_active() and self._responses.close(answer):
                active.answered = True
        finally:
            self._pipeline.end(active)

    def expired(self, error: errors.ServiceError) -> None:
        """A time limit is reached: tell the caller. The handler's thread is told when it asks."""
        if self._responses.close(failure.answer_to(error, self._active.call, None)):
            self._active.answered = True


def _no_request() -> errors.InvalidArgument:
    return errors.InvalidArgument(
        FieldViolation("", "the call has no request"), reason="UNDECODABLE"
    )
