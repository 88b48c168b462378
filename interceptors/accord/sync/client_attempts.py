"""The attempts of calls to one target, for gRPC with threads: what the engine decides, done.

The twin of `accord.aio.client_attempts`.
"""

import time
from functools import partial
from threading import RLock
from typing import Any

import grpc

from accord import context
from accord.client.decisions import Raise, Refuse
from accord.client.request import (
    ClientSettings,
    failure_from,
    keep,
    lookup,
    new_call,
)
from accord.sync.client_call import Call
from accord.sync.client_future import FutureCall
from accord.sync.client_request import Answer, Fallbacks, Outgoing, Start
from accord.sync.client_resume import ResumableCall
from accord.sync.client_stream import StreamCall


class Attempts:
    """The way to one target."""

    __slots__ = ("_fallbacks", "_lock", "_target", "settings")

    def __init__(self, settings: ClientSettings, target: str, lock: "RLock") -> None:
        """`lock` is shared by all lines and servers of a mesh."""
        self.settings = settings
        self._target = target
        self._lock = lock
        self._fallbacks = Fallbacks(settings, lock)

    def begin(self, details: Any, request: Any = None) -> Outgoing:
        """A new call. Raises ContractError."""
        env, method = self.settings.env, details.method
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
            answer = self._fallbacks.answer(outgoing, request, error)
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
            if isinstance(send, Refuse):
                raise outgoing.refusal(send)
            try:
                rpc = start(outgoing.attempt(send), request)
            except grpc.RpcError as error:
                step = call.failed(send, failure_from(error))
                if isinstance(step, Raise):
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
        if isinstance(send, Refuse):
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
        return FutureCall(self._fallbacks, outgoing, start, request).begin()

    def future_once(self, start: Start, details: Any, requests: Any) -> Any:
        """As `once`, without waiting for it."""
        return FutureCall(self._fallbacks, self.begin(details), start, requests, once=True).begin()

    def stream(self, start: Start, details: Any, request: Any) -> Any:
        """One request, many responses; tried again before the first of them, resumed after it."""
        outgoing = self.begin(details, request)
        call = outgoing.call
        if call.resumption is None and call.policy.retry is None:
            return StreamCall(outgoing).start(start, request)
        return ResumableCall(outgoing, self.settings.on_resume).start(start, request)

    def bidi(self, start: Start, details: Any, requests: Any) -> Any:
        """Many requests, many responses."""
        return StreamCall(self.begin(details)).start(start, requests)
