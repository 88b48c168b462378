"""What a handler sees of its call: messages in and out, and the servicer context."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from accord.aio import EOF
from accord.aio.watchdog import Watchdog
from accord.codec import Codec
from accord.errors import InvalidArgument
from accord.failure import exhausted
from accord.incoming import SILENT, known
from accord.observation import ServerCall
from accord.policies.pushback import MARK, PUSHBACK_KEY


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
            return raw
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
        trailers = tuple(trailing_metadata)
        # While a nested call's error is being handled, it is the reason for this one.
        if exhausted(sys.exception()) and all(key != PUSHBACK_KEY for key, _ in trailers):
            trailers += ((PUSHBACK_KEY, MARK),)
        await self._context.abort(known(code), details, trailers)

    async def abort_with_status(self, status: Any) -> None:
        """As gRPC's own."""
        await self.abort(status.code, status.details, status.trailing_metadata)

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

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def _wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def abort(self, code: Any, details: str = "", trailing_metadata: tuple[Any, ...] = ()) -> None:
        """End the call with a status. Raises AbortError."""
        self._wait(self._context.abort(code, details, trailing_metadata))

    def abort_with_status(self, status: Any) -> None:
        """As gRPC's own."""
        self._wait(self._context.abort_with_status(status))

    def send_initial_metadata(self, metadata: Any) -> None:
        """As gRPC's own."""
        self._wait(self._context.send_initial_metadata(metadata))

    def is_active(self) -> bool:
        """Whether the call has not ended yet."""
        return not self._context.done()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call `callback` when the call has ended; False if it has."""
        if self._context.done():
            return False
        self._context.add_done_callback(lambda _: callback())
        return True

    def requests(self) -> Iterator[Any]:
        """The requests of a client stream, for a `for` loop in the thread."""
        while (request := self._wait(self._context.read())) is not EOF:
            yield request
