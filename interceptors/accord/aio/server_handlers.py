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
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from contextlib import aclosing, suppress
from typing import Any, Final

from accord.aio.server_context import Requests, ServerContext, SyncContext

Single = Callable[[Any, ServerContext], Awaitable[Any]]
"""Handles a call and returns its response."""

Many = Callable[[Any, ServerContext], Awaitable[None]]
"""Handles a call and writes its responses to the context."""

_END: Final = object()


def single(handler: Callable[..., Any], pool: Executor, *, streamed: bool) -> Single:
    """A handler with one response, whatever its shape; a function runs in `pool`.

    `streamed`: requests are in the context.
    """
    if inspect.iscoroutinefunction(handler):
        if not streamed:
            return handler

        async def in_loop(request: Any, context: ServerContext) -> Any:
            return await handler(_incoming(request, context), context)

        return in_loop

    async def in_thread(request: Any, context: ServerContext) -> Any:
        thread = _Thread(pool, context)
        return await thread.run(handler, thread.incoming(request), thread.context)

    return in_thread


def many(handler: Callable[..., Any], pool: Executor) -> Many:
    """A handler with a stream of responses, whatever its shape. None as request: as above."""
    if inspect.isasyncgenfunction(handler):

        async def generate(request: Any, context: ServerContext) -> None:
            # Closed here and now, not whenever the collector finds it: it may hold resources.
            async with aclosing(handler(_incoming(request, context), context)) as responses:
                async for response in responses:
                    await context.write(response)

        return generate

    if inspect.iscoroutinefunction(handler):

        async def write(request: Any, context: ServerContext) -> None:
            await handler(_incoming(request, context), context)

        return write

    async def iterate(request: Any, context: ServerContext) -> None:
        thread = _Thread(pool, context)
        found = await thread.run(handler, thread.incoming(request), thread.context)
        responses = iter(found)
        try:
            while (response := await thread.run(next, responses, _END)) is not _END:
                await context.write(response)
        finally:
            thread.context.end()
            # Here and now, not whenever the collector finds it: it may hold resources.
            close = getattr(responses, "close", None)
            if close is not None:
                await thread.run(close, needed=True)

    return iterate


def generator(behaviour: Callable[..., Awaitable[None]]) -> Callable[..., AsyncIterator[Any]]:
    """A behaviour that writes its responses, in the shape in which everybody knows how to call it.

    opentelemetry-instrumentation-grpc, which may come before us, only iterates.
    """

    async def nothing(requests: Any, context: Any) -> AsyncIterator[Any]:
        await behaviour(requests, context)
        return
        yield

    return nothing


def _incoming(request: Any, context: ServerContext) -> Any:
    return Requests(context) if request is None else request


class _Thread:
    """Where the functions of one call run: in threads of a pool, one after the other."""

    def __init__(self, pool: Executor, context: ServerContext) -> None:
        self._pool = pool
        self._values = contextvars.copy_context()
        self.context = SyncContext(context, asyncio.get_running_loop())

    def incoming(self, request: Any) -> Any:
        """What the handler is given as its request."""
        return self.context.requests() if request is None else request

    async def run(self, function: Callable[..., Any], *arguments: Any, needed: bool = False) -> Any:
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
