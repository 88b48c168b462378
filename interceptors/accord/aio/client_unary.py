"""Calls with one request and one response that cost next to nothing.

gRPC runs an interceptor in a task of its own, which costs a tenth of a small call. Here the first
attempt is made at once and is carried on by whoever awaits it; only what comes after a failure, and
what needs more from the start (a cache, hedging, a recording span), takes gRPC's way.
"""

import asyncio
import weakref
from collections.abc import Callable, Generator
from typing import Any, Final

import grpc
import grpc.aio
from grpc.aio._interceptor import UnaryUnaryCallResponse

from accord.aio.client_attempts import Attempts
from accord.aio.client_core_call import direct
from accord.client.decisions import RAISE, Again, Raise, Refuse, Send
from accord.client.method_state import Route
from accord.client.request import failure_from

CANCELLED: Final = grpc.StatusCode.CANCELLED

Active = set["weakref.ref[UnaryCall]"]
"""The calls of a channel that have not ended."""


class UnaryCallable(grpc.aio.UnaryUnaryMultiCallable):  # type: ignore[type-arg]
    """A method with one request and one response."""

    def __init__(
        self, attempts: Attempts, method: str, bare: Any, intercepted: Any, active: "Active"
    ) -> None:
        self.attempts = attempts
        self.bare = direct(bare)
        self.loop = asyncio.get_running_loop()
        self.active = active
        self._method = method
        self._intercepted = intercepted

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        """The call object. What goes wrong is raised when it is awaited."""
        route = self.attempts.quick(self._method) if compression is None else None
        if route is None:
            return self._intercepted(
                request,
                timeout=timeout,
                metadata=metadata,
                credentials=credentials,
                wait_for_ready=wait_for_ready,
                compression=compression,
            )
        details = grpc.aio.ClientCallDetails(
            self._method, timeout, metadata, credentials, wait_for_ready
        )
        return UnaryCall(self, details, request, route)


class UnaryCall(grpc.aio.UnaryUnaryCall):  # type: ignore[type-arg]
    """A call that whoever awaits it carries on; asked for anything else, it gets a task."""

    # Of the class: most calls never set them.
    _driven = _finished = _cancelled = False
    _error: BaseException | None = None
    _task: asyncio.Task[Any] | None = None
    """Carries the call on when nobody awaits it."""
    _rest: asyncio.Task[Any] | None = None
    """Whatever comes after a first attempt that has failed."""
    _waiting: asyncio.Future[None] | None = None
    _callbacks: tuple[Callable[[Any], None], ...] = ()
    _rpc: Any = None
    """The first attempt, then whatever has the response."""

    def __init__(self, made_by: UnaryCallable, details: Any, request: Any, route: Route) -> None:
        self._made_by = made_by
        self._request = request
        self._noted = weakref.ref(self, made_by.active.discard)
        made_by.active.add(self._noted)
        outgoing = self._outgoing = made_by.attempts.begin(details, request, route)
        send = self._send = outgoing.call.admit()
        if isinstance(send, Send):
            try:
                self._rpc = made_by.bare(
                    request,
                    timeout=send.timeout,
                    metadata=outgoing.metadata(send),
                    credentials=details.credentials,
                    wait_for_ready=details.wait_for_ready,
                )
            except BaseException as error:
                outgoing.call.released(send)
                outgoing.finish(type(error).__name__)
                raise

    def __del__(self) -> None:
        if not self._driven and self._rpc is not None and not self._made_by.loop.is_closed():
            # Sent and forgotten: now the loop carries it on. The collector may be in any thread.
            self._made_by.loop.call_soon_threadsafe(self._carry_on)

    async def _continue(self, details: Any, request: Any) -> Any:
        return self._made_by.bare(
            request,
            timeout=details.timeout,
            metadata=details.metadata,
            credentials=details.credentials,
            wait_for_ready=details.wait_for_ready,
        )

    def __await__(self) -> Generator[Any, None, Any]:
        if not self._driven:
            self._driven = True
            return (yield from self._drive().__await__())
        if self._task is not None:
            return (yield from self._task.__await__())
        return (yield from self._shared().__await__())

    async def _shared(self) -> Any:
        """The response, which somebody else awaits too, or has."""
        try:
            await self._settle()
        except asyncio.CancelledError:
            self.cancel()
            raise
        if self._cancelled:
            raise asyncio.CancelledError
        if self._error is not None:
            raise self._error
        return await self._rpc

    async def _drive(self) -> Any:
        """The response. Runs once."""
        outgoing, send = self._outgoing, self._send
        call = outgoing.call
        try:
            if isinstance(send, Refuse):
                refusal = outgoing.refusal(send)
                return await self._recover(refusal, RAISE)
            try:
                response = await self._rpc
            except grpc.aio.AioRpcError as error:
                step = call.failed(send, failure_from(error))
                if isinstance(step, Raise):
                    outgoing.mark(error, exhausted=step.exhausted)
                return await self._recover(error, step)
            except BaseException:
                call.released(send)
                raise
            call.succeeded(send)
            if outgoing.observed is not None:
                outgoing.finish("OK")
            return response
        except asyncio.CancelledError:
            self._cancelled = True
            outgoing.finish("CANCELLED")
            raise
        except BaseException as error:
            self._error = error
            outgoing.finish(type(error).__name__)
            raise
        finally:
            self._end()

    async def _recover(self, error: grpc.aio.AioRpcError, step: Again | Raise) -> Any:
        attempts, outgoing = self._made_by.attempts, self._outgoing
        if isinstance(step, Raise) and not attempts.has_fallback(outgoing):
            outgoing.finish(error.code().name)
            raise error
        self._rest = asyncio.ensure_future(
            attempts.recover(self._continue, outgoing, self._request, error, step)
        )
        found = await self._rest
        if not isinstance(found, grpc.aio.UnaryUnaryCall):
            found = UnaryUnaryCallResponse(found)
        self._rpc = found
        return await found

    def _end(self) -> None:
        self._finished = True
        self._made_by.active.discard(self._noted)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
        if self._callbacks:
            callbacks, self._callbacks = self._callbacks, ()
            for callback in callbacks:
                callback(self)

    def _carry_on(self) -> None:
        """See that the call ends although nobody awaits it."""
        if not self._driven:
            self._driven = True
            self._task = asyncio.ensure_future(self._drive())
            self._task.add_done_callback(_retrieve)

    async def _settle(self) -> None:
        """Wait until the call has ended."""
        if self._finished:
            return
        self._carry_on()
        if self._waiting is None:
            self._waiting = asyncio.get_running_loop().create_future()
        await asyncio.wait((self._waiting,))  # not the future itself: others wait for it too

    def cancel(self) -> bool:
        """End the call; False if it has ended."""
        if self._finished:
            return False
        if self._rest is not None:
            return self._rest.cancel()
        if self._rpc is not None:
            self._rpc.cancel()
        if self._task is not None:
            self._task.cancel()
        elif not self._driven:
            self._driven = self._cancelled = True
            if isinstance(self._send, Send):
                self._outgoing.call.released(self._send)
            self._outgoing.finish("CANCELLED")
            self._end()
        return True

    def cancelled(self) -> bool:
        """Whether the call has ended by cancellation."""
        return self._finished and (self._cancelled or _code_of(self._error) is CANCELLED)

    def done(self) -> bool:
        """Whether the call has ended."""
        if not self._finished and (self._rpc is None or self._rpc.done()):
            self._carry_on()
        return self._finished

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call back when the call has ended, at once if it has."""
        if self._finished:
            callback(self)
        else:
            self._callbacks += (callback,)
            self._carry_on()

    def time_remaining(self) -> float | None:
        """Seconds left of the whole call, attempts and waits included."""
        return self._outgoing.call.remaining()

    async def initial_metadata(self) -> Any:
        """Initial metadata of the last attempt, once the call has ended."""
        await self._settle()
        if isinstance(self._error, grpc.aio.AioRpcError):
            return self._error.initial_metadata()
        return None if self._cancelled else await self._rpc.initial_metadata()

    async def trailing_metadata(self) -> Any:
        """Trailing metadata of the last attempt, once the call has ended."""
        await self._settle()
        if isinstance(self._error, grpc.aio.AioRpcError):
            return self._error.trailing_metadata()
        return None if self._cancelled else await self._rpc.trailing_metadata()

    async def code(self) -> grpc.StatusCode:
        """Status code, once the call has ended."""
        await self._settle()
        if self._cancelled:
            return CANCELLED
        code: grpc.StatusCode = _code_of(self._error) or await self._rpc.code()
        return code

    async def details(self) -> Any:
        """Status message, once the call has ended."""
        await self._settle()
        if isinstance(self._error, grpc.aio.AioRpcError):
            return self._error.details()
        return "Locally cancelled by application!" if self._cancelled else await self._rpc.details()

    async def debug_error_string(self) -> Any:
        """What gRPC itself says of the failure."""
        await self._settle()
        if isinstance(self._error, grpc.aio.AioRpcError):
            return self._error.debug_error_string()
        return "" if self._cancelled else await self._rpc.debug_error_string()

    async def wait_for_connection(self) -> None:
        """Wait until the first attempt has ended: gRPC's own does no less."""
        if self._rpc is not None:
            await self._rpc.wait_for_connection()


def _code_of(error: BaseException | None) -> grpc.StatusCode | None:
    return error.code() if isinstance(error, grpc.aio.AioRpcError) else None


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Nobody need await the task: its failure is what `code` says."""
    if not task.cancelled():
        task.exception()
