"""What the call objects of the mesh do alike, and those of calls that have ended."""

from collections.abc import Callable
from types import TracebackType
from typing import Final, Generic, NoReturn, Self

import grpc

from accord.client.types import Pairs, Res, stands_for
from accord.error_details import Remade, remade
from accord.sync.client_types import CallStatus

CANCELLED: Final = "Locally cancelled by application!"
"""Status message of a call that its caller has cancelled; gRPC's own words."""


@stands_for(grpc.Call)
class CallBase:
    """A call object that says how it has ended as `_status` does."""

    def _status(self) -> CallStatus:
        """Whose status is that of the call; waits for it."""
        raise NotImplementedError

    def initial_metadata(self) -> Pairs:
        """What the server sent first, of the last attempt."""
        return self._status().initial_metadata()

    def trailing_metadata(self) -> Pairs:
        """What the server sent last, once the call has ended."""
        return self._status().trailing_metadata()

    def code(self) -> grpc.StatusCode:
        """Status code, once the call has ended."""
        return self._status().code()

    def details(self) -> str:
        """Status message, once the call has ended."""
        return self._status().details()

    def debug_error_string(self) -> str:
        """What gRPC itself says of the failure."""
        return self._status().debug_error_string()

    def is_active(self) -> bool:
        """Whether it has not ended."""
        return False

    def running(self) -> bool:
        """Whether it has not ended."""
        return self.is_active()

    def done(self) -> bool:
        """Whether it has ended."""
        return not self.is_active()


class Ended:
    """How a call has ended, where no call object of gRPC's says it."""

    def __init__(
        self, code: grpc.StatusCode, details: str = "", trailers: Pairs = (), debug: str = ""
    ) -> None:
        self._code = code
        self._details = details
        self._trailers = trailers
        self._debug = debug

    def initial_metadata(self) -> Pairs:
        """None was received."""
        return ()

    def trailing_metadata(self) -> Pairs:
        """As a server would have sent them."""
        return self._trailers

    def code(self) -> grpc.StatusCode:
        """Status code."""
        return self._code

    def details(self) -> str:
        """Status message."""
        return self._details

    def debug_error_string(self) -> str:
        """What gRPC itself would say of the failure."""
        return self._debug


@stands_for(grpc.Future)
class Settled(CallBase, Generic[Res]):
    """A call that has ended."""

    def time_remaining(self) -> float:
        """0."""
        return 0.0

    def cancel(self) -> bool:
        """False: there is nothing to cancel."""
        return False

    def cancelled(self) -> bool:
        """False."""
        return False

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """False: the callback will not be called."""
        return False

    def add_done_callback(self, fn: Callable[[Self], None]) -> None:
        """Call back now."""
        fn(self)


class Refusal(grpc.RpcError, Settled[Res]):  # type: ignore[misc]  # the stubs' types of trailers
    """A call that was ended without an attempt."""

    def __init__(self, code: grpc.StatusCode, details: str, trailers: Pairs = ()) -> None:
        super().__init__(f"{code.name}: {details}")
        self._ended = Ended(code, details, trailers, details)

    def __reduce__(self) -> Remade:
        return remade(self)

    def _status(self) -> CallStatus:
        return self._ended

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> NoReturn:
        raise self

    def result(self, timeout: float | None = None) -> NoReturn:
        """Raise this."""
        raise self

    def exception(self, timeout: float | None = None) -> Exception:
        """This."""
        return self

    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        """Where it was raised, here if it was not yet."""
        try:
            raise self
        except Refusal as raised:
            return raised.__traceback__


class Answer(Settled[Res]):
    """A call that was answered: by `call`, or without one."""

    def __init__(self, response: Res, call: CallStatus | None = None) -> None:
        self._response = response
        self._call = call

    def _status(self) -> CallStatus:
        return Ended(grpc.StatusCode.OK) if self._call is None else self._call

    def debug_error_string(self) -> str:
        """Nothing."""
        return ""

    def result(self, timeout: float | None = None) -> Res:
        """The response."""
        return self._response

    def exception(self, timeout: float | None = None) -> None:
        """None: it succeeded."""
        return

    def traceback(self, timeout: float | None = None) -> None:
        """None: it succeeded."""
        return
