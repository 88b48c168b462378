"""The shapes in which grpc.aio accepts handlers, made one.

A unary response comes from a coroutine or a function; a stream of responses from an asynchronous
generator, from a coroutine that writes by itself (gRPC's own health service does), or from a
function that returns an iterator.

Functions run in threads, which cannot be interrupted: such a call that is cancelled, or takes
longer than its contract allows, is over when its function has returned.
"""

import asyncio
import contextvars
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Executor
from contextlib import aclosing, suppress
from typing import Generic, Protocol, TypeVar, cast

from accord.aio import EOF
from accord.aio.server_context import GrpcContext, Requests, ServerContext, SyncContext
from accord.server import types
from accord.server.types import Req, Res

T = TypeVar("T")
P = TypeVar("P")

OneResponse = Callable[..., Awaitable[Res]] | Callable[..., Res]
"""A handler with one response: a coroutine function or a function of request and context.

Its request is a message, or an iterator of messages; a coroutine has an asynchronous one.
"""

ManyResponses = (
    Callable[..., AsyncGenerator[Res, None]]
    | Callable[..., Awaitable[None]]
    | Callable[..., Iterator[Res]]
)
"""A handler with a stream of responses, in any shape."""

Handle = Callable[[Req | None, ServerContext[Req, Res]], Awaitable[Res]]
"""Handles a call and returns its response. No request: requests are in the context."""

HandleMany = Callable[[Req | None, ServerContext[Req, Res]], Awaitable[None]]
"""Handles a call and writes its responses to the context."""

Behaviour = Callable[[AsyncIterator[bytes], GrpcContext], Awaitable[bytes]]
"""What gRPC calls: a handler of bytes. What it returns counts where there is one response."""


class MethodHandler(types.MethodHandler[Req, Res], Protocol):
    """One RPC's handler for grpc.aio."""

    unary_unary: OneResponse[Res]
    stream_unary: OneResponse[Res]
    unary_stream: ManyResponses[Res]
    stream_stream: ManyResponses[Res]


def single(handler: OneResponse[Res], pool: Executor, *, streamed: bool) -> Handle[Req, Res]:
    """A handler with one response, whatever its shape; a function runs in `pool`.

    `streamed`: requests are in the context.
    """
    if inspect.iscoroutinefunction(handler):
        if not streamed:
            return handler

        async def in_loop(request: Req | None, context: ServerContext[Req, Res]) -> Res:
            response: Res = await handler(_incoming(request, context), context)
            return response

        return in_loop
    # What is no coroutine function returns the response itself; the check does not say so.
    function = cast("Callable[..., Res]", handler)

    async def in_thread(request: Req | None, context: ServerContext[Req, Res]) -> Res:
        thread = _Thread(pool, context)
        return await thread.run(function, thread.incoming(request), thread.context)

    return in_thread


def many(handler: ManyResponses[Res], pool: Executor) -> HandleMany[Req, Res]:
    """A handler with a stream of responses, whatever its shape. None as request: as above."""
    if inspect.isasyncgenfunction(handler):

        async def generate(request: Req | None, context: ServerContext[Req, Res]) -> None:
            # Closed here and now, not whenever the collector finds it: it may hold resources.
            async with aclosing(handler(_incoming(request, context), context)) as responses:
                async for response in responses:
                    await context.write(response)

        return generate

    if inspect.iscoroutinefunction(handler):

        async def write(request: Req | None, context: ServerContext[Req, Res]) -> None:
            await handler(_incoming(request, context), context)

        return write
    # As in `single`.
    function = cast("Callable[..., Iterator[Res]]", handler)

    async def iterate(request: Req | None, context: ServerContext[Req, Res]) -> None:
        thread = _Thread(pool, context)
        found = await thread.run(function, thread.incoming(request), thread.context)
        responses = iter(found)
        try:
            while (response := await thread.run(next, responses, EOF)) is not EOF:
                await context.write(response)
        finally:
            thread.context.end()
            # Here and now, not whenever the collector finds it: it may hold resources.
            close = getattr(responses, "close", None)
            if close is not None:
                await thread.run(close, needed=True)

    return iterate


def generator(
    behaviour: Behaviour,
) -> Callable[[AsyncIterator[bytes], GrpcContext], AsyncIterator[bytes]]:
    """A behaviour that writes its responses, in the shape in which everybody knows how to call it.

    opentelemetry-instrumentation-grpc, which may come before us, only iterates.
    """

    async def nothing(requests: AsyncIterator[bytes], context: GrpcContext) -> AsyncIterator[bytes]:
        await behaviour(requests, context)
        return
        yield

    return nothing


def _incoming(request: Req | None, context: ServerContext[Req, Res]) -> Req | Requests[Req]:
    return Requests(context) if request is None else request


class _Thread(Generic[Req, Res]):
    """Where the functions of one call run: in threads of a pool, one after the other."""

    def __init__(self, pool: Executor, context: ServerContext[Req, Res]) -> None:
        self._pool = pool
        self._values = contextvars.copy_context()
        self.context = SyncContext(context, asyncio.get_running_loop())

    def incoming(self, request: Req | None) -> Req | Iterator[Req]:
        """What the handler is given as its request."""
        return self.context.requests() if request is None else request

    async def run(self, function: Callable[..., T], *arguments: P, needed: bool = False) -> T:
        """What a function returns. It has ended when this has, cancelled or not.

        `needed`: it is run even if the call is cancelled before it has begun.
        """
        work = self._pool.submit(self._values.run, function, *arguments)
        running = asyncio.wrap_future(work)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            self.context.end()
            if not needed:
                work.cancel()  # if it has not begun
            # A place or an idempotency key that it works under is not free before it has ended.
            while not running.done():
                with suppress(Exception, asyncio.CancelledError):
                    await asyncio.shield(running)
            raise
