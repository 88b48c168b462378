"""Client interceptors for gRPC with threads: what the engine decides, done with gRPC.

The twin of `accord.aio.client`. An interceptor is not told whether its call blocks, and one that
blocks cannot be hedged: a channel of the mesh knows (see `accord.sync.channel`).
"""

import inspect
import logging
import time
from functools import partial
from threading import RLock
from typing import Any

import grpc

from accord import context, engine, observation, telemetry
from accord.line import Driver, keep, lookup, new_call
from accord.outgoing import WORTH_A_FALLBACK, failure_from
from accord.sync.call import Call
from accord.sync.future import FutureCall
from accord.sync.outgoing import Answer, Outgoing, Start
from accord.sync.resumable import ResumableCall
from accord.sync.stream import StreamCall


class Line:
    """The way to one target."""

    __slots__ = ("_lock", "_target", "driver")

    def __init__(self, driver: Driver, target: str, lock: "RLock") -> None:
        """`lock` is shared by all lines and servers of a mesh."""
        self.driver = driver
        self._target = target
        self._lock = lock

    def begin(self, details: Any, request: Any = None) -> Outgoing:
        """A new call. Raises ContractError."""
        env, method = self.driver.env, details.method
        with self._lock:
            route = env.routes.find(
                self._target, method.decode() if isinstance(method, bytes) else method
            )
        handled = context.current()
        outgoing = Outgoing(details, handled)
        outgoing.call = new_call(
            route,
            env,
            outgoing,
            handled,
            timeout=details.timeout,
            request=request,
            make=partial(Call, self._lock),
        )
        return outgoing

    def unary(self, start: Start, outgoing: Outgoing, request: Any) -> Any:
        """One request, one response: the ended call. `start` blocks. Raises RpcError."""
        call = outgoing.call
        if call.route.caches:
            kept = lookup(call, outgoing, request)
            if kept is not None:
                outgoing.finish("OK")
                return Answer(kept)
        try:
            found = self._attempts(start, outgoing, request)
        except grpc.RpcError as error:
            answer = self.fall_back(outgoing, request, error)
            outgoing.finish(error.code().name, fallback=answer is not None)
            if answer is None:
                raise
            return Answer(answer)
        except BaseException as error:
            outgoing.finish(type(error).__name__)
            raise
        outgoing.finish("OK")
        if call.route.caches:
            keep(call, found.result(), found.trailing_metadata())
        return found

    def _attempts(self, start: Start, outgoing: Outgoing, request: Any) -> Any:
        """The attempt that was answered. Raises the error of the last one."""
        call = outgoing.call
        while True:
            send = call.admit()
            if isinstance(send, engine.Refuse):
                raise outgoing.refusal(send)
            try:
                rpc = start(outgoing.attempt(send), request)
            except grpc.RpcError as error:
                step = call.failed(send, failure_from(error))
                if isinstance(step, engine.Raise):
                    outgoing.mark(error, exhausted=step.exhausted)
                    raise
            except BaseException:
                call.released(send)
                raise
            else:
                call.succeeded(send)
                return rpc
            time.sleep(step.delay)

    def once(self, start: Start, details: Any, requests: Any) -> Any:
        """Many requests, one response: the ended call. `start` blocks. Raises RpcError.

        It is one attempt: what an iterator has yielded cannot be sent again.
        """
        outgoing = self.begin(details)
        call = outgoing.call
        send = call.admit()
        if isinstance(send, engine.Refuse):
            outgoing.finish(send.code.name)
            raise outgoing.refusal(send)
        try:
            rpc = start(outgoing.attempt(send), requests)
        except grpc.RpcError as error:
            call.recorded(send, failure_from(error))
            outgoing.mark(error)
            outgoing.finish(error.code().name)
            raise
        except BaseException as error:
            call.released(send)
            outgoing.finish(type(error).__name__)
            raise
        call.succeeded(send)
        outgoing.finish("OK")
        return rpc

    def future(self, start: Start, outgoing: Outgoing, request: Any) -> Any:
        """One request, one response, without waiting for it."""
        return FutureCall(self, outgoing, start, request).begin()

    def future_once(self, start: Start, details: Any, requests: Any) -> Any:
        """As `once`, without waiting for it."""
        return FutureCall(self, self.begin(details), start, requests, once=True).begin()

    def stream(self, start: Start, details: Any, request: Any) -> Any:
        """One request, many responses; tried again before the first of them, resumed after it."""
        outgoing = self.begin(details, request)
        call = outgoing.call
        if call.resumption is None and call.policy.retry is None:
            return StreamCall(outgoing).start(start, request)
        return ResumableCall(outgoing, self.driver.on_resume).start(start, request)

    def bidi(self, start: Start, details: Any, requests: Any) -> Any:
        """Many requests, many responses."""
        return StreamCall(self.begin(details)).start(start, requests)

    def has_fallback(self, outgoing: Outgoing, error: grpc.RpcError) -> bool:
        """Whether there may be another answer to a call that ended with `error`."""
        return (
            outgoing.call.policy.method in self.driver.fallbacks
            and error.code() in WORTH_A_FALLBACK
        )

    def fall_back(self, outgoing: Outgoing, request: Any, error: grpc.RpcError) -> Any:
        """The answer of the method's fallback; None if there is none."""
        if not self.has_fallback(outgoing, error):
            return None
        route = outgoing.call.route
        try:
            answer = self.driver.fallbacks[route.policy.method](request, error)
            if inspect.iscoroutine(answer):
                answer.close()
                raise TypeError("a coroutine function cannot be the fallback of a sync call")
        except Exception as problem:
            # The caller is told what happened to the call, not to its replacement.
            telemetry.log(
                logging.ERROR, "a fallback failed", error=problem, method=route.policy.method
            )
            return None
        if answer is not None:
            with self._lock:
                route.fallbacks += 1
                self.driver.env.count(route.policy.method, "fallback")
        return answer


class UnaryUnary(grpc.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
    """One request, one response."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        """See the class."""
        return self._line.future(
            _alone(continuation), self._line.begin(client_call_details, request), request
        )


class UnaryStream(grpc.UnaryStreamClientInterceptor):  # type: ignore[type-arg]
    """One request, many responses."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def intercept_unary_stream(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        """See the class."""
        return self._line.stream(_alone(continuation), client_call_details, request)


class StreamUnary(grpc.StreamUnaryClientInterceptor):  # type: ignore[type-arg]
    """Many requests, one response."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def intercept_stream_unary(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        """See the class."""
        return self._line.future_once(_alone(continuation), client_call_details, request_iterator)


class StreamStream(grpc.StreamStreamClientInterceptor):  # type: ignore[type-arg]
    """Many requests, many responses."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def intercept_stream_stream(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        """See the class."""
        return self._line.bidi(_alone(continuation), client_call_details, request_iterator)


def interceptors(line: Line) -> list[Any]:
    """One interceptor per arity."""
    return [UnaryUnary(line), UnaryStream(line), StreamUnary(line), StreamStream(line)]


def _alone(continuation: Start) -> Start:
    """`continuation`, in which nobody else makes a span of the same call."""

    def start(details: Any, request: Any) -> Any:
        with observation.suppressed():
            return continuation(details, request)

    return start
