"""A server stream that survives its connection.

To the caller it is one call: it may be iterated, read, cancelled and asked for its status. Behind
it, attempts come and go. It works only while it is read and has no task of its own.
"""

import asyncio
import weakref
from collections.abc import AsyncIterator
from typing import Self

import grpc
import grpc.aio

from accord.aio import EOF
from accord.aio.client_call import EndedStatus, ended, watch_probe
from accord.aio.client_stream import StreamCall
from accord.aio.client_types import (
    AioOutgoing,
    CallObject,
    CallStatus,
    EndOfStream,
    Error,
    Responses,
    Start,
)
from accord.client.call import Attempt
from accord.client.request import OnResume
from accord.client.resume import ResumeTokens
from accord.client.types import Raise, Req, Res


class ResumableCall(StreamCall[Req, Res]):
    """The call object of a stream that is tried again, or resumed."""

    def __init__(
        self,
        start: Start[Req, Responses[Res]],
        request: Req,
        outgoing: AioOutgoing[Req, Res],
        on_resume: OnResume | None,
    ) -> None:
        super().__init__(outgoing)
        self._start = start
        self._reader: AsyncIterator[Res] | None = None
        self._tokens = ResumeTokens(outgoing.call, request, on_resume)
        self._reading = False
        """Whether somebody reads."""
        self._cancel_requested = False
        self._error: Error | None = None
        loop = asyncio.get_running_loop()
        # Futures rather than events: they say how the call has ended and can be waited for with a
        # timeout without a task.
        self._ended: asyncio.Future[grpc.StatusCode] = loop.create_future()
        self._woken: asyncio.Future[None] = loop.create_future()

    async def _open(self, after: Error, *, resumes: bool) -> None:
        """Make an attempt that follows the error `after`, behind the last token delivered.

        Raises the engine's refusal.
        """
        request = self._tokens.request(again=True)
        with self._outgoing.sending() as attempt:
            if resumes:
                self._tokens.announce(after)
            self._attempt = attempt
            rpc = await self._start(self._outgoing.details_of(attempt), request)
        self.began(attempt, rpc)

    def began(self, attempt: Attempt, rpc: Responses[Res]) -> Self:
        """An attempt is made: this, which stands for it."""
        self._attempt, self._rpc = attempt, rpc
        me = weakref.ref(self)

        def unread(_: CallObject) -> None:
            call, found = me(), ended(rpc)
            if call is not None and not call._reading and found is not None:
                call._outgoing.ended(attempt, *found)

        rpc.add_done_callback(unread)
        watch_probe(attempt, rpc)
        if self._cancel_requested:
            rpc.cancel()
        return self

    async def read(self) -> Res | EndOfStream:
        """The next message, or EOF."""
        if self._reader is None:
            self._reader = self._messages()
        try:
            return await anext(self._reader)
        except StopAsyncIteration:
            end: EndOfStream = EOF
            return end

    async def _messages(self) -> AsyncIterator[Res]:
        self._reading = True
        try:
            while not self._ended.done():
                try:
                    await self._notice_opening()
                    async for message in self._rpc:
                        self._attempt.opened()
                        if self._tokens.wanted(message):
                            self._outgoing.received()
                            yield message
                    self._end(grpc.StatusCode.OK)
                except Error as error:
                    await self._resume_after(error)
            if self._error is not None:
                raise self._error
            if self.cancelled():
                raise asyncio.CancelledError
        finally:
            self.cancel()  # nothing to cancel if it has ended

    async def _notice_opening(self) -> None:
        if self._tokens.resumes and self._tokens.accepted(await self._rpc.initial_metadata()):
            self._attempt.opened()

    async def _resume_after(self, error: Error) -> None:
        """Wait and open the next attempt, or raise `error`."""
        step = self._attempt.failed(self._tokens.failure(error))
        if isinstance(step, Raise) or self._cancel_requested:
            raise self._fail(error, exhausted=isinstance(step, Raise) and step.exhausted)
        await asyncio.wait((self._woken,), timeout=step.delay)
        if self._cancel_requested:
            raise asyncio.CancelledError
        try:
            await self._open(error, resumes=step.resumes)
        except Error as refusal:  # no time is left for another attempt
            raise self._fail(refusal) from error

    def _fail(self, error: Error, *, exhausted: bool = False) -> Error:
        self._error = self._outgoing.mark(error, exhausted=exhausted)
        self._end(error.code())
        return error

    def _end(self, code: grpc.StatusCode) -> None:
        if self._ended.done():
            return
        self._ended.set_result(code)
        if code is grpc.StatusCode.OK:
            self._attempt.answered()
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
        self._attempt.released()
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
        return self._outgoing.call.remaining()

    async def _status(self) -> CallStatus:
        await self.code()
        return self._rpc if self._error is None else EndedStatus(self._error)

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """What the server sent first, of the attempt in hand."""
        return await self._rpc.initial_metadata()

    async def code(self) -> grpc.StatusCode:
        """Status code, once the call has ended."""
        if not self._reading and not self._ended.done():
            # Nobody reads, so nothing will be resumed: the attempt's status is the call's.
            code = await self._rpc.code()
            if not self._reading:
                return code
        return await asyncio.shield(self._ended)

    async def debug_error_string(self) -> str:
        """What gRPC itself says of the failure."""
        await self.code()
        return self._error.debug_error_string() if self._error is not None else ""
