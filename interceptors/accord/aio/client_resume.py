"""A server stream that survives its connection.

To the caller it is one call: it may be iterated, read, cancelled and asked for its status. Behind
it, attempts come and go. It works only while it is read and has no task of its own.
"""

import asyncio
import weakref
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from accord.aio.client_request import Continuation, Outgoing, ended
from accord.aio.client_stream import StreamCall
from accord.client.decisions import Again, Raise, Refuse, Send
from accord.client.request import OnResume, broken, failure_from, read_failure
from accord.client.resume import ResumeTokens


class ResumableCall(StreamCall):
    """The call object of a resumable stream."""

    def __init__(
        self,
        continuation: Continuation,
        request: Any,
        outgoing: Outgoing,
        on_resume: OnResume | None,
    ) -> None:
        super().__init__(outgoing)
        self._call = outgoing.call
        self._continuation = continuation
        self._tokens = ResumeTokens(outgoing.call, request, on_resume)
        self._started = False
        """Whether somebody reads."""
        self._answered = False
        """Whether the attempt in hand has been."""
        self._delivered = False
        """Whether the caller has seen a message."""
        self._cancel_requested = False
        self._error: grpc.aio.AioRpcError | None = None
        loop = asyncio.get_running_loop()
        # Futures rather than events: they say how the call has ended and can be waited for with a
        # timeout without a task.
        self._ended: asyncio.Future[grpc.StatusCode] = loop.create_future()
        self._woken: asyncio.Future[None] = loop.create_future()

    async def open(self, error: grpc.aio.AioRpcError | None = None) -> None:
        """Make an attempt from the last token delivered; `error` is what it resumes after.

        Raises the engine's refusal.
        """
        request = self._tokens.request(again=self._rpc is not None)
        send = self._call.admit()
        if isinstance(send, Refuse):
            self._outgoing.finish(send.code.name)
            raise self._outgoing.refusal(send)
        if error is not None:
            self._tokens.announce(error)
        self._send = send
        self._answered = False
        rpc = self._rpc = await self._sent(send, self._continuation, request)
        me = weakref.ref(self)

        def unread(_: Any) -> None:
            call = me()
            if call is not None and not call._started:
                call._settle(rpc, send)

        rpc.add_done_callback(unread)
        if self._cancel_requested:
            rpc.cancel()

    def _settle(self, rpc: Any, send: Send) -> None:
        """An attempt has ended that nobody reads (yet): report it."""
        found = ended(rpc)
        if found is None:
            return
        code, trailers = found
        if code is grpc.StatusCode.OK:
            self._call.succeeded(send)
        else:
            self._call.recorded(send, read_failure(code, trailers))
        self._outgoing.finish(code.name)

    async def _messages(self) -> AsyncIterator[Any]:
        self._started = True
        try:
            while not self._ended.done():
                try:
                    await self._notice_opening()
                    async for message in self._rpc:
                        self._answer()
                        if self._tokens.wanted(message):
                            self._delivered = True
                            self._outgoing.received()
                            yield message
                    self._tokens.ended()
                    self._answer()
                    self._end(grpc.StatusCode.OK)
                except grpc.aio.AioRpcError as error:
                    await self._resume_after(error)
            if self._error is not None:
                raise self._error
            if self.cancelled():
                raise asyncio.CancelledError
        finally:
            self.cancel()  # nothing to cancel if it has ended

    def _answer(self) -> None:
        """The server has begun to answer the attempt in hand."""
        if not self._answered and self._send is not None:
            self._answered = True
            self._call.succeeded(self._send)

    async def _notice_opening(self) -> None:
        if self._tokens.resumes and self._tokens.accepted(await self._rpc.initial_metadata()):
            self._answer()

    async def _resume_after(self, error: grpc.aio.AioRpcError) -> None:
        """Wait and open the next attempt, or raise `error`."""
        if self._send is None:
            raise self._fail(error)
        step = self._call.failed(
            self._send, failure_from(error, transport=broken(error), started=self._delivered)
        )
        if self._cancel_requested or not isinstance(step, Again):
            exhausted = isinstance(step, Raise) and step.exhausted
            raise self._fail(error, exhausted=exhausted)
        await asyncio.wait((self._woken,), timeout=step.delay)
        if self._cancel_requested:
            raise asyncio.CancelledError
        try:
            await self.open(error if step.resumes else None)
        except grpc.aio.AioRpcError as refusal:  # no time is left for another attempt
            raise self._fail(refusal) from error

    def _fail(
        self, error: grpc.aio.AioRpcError, *, exhausted: bool = False
    ) -> grpc.aio.AioRpcError:
        self._error = self._outgoing.mark(error, exhausted=exhausted)
        self._end(error.code())
        return error

    def _end(self, code: grpc.StatusCode) -> None:
        if self._ended.done():
            return
        self._ended.set_result(code)
        self._outgoing.finish(code.name)
        self.call_back()

    def cancel(self) -> bool:
        """End the call and the attempt in hand; False if it has ended."""
        if self._ended.done():
            return False
        self._cancel_requested = True
        if not self._woken.done():
            self._woken.set_result(None)
        self._rpc.cancel()
        if self._send is not None:
            self._call.released(self._send)
        self._end(grpc.StatusCode.CANCELLED)
        return True

    def cancelled(self) -> bool:
        """Whether the call has ended by cancellation."""
        return self._ended.done() and self._ended.result() is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        """Whether the call has ended."""
        return self._ended.done()

    def time_remaining(self) -> float | None:
        """Seconds left of the whole call, attempts and waits included; None: no bound."""
        return self._call.remaining()

    async def trailing_metadata(self) -> Any:
        """Trailing metadata of the last attempt, once the call has ended."""
        await self.code()
        if self._error is not None:
            return self._error.trailing_metadata()
        return await super().trailing_metadata()

    async def code(self) -> grpc.StatusCode:
        """Status code, once the call has ended."""
        if not self._started and not self._ended.done():
            # Nobody reads, so nothing will be resumed: the attempt's status is the call's.
            code = await super().code()
            if not self._started:
                return code
        return await asyncio.shield(self._ended)

    async def details(self) -> str:
        """Status message, once the call has ended."""
        await self.code()
        if self._error is not None:
            return self._error.details() or ""
        return await super().details()

    async def debug_error_string(self) -> str:
        """What gRPC itself says of the failure."""
        await self.code()
        return self._error.debug_error_string() if self._error is not None else ""
