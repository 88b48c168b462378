"""One outgoing call on its way to gRPC: the details of its attempts, and its errors."""

import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import grpc

from accord import engine, outgoing

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


class Outgoing(outgoing.Outgoing):
    """The call details that only lack the timeout and the number of the attempt."""

    __slots__ = ()

    def attempt(self, send: engine.Send) -> Details:
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

    def refusal(self, step: engine.Refuse) -> "Refusal":
        """A local refusal as an error like gRPC's own."""
        error = Refusal(
            outgoing.grpc_code(step.code), step.message, outgoing.refusal_trailers(step)
        )
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
