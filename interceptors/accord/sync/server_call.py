"""The way of a call through its stages, in a thread: see `accord.server.stage_order`.

A thread cannot be interrupted. So a call of one request and one response that takes longer than
its contract allows is answered when its handler returns (a caller with a deadline has gone by
then). All others are answered when a time limit is reached: they go through gRPC's interface for
handlers that send by themselves, which its own health service uses.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from threading import Event, Lock
from typing import Final, Generic, Protocol

import grpc

from accord import errors
from accord.contract.policy_types import Key
from accord.policies.queue import Waiter
from accord.server import error_mapping, types
from accord.server.error_mapping import Answer
from accord.server.stage_order import OPENED, Stages
from accord.server.timeouts import ANSWER_TIME, TIMEOUT_GRACE
from accord.server.types import NO_ERROR, Req, Res
from accord.sync.server_context import (
    CallEnded,
    GrpcContext,
    Requests,
    ServerContext,
    put,
)
from accord.sync.server_idempotency import KeyedCalls
from accord.sync.server_timeouts import Watchdog
from accord.sync.threads import THREAD, share
from accord.sync.timers import TIMERS

FOREVER: Final = 1e9
"""Seconds; where there is no deadline, gRPC says that more than this is left."""

Send = Callable[[bytes | None], None]
"""gRPC's callback for handlers that send by themselves: a response, or None for the end."""

OneResponse = Callable[..., Res]
"""A handler with one response: a function of request, or an iterator of them, and context."""

ManyResponses = Callable[..., Iterator[Res]]
"""One with a stream of them. One that sends by itself (gRPC's health does) returns nothing."""


class MethodHandler(types.MethodHandler[Req, Res], Protocol):
    """One RPC's handler for gRPC with threads."""

    unary_unary: OneResponse[Res]
    stream_unary: OneResponse[Res]
    unary_stream: ManyResponses[Res]
    stream_stream: ManyResponses[Res]


@dataclass(frozen=True, slots=True)
class Pipeline(Generic[Req, Res]):
    """What the calls of one method are walked through."""

    stages: Stages[Req, Res]
    keyed: KeyedCalls | None
    """The calls of this process with a key, if there is a store of their answers."""


class Walk(Generic[Req, Res]):
    """One call on its way through the stages."""

    def __init__(self, pipeline: Pipeline[Req, Res], grpc_context: GrpcContext) -> None:
        """A call has come."""
        left = grpc_context.time_remaining()
        remaining = None if left is None or left > FOREVER else left
        self._stages = pipeline.stages
        self.codec = pipeline.stages.codec
        self.incoming = pipeline.stages.arrive(grpc_context, remaining, THREAD.waited)
        self.grpc_context = grpc_context
        self.context = ServerContext(grpc_context)
        self.watchdog: Watchdog | None = None

    def admit(self, requests: Iterator[bytes]) -> Req | Requests[Req, Res]:
        """The request, or an iterator of them, of a call that has got a place."""
        stages, incoming = self._stages, self.incoming
        stages.check(incoming)
        raw = None if stages.streamed else self._read(requests)
        if not self.grpc_context.is_active():
            raise CallEnded
        waiter = stages.enter(incoming, raw, _Bell, looped=False)
        place = waiter or incoming.permit
        if place is not None:
            share(place.line.in_flight + place.line.queued)
        if waiter is not None:
            self._wait_for_place(waiter)
        request = stages.accept(incoming, raw)
        if request is None:
            return Requests(requests, self.codec, self.watchdog, incoming.observed)
        return request

    def begin(self) -> None:
        """What comes right before the handler."""
        if self._stages.faults.injected:
            self._delay()
        self._stages.begin(self.incoming)

    def open(self, requests: Iterator[bytes]) -> Req | Requests[Req, Res]:
        """As `admit` and `begin`, for a stream: a resumable one says that it is open."""
        request = self.admit(requests)
        self.begin()
        if self.incoming.call.policy.resume is not None:
            self.grpc_context.send_initial_metadata(OPENED)
        return request

    def answered(self, heard: bool) -> None:
        """The call is answered; `heard`: its caller was still there."""
        if heard:
            self.incoming.status = "OK"  # unless the context says otherwise

    def refuse(self, error: BaseException) -> None:
        """Answer a call that has failed; returns if gRPC must see the error itself."""
        self.answered(self.grpc_context.is_active())
        answer = self.answer(error)
        if answer is not None:
            self.grpc_context.abort(put(self.grpc_context, answer), answer.status.message)

    def answer(self, error: BaseException) -> Answer | None:
        """What to answer an error with; None: nothing, or it is answered already."""
        ended = isinstance(error, CallEnded | GeneratorExit) or _caller_has_gone(error)
        if ended or self.context.aborted:
            return None
        call, translate = self.incoming.call, self._stages.translate
        return error_mapping.answer_to(error, call, translate, self.grpc_context)

    def end(self) -> None:
        """The call has ended, whatever way."""
        if self.watchdog is not None:
            self.watchdog.stop()
        heard = self.incoming.status == "OK"
        self._stages.end(self.incoming, self.grpc_context if heard else None)

    def _read(self, requests: Iterator[bytes]) -> bytes | None:
        """The one request. Its thread waits as long for it as a unary call may take, no longer."""
        remaining, longest = self.incoming.remaining, self.incoming.call.policy.timeout
        timer = None
        if longest is not None and (remaining is None or remaining > longest + TIMEOUT_GRACE):
            timer = TIMERS.after(longest + TIMEOUT_GRACE, self.grpc_context.cancel)
        try:
            raw = next(requests, None)
            once = raw is not None and self.incoming.call.policy.key is Key.REQUIRED
            # Half of what a caller has sent must not have an effect that counts once.
            return None if once and next(requests, None) is not None else raw
        finally:
            if timer is not None:
                timer.cancel()

    def _wait_for_place(self, waiter: Waiter) -> None:
        """Until it has its place. Raises ResourceExhausted or DeadlineExceeded."""
        admission, call, bell = self._stages.admission, self.incoming.call, waiter.notify
        assert isinstance(bell, _Bell)
        self.grpc_context.add_callback(bell.set)  # who has gone waits no longer
        while self.incoming.permit is None:
            try:
                bell.wait(admission.patience(call, waiter))
                if not self.grpc_context.is_active():
                    raise CallEnded
            except BaseException:
                admission.limiter.leave(waiter)
                raise
            self.incoming.permit = admission.admitted(call, waiter)

    def _delay(self) -> None:
        """The delay that an operator has injected."""
        with self._stages.harm(self.incoming) as delay:
            ended = Event()
            if delay > 0 and self.grpc_context.add_callback(ended.set):
                ended.wait(delay)


class UnaryBehaviour(Generic[Req, Res]):
    """A gRPC behaviour with one request and one response, as bytes."""

    def __init__(self, pipeline: Pipeline[Req, Res], handle: OneResponse[Res]) -> None:
        self._pipeline = pipeline
        self._handle = handle

    def __call__(self, requests: Iterator[bytes], grpc_context: GrpcContext) -> bytes:
        """Handle a call."""
        walk = Walk(self._pipeline, grpc_context)
        keyed, call = self._pipeline.keyed, walk.incoming.call
        try:
            request = walk.admit(requests)

            def run() -> bytes:
                walk.begin()
                response = self._handle(request, walk.context)
                return walk.codec.encode(response) if grpc_context.code() in NO_ERROR else b""

            if call.idempotency is None or keyed is None:
                raw = run()
            else:
                raw = keyed.answer(call.idempotency, call.deadline, run)
            if walk.incoming.observed is not None:
                walk.incoming.observed.sent(len(raw), event=False)
            walk.answered(grpc_context.is_active())
            code = grpc_context.code()
            if code not in NO_ERROR:  # a status alone, no message before it
                walk.context.abort(code, error_mapping.details_of(grpc_context))
            return raw
        except CallEnded:
            return b""  # to nobody
        except BaseException as error:
            walk.refuse(error)
            raise
        finally:
            walk.end()


class _Bell(Event):
    """Rung when the wait for a place is over."""

    __call__ = Event.set


class StreamWalk(Walk[Req, Res]):
    """One call that sends its responses by itself and ends once, from whichever thread."""

    def __init__(self, pipeline: Pipeline[Req, Res], grpc_context: GrpcContext, send: Send) -> None:
        super().__init__(pipeline, grpc_context)
        self._send = send
        self._closing = Lock()
        self._closed = False
        self._ending = Lock()

    def watch(self) -> None:
        """Keep the time limits, if any can be reached."""
        limits = self.incoming.limits
        if limits is not None:
            self.watchdog = Watchdog(self.incoming.call.policy, limits, self._expired)

    def send(self, response: Res, *, event: bool) -> None:
        """Send one response; `event`: as one of a stream. Raises CallEnded."""
        raw = self.codec.encode(response)
        if self.watchdog is not None:
            self.watchdog.writing()
        if not self._closed:
            self._send(raw)
        if self._closed or not self.grpc_context.is_active():
            raise CallEnded
        if self.watchdog is not None:
            self.watchdog.written()
        if self.incoming.observed is not None:
            self.incoming.observed.sent(len(raw), event=event)

    def let_go(self) -> None:
        """The handler ends the call by itself, in `callback`, or its caller does."""
        self.context.lets_go = True
        if not self.grpc_context.add_callback(self.finish):
            raise CallEnded

    def callback(self, response: Res | None) -> None:
        """What a handler that sends by itself is given: a response, or None for the end."""
        if response is None:
            self.finish()
            return
        try:
            self.send(response, event=True)
        except Exception as error:
            self.finish(error)

    def finish(self, error: BaseException | None = None) -> None:
        """End the call, with the status of an error; the first time counts."""
        if not self._ending.acquire(blocking=False):
            return
        try:
            answer = None if error is None else self.answer(error)
            if self.grpc_context.is_active():
                self._close(answer)
        finally:
            self.end()

    def _expired(self, error: errors.ServiceError) -> None:
        """A time limit is reached: tell the caller. The handler's thread is told when it asks."""
        self._close(error_mapping.answer_to(error, self.incoming.call, None))
        TIMERS.after(ANSWER_TIME, self.grpc_context.cancel)  # a reader that has stopped takes none

    def _close(self, answer: Answer | None) -> None:
        """Tell the caller: this answer, or what the context says; once."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            if answer is not None:
                put(self.grpc_context, answer)
        self._send(None)
        self.answered(True)


class StreamBehaviour(Generic[Req, Res]):
    """A gRPC behaviour with a stream of requests, of responses or of both."""

    experimental_non_blocking = True
    """Tells gRPC to let it end its call by itself, and from any thread."""

    def __init__(
        self,
        pipeline: Pipeline[Req, Res],
        *,
        one: OneResponse[Res] | None = None,
        many: ManyResponses[Res] | None = None,
    ) -> None:
        """One of the handlers is given."""
        handler = one or many
        self._pipeline = pipeline
        self._one = one
        self._many = many
        self._sends = handler if getattr(handler, "experimental_non_blocking", False) else None
        self.experimental_thread_pool = getattr(handler, "experimental_thread_pool", None)

    def __call__(
        self, requests: Iterator[bytes], grpc_context: GrpcContext, send: Send | None = None
    ) -> Iterator[bytes] | None:
        """Handle a call."""
        if send is None:
            return self._generate(requests, grpc_context)
        walk = StreamWalk(self._pipeline, grpc_context, send)
        try:
            walk.watch()
            request = walk.open(requests)
            if self._sends is not None:
                walk.let_go()
                self._sends(request, walk.context, walk.callback)
                return None
            with closing(self._responses(walk, request)) as responses:
                for response in responses:
                    walk.send(response, event=self._many is not None)
        except BaseException as error:
            walk.finish(error)
            if not isinstance(error, Exception):
                raise
        else:
            walk.finish()
        return None

    def _generate(
        self, requests: Iterator[bytes], grpc_context: GrpcContext
    ) -> Generator[bytes, None, None]:
        """As a call of it, for an interceptor before ours that knows no way but to iterate.

        Time limits are kept by the caller's deadline alone then.
        """
        walk = Walk(self._pipeline, grpc_context)
        try:
            request = walk.open(requests)
            with closing(self._responses(walk, request)) as responses:
                for response in responses:
                    raw = walk.codec.encode(response)
                    yield raw
                    if walk.incoming.observed is not None:
                        walk.incoming.observed.sent(len(raw), event=self._many is not None)
            walk.answered(grpc_context.is_active())
        except CallEnded:
            return
        except BaseException as error:
            walk.refuse(error)
            raise
        finally:
            walk.end()

    def _responses(
        self, walk: Walk[Req, Res], request: Req | Requests[Req, Res]
    ) -> Generator[Res, None, None]:
        """What the handler answers with."""
        if self._one is not None:
            response = self._one(request, walk.context)
            if walk.grpc_context.code() in NO_ERROR:
                yield response
        elif self._many is not None:
            found = iter(self._many(request, walk.context))
            try:
                yield from found
            finally:
                # Here and now, not whenever the collector finds it: it may hold resources.
                close = getattr(found, "close", None)
                if close is not None:
                    close()


def _caller_has_gone(error: BaseException) -> bool:
    """Whether this is what gRPC raises when there is nobody to talk to: an error without status."""
    return isinstance(error, grpc.RpcError) and not hasattr(error, "code")
