"""What gRPC with threads gives and takes on the client, with the types that it really has."""

from collections.abc import Callable, Iterator
from typing import Protocol, Self, TypeVar

import grpc

from accord.client.request import Outgoing
from accord.client.types import Details, Pairs, Req, Res

SyncOutgoing = Outgoing[Req, Res, grpc.RpcError]
ResT_co = TypeVar("ResT_co", covariant=True)


class CallStatus(Protocol):
    """How a call has ended; waits for it."""

    def initial_metadata(self) -> Pairs:
        """What the server sent first."""

    def trailing_metadata(self) -> Pairs:
        """What the server sent last."""

    def code(self) -> grpc.StatusCode:
        """Status code."""

    def details(self) -> str:
        """Status message."""

    def debug_error_string(self) -> str:
        """What gRPC itself says of the failure."""


class Response(CallStatus, Protocol[ResT_co]):
    """The call object of one response."""

    def result(self, timeout: float | None = None) -> ResT_co:
        """The response. Raises the error of the call."""

    def exception(self) -> BaseException | None:
        """The error of the call; None: it succeeded."""

    def done(self) -> bool:
        """Whether it has ended."""

    def cancel(self) -> bool:
        """End the call; False if it has ended."""

    def add_done_callback(self, fn: Callable[[Self], None]) -> None:
        """Call back when it has ended."""


class Responses(CallStatus, Protocol[ResT_co]):
    """The call object of many responses."""

    def __iter__(self) -> Iterator[ResT_co]: ...

    def __next__(self) -> ResT_co: ...

    def cancel(self) -> bool:
        """End the call; False if it has ended."""

    def cancelled(self) -> bool:
        """Whether it was cancelled."""

    def is_active(self) -> bool:
        """Whether it has not ended."""

    def time_remaining(self) -> float | None:
        """Seconds left; None: no bound."""

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call back when it has ended; False if it has."""


Rpc = TypeVar("Rpc", bound=CallStatus)
Start = Callable[[Details, Req], Rpc]
"""Makes an attempt with a request (or an iterator of them): gRPC's call object.

An attempt that blocks is over when it is returned, and then it may be the error itself.
"""
