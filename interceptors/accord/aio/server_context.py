"""What a handler sees of its call: messages in and out, and the servicer context."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError, Future
from typing import Any

import grpc

from accord.aio import EOF
from accord.aio.server_timeouts import Watchdog
from accord.errors import InvalidArgument
from accord.server.codec import Codec
from accord.server.error_mapping import with_mark
from accord.server.observation import ServerCall
from accord.server.request import SILENT, known, sendable


class Requests:
    """The requests of a client stream, each decoded and validated as it is read."""

    def __init__(self, context: "ServerContext") -> None:
        self._context = context

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        request = await self._context.read()
        if request is EOF:
            raise StopAsyncIteration
        return request


class ServerContext:
    """gRPC's servicer context, with messages instead of bytes and without UNKNOWN."""

    __slots__ = ("_codec", "_context", "_observed", "_read", "_watchdog")

    def __init__(
        self, context: Any, codec: Codec, watchdog: Watchdog, observed: ServerCall | None
    ) -> None:
        self._context = context
        self._codec = codec
        self._watchdog = watchdog
        self._observed = observed
        self._read = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def read(self) -> Any:
        """The next request or EOF. Raises InvalidArgument, which names the item."""
        raw = await self._context.read()
        self._watchdog.touch()
        if raw is EOF:
            # A call that has been cancelled, or whose deadline has passed, ends like this as well.
            # gRPC reports both in order: by the end of another read, the call's task is cancelled.
            return await self._context.read()
        if self._observed is not None:
            self._observed.received(len(raw))
        try:
            request = self._codec.decode(raw)
        except InvalidArgument as error:
            error.metadata["item"] = str(self._read)
            raise
        self._read += 1
        return request

    async def write(self, message: Any) -> None:
        """Send one response."""
        raw = self._codec.encode(message)
        await self._context.write(raw)
        self._watchdog.touch()
        if self._observed is not None:
            self._observed.sent(len(raw))

    async def abort(
        self, code: Any, details: str = "", trailing_metadata: tuple[Any, ...] = ()
    ) -> None:
        """End the call with a status. Raises AbortError."""
        await self._context.abort(known(code), details, sendable(with_mark(trailing_metadata)))

    async def abort_with_status(self, status: Any) -> None:
        """As gRPC's own."""
        await self.abort(status.code, status.details, status.trailing_metadata)

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """As gRPC's own, which would never end a call with trailers of a wrong type."""
        self._context.set_trailing_metadata(sendable(trailing_metadata))

    def set_code(self, code: Any) -> None:
        """Set the status code of the answer."""
        self._context.set_code(known(code))

    def failed(self) -> bool:
        """Whether the handler has set a status code that is not OK."""
        return self._context.code() not in SILENT


class SyncContext:
    """The context of a handler that runs in a thread."""

    def __init__(self, context: ServerContext, loop: asyncio.AbstractEventLoop) -> None:
        self._context = context
        self._loop = loop
        self._ended: Future[None] = Future()
        self._reading: Future[Any] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def end(self) -> None:
        """The call has ended, for its caller: tell the thread, which may wait for a request."""
        if not self._ended.done():
            self._ended.set_result(None)
            if self._reading is not None:
                self._reading.cancel()

    def _start(self, coroutine: Any) -> Future[Any]:
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:  # the loop has been closed under a thread that went on
            coroutine.close()
            raise grpc.RpcError("the server has ended") from None

    def abort(self, code: Any, details: str = "", trailing_metadata: tuple[Any, ...] = ()) -> None:
        """End the call with a status. Raises AbortError."""
        # The loop's thread does not see the error that is being handled in this one.
        self._start(self._context.abort(code, details, with_mark(trailing_metadata))).result()

    def abort_with_status(self, status: Any) -> None:
        """As gRPC's own."""
        self.abort(status.code, status.details, status.trailing_metadata)

    def send_initial_metadata(self, metadata: Any) -> None:
        """As gRPC's own."""
        self._start(self._context.send_initial_metadata(metadata)).result()

    def is_active(self) -> bool:
        """Whether the call has not ended yet."""
        return not (self._ended.done() or self._context.done())

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call `callback` when the call has ended; False if it has."""
        if not self.is_active():
            return False
        self._ended.add_done_callback(lambda _: callback())
        self._context.add_done_callback(lambda _: self.end())
        return True

    def requests(self) -> Iterator[Any]:
        """The requests of a client stream, for a `for` loop in the thread.

        Raises RpcError, as gRPC's own: the call has ended.
        """
        while (request := self._read()) is not EOF:
            yield request

    def _read(self) -> Any:
        self._reading = self._start(self._context.read())
        if self._ended.done():
            self._reading.cancel()
        try:
            return self._reading.result()
        except CancelledError:
            raise grpc.RpcError("the call has ended") from None
