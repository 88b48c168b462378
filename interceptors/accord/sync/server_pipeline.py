"""The way of a call through its stages, in a thread: see `accord.server.stages`.

A thread cannot be interrupted. So a call of one request and one response that takes longer than
its contract allows is answered when its handler returns (a caller with a deadline has gone by
then). All others are answered when a time limit is reached: they go through gRPC's interface for
handlers that send by themselves, which its own health service uses.
"""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Event, Lock
from typing import Final, Generic, Protocol

import grpc

from accord import errors
from accord.contract.policy import DEFAULT_TIMEOUT
from accord.policies.queue import Waiter
from accord.server import error_mapping, protocols
from accord.server.codec import Codec
from accord.server.error_mapping import Answer, Answered
from accord.server.protocols import RequestT, ResponseT
from accord.server.stages import OPENED, SILENT, Stages
from accord.server.timeouts import TIMEOUT_GRACE
from accord.sync.server_context import (
    CallEnded,
    GrpcContext,
    Requests,
    Responses,
    ServerContext,
    put,
)
from accord.sync.server_idempotency import KeyedCalls
from accord.sync.server_timeouts import Watchdog
from accord.sync.timers import TIMERS

FOREVER: Final = 1e9
"""Seconds; where there is no deadline, gRPC says that more than this is left."""

Send = Callable[[bytes | None], None]
"""gRPC's callback for handlers that send by themselves: a response, or None for the end."""

OneResponse = Callable[..., ResponseT]
"""A handler with one response: a function of request, or an iterator of them, and context."""

ManyResponses = Callable[..., Iterator[ResponseT]]
"""One with a stream of them. One that sends by itself (gRPC's health does) returns nothing."""


class MethodHandler(protocols.MethodHandler[RequestT, ResponseT], Protocol):
    """One RPC's handler for gRPC with threads."""

    unary_unary: OneResponse[ResponseT]
    stream_unary: OneResponse[ResponseT]
    unary_stream: ManyResponses[ResponseT]
    stream_stream: ManyResponses[ResponseT]


class Pipeline(Generic[RequestT, ResponseT]):
    """Walks the stages of one method."""

    def __init__(
        self,
        stages: Stages[RequestT, ResponseT],
        keyed: KeyedCalls | None,
        translate: errors.Translate | None,
        *,
        streamed: bool,
    ) -> None:
        """`keyed`: the calls of this process with a key, if there is a store of their answers."""
        self.stages = stages
        self.keyed = keyed
        self.translate = translate
        self.streamed = streamed

    def unary(
        self, handle: OneResponse[ResponseT]
    ) -> Callable[[Iterator[bytes], GrpcContext], bytes]:
        """A gRPC behaviour with one request and one response, as bytes."""
        codec, keyed = self.stages.codec, self.keyed

        def behave(requests: Iterator[bytes], grpc_context: GrpcContext) -> bytes:
            walk = Walk(self, grpc_context)
            try:
                request = walk.admit(requests)

                def run() -> bytes:
                    walk.begin()
                    response = handle(request, walk.context)
                    return codec.encode(response) if grpc_context.code() in SILENT else b""

                call = walk.incoming.call
                if call.idempotency is None or keyed is None:
                    raw = run()
                else:
                    raw = keyed.answer(call.idempotency, call.deadline, run)
                if walk.incoming.observed is not None:
                    walk.incoming.observed.sent(len(raw), event=False)
                walk.answered(grpc_context.is_active())
                return raw
            except CallEnded:
                return b""  # to nobody
            except BaseException as error:
                walk.refuse(error)
                raise
            finally:
                walk.end()

        return behave


class Walk(Generic[RequestT, ResponseT]):
    """One call on its way through the stages."""

    __slots__ = ("_pipeline", "context", "grpc_context", "incoming", "watchdog")

    def __init__(self, pipeline: Pipeline[RequestT, ResponseT], grpc_context: GrpcContext) -> None:
        """A call has come."""
        left = grpc_context.time_remaining()
        remaining = None if left is None or left > FOREVER else left
        self._pipeline = pipeline
        self.incoming = pipeline.stages.arrive(grpc_context, remaining)
        self.grpc_context = grpc_context
        self.context = ServerContext(grpc_context)
        self.watchdog: Watchdog | None = None

    def admit(self, requests: Iterator[bytes]) -> RequestT | Requests[RequestT, ResponseT]:
        """The request, or an iterator of them, of a call that has got a place."""
        stages, incoming = self._pipeline.stages, self.incoming
        stages.check(incoming)
        raw = None if self._pipeline.streamed else self._read(requests)
        waiter = stages.enter(incoming, raw, _Bell)
        if waiter is not None:
            self._wait_for_place(waiter)
        if not self.grpc_context.is_active():
            raise CallEnded
        request = stages.accept(incoming, raw)
        if request is None:
            return Requests(requests, stages.codec, self.watchdog, incoming.observed)
        return request

    def begin(self) -> None:
        """What comes right before the handler."""
        if self._pipeline.stages.faults.injected:
            self._delay()
        self._pipeline.stages.begin(self.incoming)

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
        if self.context.aborted or isinstance(error, CallEnded):
            return None
        if not isinstance(error, Answered) and (
            not isinstance(error, Exception) or _caller_has_gone(error)
        ):
            return None
        return error_mapping.answer_to(error, self.incoming.call, self._pipeline.translate)

    def end(self) -> None:
        """The call has ended, whatever way."""
        if self.watchdog is not None:
            self.watchdog.stop()
        heard = self.incoming.status == "OK"
        self._pipeline.stages.end(self.incoming, self.grpc_context if heard else None)

    def _read(self, requests: Iterator[bytes]) -> bytes | None:
        """The one request. Its thread waits as long for it as a unary call may take, no longer."""
        remaining = self.incoming.remaining
        longest = (self.incoming.call.policy.timeout or DEFAULT_TIMEOUT) + TIMEOUT_GRACE
        if remaining is not None and remaining <= longest:
            return next(requests, None)
        timer = TIMERS.after(longest, self.grpc_context.cancel)
        try:
            return next(requests, None)
        finally:
            timer.cancel()

    def _wait_for_place(self, waiter: Waiter) -> None:
        """Until it has its place. Raises ResourceExhausted or DeadlineExceeded."""
        stages, bell = self._pipeline.stages, waiter.notify
        assert isinstance(bell, _Bell)
        try:
            bell.wait(stages.patience(self.incoming))
        except BaseException:
            stages.leave(waiter)
            raise
        stages.admitted(self.incoming, waiter)

    def _delay(self) -> None:
        """The delay that an operator has injected."""
        harm = self._pipeline.stages.draw(self.incoming)
        if harm is not None and harm.fault.delay > 0:
            ended = Event()
            try:
                if self.grpc_context.add_callback(ended.set):
                    ended.wait(harm.fault.delay)
            finally:
                harm.done()


class _Bell(Event):
    """Rung when the wait for a place is over."""

    __call__ = Event.set


class StreamBehaviour(Generic[RequestT, ResponseT]):
    """A gRPC behaviour with a stream of requests, of responses or of both."""

    experimental_non_blocking = True
    """Tells gRPC to let it end its call by itself, and from any thread."""

    def __init__(
        self,
        pipeline: Pipeline[RequestT, ResponseT],
        *,
        one: OneResponse[ResponseT] | None = None,
        many: ManyResponses[ResponseT] | None = None,
    ) -> None:
        """One of the handlers is given."""
        handler = one or many
        self._pipeline = pipeline
        self._one = one
        self._many = many
        self._sends = handler if getattr(handler, "experimental_non_blocking", False) else None
        pool = getattr(handler, "experimental_thread_pool", None)
        self.experimental_thread_pool: ThreadPoolExecutor | None = pool

    def __call__(
        self, requests: Iterator[bytes], grpc_context: GrpcContext, send: Send | None = None
    ) -> Iterator[bytes] | None:
        """Handle a call."""
        if send is None:
            return self._generate(requests, grpc_context)
        walk = Walk(self._pipeline, grpc_context)
        sender = Sender(walk, self._pipeline.stages.codec, Responses(grpc_context, send))
        try:
            limits = walk.incoming.limits
            if limits is not None:
                walk.watchdog = Watchdog(walk.incoming.call.policy, limits, sender.expired)
            request = self._open(walk, requests)
            if self._sends is not None:
                sender.let_go()
                self._sends(request, walk.context, sender.callback)
                return None
            with closing(self._responses(walk, request)) as responses:
                for response in responses:
                    sender.one(response, event=self._many is not None)
        except BaseException as error:
            sender.finish(error)
            if not isinstance(error, Exception):
                raise
        else:
            sender.finish()
        return None

    def _generate(
        self, requests: Iterator[bytes], grpc_context: GrpcContext
    ) -> Generator[bytes, None, None]:
        """As a call of it, for an interceptor before ours that knows no way but to iterate.

        Time limits are kept by the caller's deadline alone then.
        """
        walk = Walk(self._pipeline, grpc_context)
        observed = walk.incoming.observed
        try:
            request = self._open(walk, requests)
            with closing(self._responses(walk, request)) as responses:
                for response in responses:
                    raw = self._pipeline.stages.codec.encode(response)
                    yield raw
                    if observed is not None:
                        observed.sent(len(raw), event=self._many is not None)
            walk.answered(grpc_context.is_active())
        except CallEnded:
            return
        except Exception as error:
            walk.refuse(error)
            raise
        finally:
            walk.end()

    def _open(
        self, walk: Walk[RequestT, ResponseT], requests: Iterator[bytes]
    ) -> RequestT | Requests[RequestT, ResponseT]:
        """The request, or an iterator of them, of a call whose handler is next."""
        request = walk.admit(requests)
        walk.begin()
        if walk.incoming.call.policy.resume is not None:
            walk.grpc_context.send_initial_metadata(OPENED)
        return request

    def _responses(
        self,
        walk: Walk[RequestT, ResponseT],
        request: RequestT | Requests[RequestT, ResponseT],
    ) -> Generator[ResponseT, None, None]:
        """What the handler answers with."""
        if self._one is not None:
            response = self._one(request, walk.context)
            if walk.grpc_context.code() in SILENT:
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


class Sender(Generic[RequestT, ResponseT]):
    """Sends what a handler answers with, and ends its call once."""

    def __init__(
        self,
        walk: Walk[RequestT, ResponseT],
        codec: Codec[RequestT, ResponseT],
        responses: Responses,
    ) -> None:
        self._walk = walk
        self._codec = codec
        self._responses = responses
        self._once = Lock()

    def one(self, response: ResponseT, *, event: bool) -> None:
        """Send one response; `event`: as one of a stream. Raises CallEnded."""
        raw = self._codec.encode(response)
        self._responses.send(raw)
        if self._walk.watchdog is not None:
            self._walk.watchdog.touch()
        if self._walk.incoming.observed is not None:
            self._walk.incoming.observed.sent(len(raw), event=event)

    def let_go(self) -> None:
        """The handler ends the call by itself, in `callback`, or its caller does."""
        if not self._walk.grpc_context.add_callback(self.finish):
            raise CallEnded

    def callback(self, response: ResponseT | None) -> None:
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
        walk = self._walk
        try:
            answer = None if error is None else walk.answer(error)
            if walk.grpc_context.is_active() and self._responses.close(answer):
                walk.answered(True)
        finally:
            walk.end()

    def expired(self, error: errors.ServiceError) -> None:
        """A time limit is reached: tell the caller. The handler's thread is told when it asks."""
        answer = error_mapping.answer_to(error, self._walk.incoming.call, None)
        if self._responses.close(answer):
            self._walk.answered(True)


def _caller_has_gone(error: BaseException) -> bool:
    """Whether this is what gRPC raises when there is nobody to talk to: an error without status."""
    return isinstance(error, grpc.RpcError) and not hasattr(error, "code")
