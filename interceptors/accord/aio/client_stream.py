"""Streams that end when their consumer goes away.

gRPC's own stream calls refer to themselves: one that is dropped half read keeps its server at work
for as long as it may live. These are held by their consumer alone, and cancel the call when their
iterator is closed or collected.
"""

import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio

from accord.aio import EOF
from accord.aio.client_request import Continuation, Ending, Outgoing
from accord.client.decisions import Refuse, Send


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


class StreamCall(grpc.aio.UnaryStreamCall):  # type: ignore[type-arg]
    """One attempt of a server stream, as a call object."""

    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing
        self._send: Send | None = None
        self._rpc: Any = None
        self._reader: AsyncIterator[Any] | None = None
        self._callbacks: list[Callable[[Any], None]] = []

    async def start(self, continuation: Continuation, request: Any) -> "StreamCall":
        """Make the attempt. Raises the engine's refusal."""
        send = self._outgoing.call.admit()
        if isinstance(send, Refuse):
            self._outgoing.finish(send.code.name)
            raise self._outgoing.refusal(send)
        self._send = send
        self._rpc = await self._sent(send, continuation, request)
        # Weak: gRPC keeps callbacks where the collector cannot see them, and one of them is the
        # channel's, which holds the consumer's own call object.
        me = weakref.ref(self)

        def ended(_: Any) -> None:
            call = me()
            if call is not None:
                call.call_back()

        self._rpc.add_done_callback(ended)
        self._rpc.add_done_callback(Ending(self._outgoing, send))
        return self

    async def _sent(self, send: Send, continuation: Continuation, request: Any) -> Any:
        """GRPC's call object of an attempt, which is released if it cannot be made."""
        try:
            return await continuation(self._outgoing.attempt(send), request)
        except BaseException as error:
            self._outgoing.call.released(send)
            self._outgoing.finish(type(error).__name__)
            raise

    def __aiter__(self) -> AsyncIterator[Any]:
        # A fresh generator that nobody else holds: when the consumer drops it, it is closed, and
        # closing it cancels the attempt.
        return self._messages()

    async def read(self) -> Any:
        """The next message, or EOF."""
        if self._reader is None:
            self._reader = self._messages()
        try:
            return await anext(self._reader)
        except StopAsyncIteration:
            return EOF

    async def _messages(self) -> AsyncIterator[Any]:
        answered = False
        try:
            async for message in self._rpc:
                if not answered and self._send is not None:
                    # Not at the end: a probe must not hold the breaker for as long as a stream.
                    self._outgoing.call.succeeded(self._send)
                    answered = True
                self._outgoing.received()
                yield message
        except grpc.aio.AioRpcError as error:
            self._outgoing.mark(error)
            raise
        finally:
            self.cancel()  # nothing to cancel if it has ended

    def cancel(self) -> bool:
        """End the call; False if it has ended."""
        return bool(self._rpc.cancel())

    def cancelled(self) -> bool:
        """Whether the call has ended by cancellation."""
        return bool(self._rpc.cancelled())

    def done(self) -> bool:
        """Whether the call has ended."""
        return bool(self._rpc.done())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call back when the call has ended, at once if it has."""
        if self.done():
            callback(self)
        else:
            self._callbacks.append(callback)

    def call_back(self) -> None:
        """Tell everybody that the call has ended."""
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)

    def time_remaining(self) -> float | None:
        """Seconds left of the call; None: no bound."""
        left: float | None = self._rpc.time_remaining()
        return left

    async def initial_metadata(self) -> Any:
        """Initial metadata of the attempt in hand."""
        return await self._rpc.initial_metadata()

    async def trailing_metadata(self) -> Any:
        """Trailing metadata, once the call has ended."""
        return await self._rpc.trailing_metadata()

    async def code(self) -> grpc.StatusCode:
        """Status code, once the call has ended."""
        code: grpc.StatusCode = await self._rpc.code()
        return code

    async def details(self) -> str:
        """Status message, once the call has ended."""
        return str(await self._rpc.details())

    async def debug_error_string(self) -> str:
        """What gRPC itself says of the failure."""
        return str(await self._rpc.debug_error_string())

    async def wait_for_connection(self) -> None:
        """Wait until the attempt in hand is connected."""
        await self._rpc.wait_for_connection()
