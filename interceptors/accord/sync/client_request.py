"""One outgoing call on its way to gRPC: the details of its attempts, and its errors."""

import inspect
import logging
import math
from collections.abc import Callable
from threading import RLock
from typing import Any, Final, NamedTuple

import grpc

from accord._log import log
from accord.client import request
from accord.client.decisions import Refuse, Send

CANCELLED: Final = "Locally cancelled by application!"
"""Status message of a call that its caller has cancelled; gRPC's own words."""

Start = Callable[[Any, Any], Any]
"""Given call details and a request (or an iterator of them), makes an attempt: gRPC's call object.

An attempt that blocks is over when it is returned, and then it may be the error itself.
"""


class Details(NamedTuple):
    """What gRPC needs to know of a call, as its own interceptors have it."""

    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class Outgoing(request.Outgoing):
    """The call details that only lack the timeout and the number of the attempt."""

    __slots__ = ()

    def attempt(self, send: Send) -> Details:
        """The details of an attempt."""
        details = self._details
        return Details(
            details.method,
            None if send.timeout == math.inf else send.timeout,
            self.metadata(send),
            details.credentials,
            details.wait_for_ready,
            getattr(details, "compression", None),
        )

    def refusal(self, step: Refuse) -> "Refusal":
        """A local refusal as an error like gRPC's own."""
        error = Refusal(request.grpc_code(step.code), step.message, request.refusal_trailers(step))
        # An open circuit: what there was to be tried has been tried.
        return self.mark(error, exhausted=step.retry_after is not None)


class Settled(grpc.Call, grpc.Future):  # type: ignore[type-arg]
    """A call that has ended."""

    def is_active(self) -> bool:
        """False."""
        return False

    def time_remaining(self) -> float:
        """0."""
        return 0.0

    def cancel(self) -> bool:
        """False: there is nothing to cancel."""
        return False

    def cancelled(self) -> bool:
        """False."""
        return False

    def running(self) -> bool:
        """False."""
        return False

    def done(self) -> bool:
        """True."""
        return True

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """False: the callback will not be called."""
        return False

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        """Call back now."""
        fn(self)

    def initial_metadata(self) -> Any:
        """None was received."""
        return ()

    def trailing_metadata(self) -> Any:
        """None was received."""
        return ()

    def details(self) -> str:
        """Status message."""
        return ""

    def debug_error_string(self) -> str:
        """What gRPC itself would say of the failure."""
        return ""


class Refusal(grpc.RpcError, Settled):
    """A call that was ended without an attempt."""

    def __init__(self, code: grpc.StatusCode, details: str, trailers: Any = ()) -> None:
        super().__init__(f"{code.name}: {details}")
        self._code = code
        self._details = details
        self._trailers = trailers

    def code(self) -> grpc.StatusCode:
        """Status code."""
        return self._code

    def details(self) -> str:
        """Status message."""
        return self._details

    def debug_error_string(self) -> str:
        """Status message."""
        return self._details

    def trailing_metadata(self) -> Any:
        """As a server would have sent them."""
        return self._trailers

    def __iter__(self) -> "Refusal":
        return self

    def __next__(self) -> Any:
        raise self

    def result(self, timeout: float | None = None) -> Any:
        """Raise this."""
        raise self

    def exception(self, timeout: float | None = None) -> Exception:
        """This."""
        return self

    def traceback(self, timeout: float | None = None) -> Any:
        """Where it was raised."""
        return self.__traceback__


class Answer(Settled):
    """A call that was answered: by `call`, or without one."""

    def __init__(self, response: Any, call: Any = None) -> None:
        self._response = response
        self._call = call

    def code(self) -> grpc.StatusCode:
        """OK."""
        return grpc.StatusCode.OK

    def details(self) -> str:
        """Status message."""
        return "" if self._call is None else str(self._call.details() or "")

    def initial_metadata(self) -> Any:
        """What the server sent before its answer."""
        return () if self._call is None else self._call.initial_metadata()

    def trailing_metadata(self) -> Any:
        """What the server sent after its answer."""
        return () if self._call is None else self._call.trailing_metadata()

    def result(self, timeout: float | None = None) -> Any:
        """The response."""
        return self._response

    def exception(self, timeout: float | None = None) -> None:
        """None: it succeeded."""
        return

    def traceback(self, timeout: float | None = None) -> None:
        """None: it succeeded."""
        return


class Fallbacks:
    """Answers of the application to calls that cannot be made."""

    def __init__(self, settings: request.ClientSettings, lock: "RLock") -> None:
        self._settings = settings
        self._lock = lock

    def may_answer(self, outgoing: Outgoing, error: grpc.RpcError) -> bool:
        """Whether there may be another answer to a call that ended with `error`."""
        return (
            outgoing.call.policy.method in self._settings.fallbacks
            and error.code() in request.WORTH_A_FALLBACK
        )

    def answer(self, outgoing: Outgoing, request: Any, error: grpc.RpcError) -> Any:
        """The answer of the method's fallback; None if there is none."""
        if not self.may_answer(outgoing, error):
            return None
        route = outgoing.call.route
        try:
            answer = self._settings.fallbacks[route.policy.method](request, error)
            if inspect.iscoroutine(answer):
                answer.close()
                raise TypeError("a coroutine function cannot be the fallback of a sync call")
        except Exception as problem:
            # The caller is told what happened to the call, not to its replacement.
            log(logging.ERROR, "a fallback failed", error=problem, method=route.policy.method)
            return None
        if answer is not None:
            with self._lock:
                route.fallbacks += 1
                self._settings.env.count(route.policy.method, "fallback")
        return answer
