"""What the call objects of the mesh do alike, and how the end of a call is reported."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Generic, NoReturn

import grpc
import grpc.aio

from accord.aio.client_types import (
    AioOutgoing,
    CallObject,
    CallStatus,
    DoneCallback,
    Error,
    Wait,
    WholeCallObject,
    WholeResponse,
)
from accord.client.call import PROBE_SETTLES, Attempt
from accord.client.types import Details, Metadata, Pairs, Req, Res, T, stands_for


def attempting(bare: Callable[..., T]) -> Callable[[Details, Req], T]:
    """Makes attempts by `bare`, which is gRPC's own."""

    def start(details: Details, request: Req) -> T:
        return bare(
            request,
            timeout=details.timeout,
            metadata=details.metadata,
            credentials=details.credentials,
            wait_for_ready=details.wait_for_ready,
            compression=details.compression,
        )

    return start


def local_error(code: grpc.StatusCode, message: str, trailers: Pairs) -> Error:
    """An error like gRPC's own, of a call that has not reached a server."""
    return Error(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers), message, message)


class EndedStatus:
    """How a call has ended, where no call object of gRPC's says it."""

    def __init__(self, error: Error) -> None:
        self._error = error

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """As the error has it."""
        return self._error.initial_metadata()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """As the error has it."""
        # The stubs give it the type of the other kind of gRPC.
        return self._error.trailing_metadata()  # type: ignore[return-value]

    async def code(self) -> grpc.StatusCode:
        """As the error has it."""
        return self._error.code()

    async def details(self) -> str:
        """As the error has it."""
        return self._error.details() or ""

    async def debug_error_string(self) -> str:
        """As the error has it."""
        return self._error.debug_error_string()


class CallBase:
    """A call object that says how it has ended as `_status` does."""

    __slots__ = ()

    async def _status(self) -> CallStatus:
        """Whose status is that of the call, once it has one."""
        raise NotImplementedError

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """What the server sent first, of the last attempt."""
        return await (await self._status()).initial_metadata()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """What the server sent last, once the call has ended."""
        return await (await self._status()).trailing_metadata()

    async def code(self) -> grpc.StatusCode:
        """Status code, once the call has ended."""
        return await (await self._status()).code()

    async def details(self) -> str:
        """Status message, once the call has ended."""
        return await (await self._status()).details()

    async def debug_error_string(self) -> str:
        """What gRPC itself says of the failure."""
        return await (await self._status()).debug_error_string()


@stands_for(grpc.aio.UnaryStreamCall)
@stands_for(grpc.aio.StreamUnaryCall)
@stands_for(grpc.aio.StreamStreamCall)
class RefusedCall(EndedStatus):
    """The call object of a stream that was ended without an attempt."""

    def cancel(self) -> bool:
        """False: there is nothing to cancel."""
        return False

    def cancelled(self) -> bool:
        """False."""
        return False

    def done(self) -> bool:
        """True."""
        return True

    def add_done_callback(self, callback: DoneCallback) -> None:
        """Call back now."""
        callback(self)

    def time_remaining(self) -> float:
        """0."""
        return 0.0

    def __await__(self) -> Generator[None, None, NoReturn]:
        return self.read().__await__()

    async def __aiter__(self) -> AsyncIterator[NoReturn]:
        yield await self.read()

    async def read(self) -> NoReturn:
        """Raise the error."""
        raise self._error

    wait_for_connection = read

    async def write(self, request: object) -> NoReturn:  # which nobody reads
        """Raise the error."""
        raise self._error

    async def done_writing(self) -> None:
        """Nothing: as of any call that has ended."""


class DelegatingCall(CallBase):
    """A call object that leaves to `_rpc`, which is gRPC's own, what it does not do itself."""

    _rpc: WholeCallObject

    async def _status(self) -> CallStatus:
        return self._rpc

    def cancel(self) -> bool:
        """End the call; False if it has ended."""
        return self._rpc.cancel()

    def cancelled(self) -> bool:
        """Whether the call has ended by cancellation."""
        return self._rpc.cancelled()

    def done(self) -> bool:
        """Whether the call has ended."""
        return self._rpc.done()

    def add_done_callback(self, callback: DoneCallback) -> None:
        """Call back when the call has ended, with gRPC's own call object."""
        self._rpc.add_done_callback(callback)

    def time_remaining(self) -> float | None:
        """Seconds left of the call; None: no bound."""
        return self._rpc.time_remaining()

    async def wait_for_connection(self) -> None:
        """Wait until the attempt in hand is connected."""
        await self._rpc.wait_for_connection()


@stands_for(grpc.aio.UnaryUnaryCall)
class SingleCall(DelegatingCall, Generic[Res]):
    """The one attempt of a call with one response."""

    def __init__(
        self, outgoing: AioOutgoing[Req, Res], attempt: Attempt, rpc: WholeResponse[Res]
    ) -> None:
        self._rpc: WholeResponse[Res] = rpc
        self._outgoing = outgoing
        ending = Ending(outgoing, attempt)
        if rpc.done():  # another interceptor's answer takes no callbacks
            ending(rpc)
        else:
            rpc.add_done_callback(ending)

    def __await__(self) -> Generator[Wait | None, None, Res]:
        try:
            return (yield from self._rpc.__await__())
        except Error as error:
            self._outgoing.mark(error)
            raise


class Ending:
    """Done callback: reports how a call ended that is not awaited here."""

    __slots__ = ("_attempt", "_outgoing", "_task")

    def __init__(self, outgoing: AioOutgoing[Req, Res], attempt: Attempt) -> None:
        self._outgoing = outgoing
        self._attempt = attempt
        self._task: asyncio.Task[None] | None = None

    def __call__(self, rpc: CallObject) -> None:
        """See the class."""
        found = ended(rpc)
        if found is not None:
            self._outgoing.ended(self._attempt, *found)
        else:
            self._task = asyncio.ensure_future(self._wait(rpc))

    async def _wait(self, rpc: CallObject) -> None:
        code, details = await rpc.code(), await rpc.details()
        self._outgoing.ended(self._attempt, code, details, await rpc.trailing_metadata())


def watch_probe(attempt: Attempt, rpc: CallObject) -> None:
    """See that a stream which is a probe is settled when the server begins to answer."""
    if attempt.permission is not None and attempt.permission.probe:
        probe = asyncio.ensure_future(_answered(attempt, rpc))
        rpc.add_done_callback(lambda _: probe.cancel())


async def _answered(attempt: Attempt, rpc: CallObject) -> None:
    await rpc.initial_metadata()
    await asyncio.sleep(PROBE_SETTLES)
    if not rpc.done():
        attempt.accepted()


def ended(rpc: CallObject) -> tuple[grpc.StatusCode, str, Metadata | None] | None:
    """Code, details and trailers of a call that has ended, without waiting; None: it has not."""
    if not rpc.done() or (code := _now(rpc.code())) is None:
        return None
    return code, _now(rpc.details()) or "", _now(rpc.trailing_metadata())


def _now(coroutine: Coroutine[None, None, T]) -> T | None:
    """The result of a coroutine that need not wait; None if it would."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    except Exception:
        return None
    coroutine.close()
    return None
