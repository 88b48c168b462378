"""A stream of requests and responses that ends when its consumer goes away.

gRPC's own call objects refer to themselves: one that is dropped keeps its server at work for as
long as a stream may live. This one is held by its consumer alone, and cancels them when it goes.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio


class BidiCallable(grpc.aio.StreamStreamMultiCallable):  # type: ignore[type-arg]
    """A method with many requests and many responses; `bare` is gRPC's own."""

    def __init__(self, bare: Any) -> None:
        self._bare = bare

    def __call__(self, *args: Any, **kwargs: Any) -> "BidiCall":
        """The call object."""
        return BidiCall(self._bare(*args, **kwargs))


class BidiCall(grpc.aio.StreamStreamCall):  # type: ignore[type-arg]
    """The call object that its consumer holds; `call` is gRPC's own."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __del__(self) -> None:
        with suppress(RuntimeError):  # the event loop is closed
            if not self._call.done():
                self._call.cancel()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._messages()

    async def _messages(self) -> AsyncIterator[Any]:
        # A method of this object, so that it lives for as long as it is read.
        async for message in self._call:
            yield message

    async def read(self) -> Any:
        """The next message, or EOF."""
        return await self._call.read()

    async def write(self, request: Any) -> None:
        """Send a request."""
        await self._call.write(request)

    async def done_writing(self) -> None:
        """There are no more requests."""
        await self._call.done_writing()

    def cancel(self) -> bool:
        """End the call; False if it has ended."""
        return bool(self._call.cancel())

    def cancelled(self) -> bool:
        """Whether the call has ended by cancellation."""
        return bool(self._call.cancelled())

    def done(self) -> bool:
        """Whether the call has ended."""
        return bool(self._call.done())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call back when the call has ended, with gRPC's own call object."""
        self._call.add_done_callback(callback)

    def time_remaining(self) -> float | None:
        """Seconds left of the call; None: no bound."""
        left: float | None = self._call.time_remaining()
        return left

    async def initial_metadata(self) -> Any:
        """What the server sent first."""
        return await self._call.initial_metadata()

    async def trailing_metadata(self) -> Any:
        """What the server sent last, once the call has ended."""
        return await self._call.trailing_metadata()

    async def code(self) -> grpc.StatusCode:
        """Status code, once the call has ended."""
        code: grpc.StatusCode = await self._call.code()
        return code

    async def details(self) -> Any:
        """Status message, once the call has ended."""
        return await self._call.details()

    async def debug_error_string(self) -> Any:
        """What gRPC itself says of the failure."""
        return await self._call.debug_error_string()

    async def wait_for_connection(self) -> None:
        """Wait until the call is connected."""
        await self._call.wait_for_connection()
