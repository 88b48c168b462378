"""What `grpc.aio` gives and takes on the client, with the types that it really has.

The stubs know no `debug_error_string`, and their continuations do not wait.
"""

import asyncio
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
)
from typing import Protocol, TypeVar

import grpc
import grpc.aio

from accord.client.request import Outgoing
from accord.client.types import Details, Req, Res

Error = grpc.aio.AioRpcError
AioOutgoing = Outgoing[Req, Res, Error]


class CallStatus(Protocol):
    """How a call has ended, once it has."""

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """What the server sent first."""

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """What the server sent last."""

    async def code(self) -> grpc.StatusCode:
        """Status code."""

    async def details(self) -> str:
        """Status message."""

    async def debug_error_string(self) -> str:
        """What gRPC itself says of the failure."""


class CallObject(CallStatus, Protocol):
    """A call object of any kind, as far as an attempt needs one."""

    def cancel(self) -> bool:
        """End the call; False if it has ended."""

    def done(self) -> bool:
        """Whether the call has ended."""

    def add_done_callback(self, callback: "DoneCallback") -> None:
        """Call back when the call has ended."""


class WholeCallObject(CallObject, Protocol):
    """A call object as gRPC's own."""

    def cancelled(self) -> bool:
        """Whether the call has ended by cancellation."""

    def time_remaining(self) -> float | None:
        """Seconds left of the call; None: no bound."""

    async def wait_for_connection(self) -> None:
        """Wait until the call is connected. Raises the error of one that has failed before."""


EndOfStream = object  # the class of gRPC's `EOF` has no public name

Wait = asyncio.Future[None]
"""What a call yields to its event loop until its answer has come."""

DoneCallback = Callable[[CallObject], object]  # what it returns is nobody's business
ResT_co = TypeVar("ResT_co", covariant=True)
ReqT_contra = TypeVar("ReqT_contra", contravariant=True)


class Response(CallObject, Protocol[ResT_co]):
    """The call object of one response."""

    def __await__(self) -> Generator[Wait | None, None, ResT_co]: ...


class WholeResponse(Response[ResT_co], WholeCallObject, Protocol[ResT_co]):
    """The call object of one response, as gRPC's own."""


class Responses(WholeCallObject, Protocol[ResT_co]):
    """The call object of many responses."""

    def __aiter__(self) -> AsyncIterator[ResT_co]: ...

    async def read(self) -> ResT_co | EndOfStream:
        """The next response, or EOF."""


class Bidi(Responses[ResT_co], Protocol[ReqT_contra, ResT_co]):
    """The call object of many requests and many responses."""

    async def write(self, request: ReqT_contra) -> None:
        """Send a request."""

    async def done_writing(self) -> None:
        """There are no more requests."""


Requests = AsyncIterable[Req] | Iterable[Req]
Rpc = TypeVar("Rpc", bound=CallObject)
Continuation = Callable[[grpc.aio.ClientCallDetails, Req], Awaitable[Rpc]]
Start = Callable[[Details, Req], Awaitable[Rpc]]
"""Makes an attempt of a call with a request (or an iterator of them): gRPC's call object."""
