"""What a handler sees of its call: messages in and out, and the servicer context."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar

import grpc
import grpc.aio

from accord.aio import EOF
from accord.aio.server_timeouts import Watchdog
from accord.errors import InvalidArgument
from accord.server import types
from accord.server.codec import Codec
from accord.server.error_mapping import known, sendable, text, with_mark
from accord.server.servicer_context import ServicerContext
from accord.server.spans import ServerCall
from accord.server.types import Metadata, Req, Res, Status, Trailers

T = TypeVar("T")


class GrpcContext(types.GrpcContext, Protocol):
    """gRPC's own context of a call that is handled in an event loop, with bytes as messages."""

    def time_remaining(self) -> float | None:
        """Seconds that the caller's deadline leaves; None: it has none."""

    async def read(self) -> bytes:
        """The next request, or `EOF`."""

    async def write(self, message: bytes, /) -> None:
        """Send one response."""

    def send_initial_metadata(self, metadata: Metadata, /) -> Coroutine[None, None, None]:
        """Send what comes before the responses."""

    async def abort(self, code: Status, details: str, trailing_metadata: Trailers, /) -> None:
        """End the call with a status. Raises AbortError."""

    def done(self) -> bool:
        """Whether the call has ended."""

    def add_done_callback(self, callback: Callable[["GrpcContext"], None], /) -> None:
        """Call `callback` when the call has ended."""


class Requests(Generic[Req]):
    """The requests of a client stream, each decoded and validated as it is read."""

    def __init__(self, context: "ServerContext[Req, Res]") -> None:
        self._read = context.read

    def __aiter__(self) -> AsyncIterator[Req]:
        return self

    async def __anext__(self) -> Req:
        request = await self._read()
        if request is EOF:
            raise StopAsyncIteration
        return request


class ServerContext(ServicerContext[GrpcContext], Generic[Req, Res]):
    """gRPC's servicer context, with messages instead of bytes and without UNKNOWN."""

    __slots__ = ("_codec", "_observed", "_opened", "_received", "_watchdog")

    def __init__(
        self,
        context: GrpcContext,
        codec: Codec[Req, Res],
        watchdog: Watchdog | None,
        observed: ServerCall | None,
    ) -> None:
        self._context = context
        self._codec = codec
        self._watchdog = watchdog
        self._observed = observed
        self._received = 0
        self._opened = False

    async def read(self) -> Req:
        """The next request or EOF. Raises InvalidArgument, which names the item."""
        raw = await self._context.read()
        if self._watchdog is not None:
            self._watchdog.touch()
        ended = raw is EOF
        if ended:
            # A call that has been cancelled, or whose deadline has passed, ends like this as well.
            # gRPC reports both in order: by the end of another read, the call's task is cancelled.
            await self._context.read()
            return EOF  # type: ignore[no-any-return]  # of no type: see `accord.aio.EOF`
        if self._observed is not None:
            self._observed.received(len(raw))
        try:
            request = self._codec.decode(raw)
        except InvalidArgument as error:
            error.metadata["item"] = str(self._received)
            raise
        self._received += 1
        return request

    async def write(self, message: Res) -> None:
        """Send one response."""
        raw = self._codec.encode(message)
        if self._watchdog is None:
            await self._context.write(raw)
        else:
            self._watchdog.writing()
            if not self._opened:
                # Else the first response takes them along, and until it is read gRPC sends no
                # status (and lets go of nothing that it has made for it).
                self._opened = True
                with suppress(grpc.aio.UsageError):  # they are sent
                    await self._context.send_initial_metadata(())
            await self._context.write(raw)
            self._watchdog.written()
        if self._observed is not None:
            self._observed.sent(len(raw))

    async def abort(
        self, code: Status, details: str = "", trailing_metadata: Metadata = ()
    ) -> None:
        """End the call with a status. Raises AbortError."""
        trailers = sendable(with_mark(trailing_metadata))
        await self._context.abort(known(code), text(details), trailers)

    async def abort_with_status(self, status: grpc.Status) -> None:
        """As gRPC's own."""
        await self.abort(status.code, status.details, status.trailing_metadata)


class SyncContext(Generic[Req, Res]):
    """The context of a handler that runs in a thread."""

    def __init__(self, context: ServerContext[Req, Res], loop: asyncio.AbstractEventLoop) -> None:
        self._context = context
        self._loop = loop
        self._ended: Future[None] = Future()
        self._reading: Future[Req] | None = None
        self._task = asyncio.current_task()
        """The call's, which gRPC cancels."""

    def __getattr__(self, name: str) -> Any:  # what gRPC's own has besides, of whatever type
        return getattr(self._context, name)

    def end(self) -> None:
        """The call has ended, for its caller: tell the thread, which may wait for a request."""
        if not self._ended.done():
            self._ended.set_result(None)
            if self._reading is not None:
                self._reading.cancel()

    def _start(self, coroutine: Coroutine[None, None, T]) -> Future[T]:
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:  # the loop has been closed under a thread that went on
            coroutine.close()
            raise grpc.RpcError("the server has ended") from None

    def abort(self, code: Status, details: str = "", trailing_metadata: Metadata = ()) -> None:
        """End the call with a status. Raises AbortError."""
        # The loop's thread does not see the error that is being handled in this one.
        self._start(self._context.abort(code, details, with_mark(trailing_metadata))).result()

    def abort_with_status(self, status: grpc.Status) -> None:
        """As gRPC's own."""
        self.abort(status.code, status.details, status.trailing_metadata)

    def send_initial_metadata(self, metadata: Metadata) -> None:
        """As gRPC's own."""
        self._start(self._context._context.send_initial_metadata(metadata)).result()

    def is_active(self) -> bool:
        """Whether the call has not ended yet."""
        return not (self._ended.done() or self._context._context.done())

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call `callback` when the call has ended; False if it has."""
        if not self.is_active():
            return False
        self._ended.add_done_callback(lambda _: callback())
        self._context._context.add_done_callback(lambda _: self.end())
        return True

    def requests(self) -> Iterator[Req]:
        """The requests of a client stream, for a `for` loop in the thread.

        Raises RpcError, as gRPC's own: the call has ended.
        """
        while (request := self._read()) is not EOF:
            yield request

    async def _next(self) -> Req:
        request = await self._context.read()
        if request is EOF and self._task is not None and self._task.cancelling():
            # In a coroutine this would be raised by the read. Here another task reads, and the
            # thread could have the end of its requests before it is told that the call is over.
            raise grpc.RpcError("the call has ended")
        return request

    def _read(self) -> Req:
        self._reading = self._start(self._next())
        if self._ended.done():
            self._reading.cancel()
        try:
            return self._reading.result()
        except CancelledError:
            raise grpc.RpcError("the call has ended") from None
