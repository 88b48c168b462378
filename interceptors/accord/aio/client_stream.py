"""Streams that end when their consumer goes away.

gRPC's own stream calls refer to themselves: one that is dropped half read keeps its server at work
for as long as it may live. These are held by their consumer alone, and cancel the call when their
iterator is closed or collected.
"""

import weakref
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Generic, Self

import grpc
import grpc.aio

from accord.aio import EOF
from accord.aio.client_call import DelegatingCall, Ending, watch_probe
from accord.aio.client_types import (
    AioOutgoing,
    Bidi,
    CallObject,
    DoneCallback,
    EndOfStream,
    Error,
    Responses,
)
from accord.client.call import Attempt
from accord.client.types import Req, Res, stands_for, tell


class StreamBase(DelegatingCall):
    """A call object that its consumer alone holds."""

    def __del__(self) -> None:
        with suppress(RuntimeError, AttributeError):  # its loop is closed; it was never begun
            if not self.done():
                self.cancel()


@stands_for(grpc.aio.StreamStreamCall)
class BidiCall(StreamBase, Generic[Req, Res]):
    """The call object of many requests and many responses; `rpc` is gRPC's own."""

    def __init__(self, rpc: Bidi[Req, Res]) -> None:
        self._rpc: Bidi[Req, Res] = rpc

    def __aiter__(self) -> AsyncIterator[Res]:
        return self._messages()

    async def _messages(self) -> AsyncIterator[Res]:
        # A method of this object, so that it lives for as long as it is read.
        async for message in self._rpc:
            yield message

    async def read(self) -> Res | EndOfStream:
        """The next message, or EOF."""
        return await self._rpc.read()

    async def write(self, request: Req) -> None:
        """Send a request."""
        await self._rpc.write(request)

    async def done_writing(self) -> None:
        """There are no more requests."""
        await self._rpc.done_writing()


@stands_for(grpc.aio.UnaryStreamCall)
class StreamCall(StreamBase, Generic[Req, Res]):
    """One attempt of a server stream, as a call object."""

    _rpc: Responses[Res]
    _attempt: Attempt

    def __init__(self, outgoing: AioOutgoing[Req, Res]) -> None:
        self._outgoing = outgoing
        self._callbacks: list[DoneCallback] = []

    def began(self, attempt: Attempt, rpc: Responses[Res]) -> Self:
        """The attempt is made: this, which stands for it."""
        self._attempt, self._rpc = attempt, rpc
        # Weak: gRPC keeps callbacks where the collector cannot see them, and one of them is the
        # channel's, which holds the consumer's own call object.
        me = weakref.ref(self)

        def ended(_: CallObject) -> None:
            call = me()
            if call is not None:
                call.call_back()

        rpc.add_done_callback(ended)
        rpc.add_done_callback(Ending(self._outgoing, attempt))
        watch_probe(attempt, rpc)
        return self

    def __aiter__(self) -> AsyncIterator[Res]:
        # A fresh generator that nobody else holds: when the consumer drops it, it is closed, and
        # closing it cancels the attempt.
        return self._messages()

    async def read(self) -> Res | EndOfStream:
        """The next message, or EOF."""
        try:
            message = await self._rpc.read()
        except Error as error:
            self._outgoing.mark(error)
            raise
        if message is not EOF:
            self._attempt.opened()
            self._outgoing.received()
        return message

    async def _messages(self) -> AsyncIterator[Res]:
        try:
            async for message in self._rpc:
                # Not at the end: a probe must not hold the breaker for as long as a stream.
                self._attempt.opened()
                self._outgoing.received()
                yield message
        except Error as error:
            self._outgoing.mark(error)
            raise
        finally:
            self.cancel()  # nothing to cancel if it has ended

    def add_done_callback(self, callback: DoneCallback) -> None:
        """Call back when the call has ended, at once if it has."""
        if self.done():
            callback(self)
        else:
            self._callbacks.append(callback)

    def call_back(self) -> None:
        """Tell everybody that the call has ended."""
        callbacks, self._callbacks = self._callbacks, []
        tell(callbacks, self)
