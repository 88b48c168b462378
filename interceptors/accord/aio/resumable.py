"""A server stream that survives its connection.

To the caller it is one call: it may be iterated, read, cancelled and asked for its status. Behind
it, attempts come and go. It works only while it is read and has no task of its own.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import grpc.aio

from accord import engine, errors, telemetry
from accord.aio.client import Continuation, OnResume, Prepared
from accord.aio.stream import StreamCall
from accord.policies.resume import Resumption

OPEN_KEY: Final = "accord-stream"
"""Initial metadata by which a server says that it has accepted a resumable stream."""


class ResumableCall(StreamCall):
    """The call object of a resumable stream."""

    def __init__(
        self,
        continuation: Continuation,
        request: Any,
        call: engine.Call,
        resumption: Resumption,
        prepared: Prepared,
        on_resume: OnResume | None,
    ) -> None:
        super().__init__(prepared)
        assert prepared.policy.resume is not None
        self._fields = prepared.policy.resume
        self._continuation = continuation
        self._request = request
        self._call = call
        self._resumption = resumption
        self._on_resume = on_resume
        self._started = False
        self._cancel_requested = False
        self._error: grpc.aio.AioRpcError | None = None
        loop = asyncio.get_running_loop()
        # Futures rather than events: they say how the call has ended and can be waited for with a
        # timeout without a task.
        self._ended: asyncio.Future[grpc.StatusCode] = loop.create_future()
        self._woken: asyncio.Future[None] = loop.create_future()

    async def open(self, error: grpc.aio.AioRpcError | None = None) -> None:
        """Make an attempt from the last token delivered; `error` ended the one before.

        Raises the engine's refusal.
        """
        request = self._request
        if self._rpc is not None:
            request = type(self._request)()
            request.CopyFrom(self._request)
            setattr(request, self._fields.request_field, self._resumption.token)
        details = self._prepared.attempt(self._call.admit())
        if error is not None:
            self._announce(error)
        self._rpc = await self._continuation(details, request)
        if self._cancel_requested:
            self._rpc.cancel()

    async def _messages(self) -> AsyncIterator[Any]:
        self._started = True
        try:
            while not self._ended.done():
                try:
                    await self._notice_opening()
                    async for message in self._rpc:
                        if self._wanted(message):
                            yield message
                    self._resumption.ended()
                    self._end(grpc.StatusCode.OK)
                except grpc.aio.AioRpcError as error:
                    await self._resume_after(error)
            if self._error is not None:
                raise self._error
            if self.cancelled():
                raise asyncio.CancelledError
        finally:
            self.cancel()  # nothing to cancel if it has ended

    async def _notice_opening(self) -> None:
        for key, _ in await self._rpc.initial_metadata() or ():
            if key == OPEN_KEY:
                self._resumption.opened()

    def _wanted(self, message: Any) -> bool:
        token = int(getattr(message, self._fields.response_field))
        if token == 0 and message.ByteSize() == 0:
            return False  # a keepalive: proof of life for the transport, nothing for the caller
        return self._resumption.delivered(token)

    async def _resume_after(self, error: grpc.aio.AioRpcError) -> None:
        """Wait and open the next attempt, or raise `error`."""
        failure = errors.ServiceError.from_rpc(error)
        step = self._call.failed(
            errors.code_of(error), reason=failure.reason, transport=_broken(error)
        )
        if self._cancel_requested or not isinstance(step, engine.Again):
            raise self._fail(error)
        await asyncio.wait((self._woken,), timeout=step.delay)
        if self._cancel_requested:
            raise asyncio.CancelledError
        try:
            await self.open(error)
        except grpc.aio.AioRpcError as refusal:  # no time is left for another attempt
            raise self._fail(refusal) from error

    def _announce(self, error: grpc.aio.AioRpcError) -> None:
        if self._on_resume is None:
            return
        try:
            self._on_resume(self._prepared.policy.method, self._resumption.attempt, error)
        except Exception as problem:
            telemetry.log(logging.ERROR, "on_resume failed", error=problem)

    def _fail(self, error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        self._error = self._prepared.mark(error)
        self._end(error.code())
        return error

    def _end(self, code: grpc.StatusCode) -> None:
        if self._ended.done():
            return
        self._ended.set_result(code)
        self._prepared.finish(code.name)
        self.call_back()

    def cancel(self) -> bool:
        """End the call and the attempt in hand; False if it has ended."""
        if self._ended.done():
            return False
        self._cancel_requested = True
        if not self._woken.done():
            self._woken.set_result(None)
        self._rpc.cancel()
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


def _broken(error: grpc.aio.AioRpcError) -> bool:
    """Whether the transport broke below the status: nobody's answer, so nobody's decision."""
    text = error.details() or ""
    return (error.code() is grpc.StatusCode.INTERNAL and "RST_STREAM" in text) or (
        error.code() is grpc.StatusCode.UNKNOWN and text == "Stream removed"
    )
