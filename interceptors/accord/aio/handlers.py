"""The shapes in which grpc.aio accepts handlers, made one.

A unary response comes from a coroutine or a function; a stream of responses from an asynchronous
generator, from a coroutine that writes by itself (gRPC's own health service does), or from a
function that returns an iterator.
"""

import asyncio
import contextvars
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from contextlib import aclosing
from typing import Any, Final

from accord.aio.servicer import Requests, ServerContext, SyncContext

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
        loop = asyncio.get_running_loop()
        sync = SyncContext(context, loop)
        found = sync.requests() if request is None else request
        values = contextvars.copy_context()
        return await loop.run_in_executor(pool, values.run, handler, found, sync)

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
        loop = asyncio.get_running_loop()
        sync = SyncContext(context, loop)
        found = sync.requests() if request is None else request
        values = contextvars.copy_context()
        responses = iter(await loop.run_in_executor(pool, values.run, handler, found, sync))

        def advance() -> Any:
            return next(responses, _END)

        while True:
            response = await loop.run_in_executor(pool, values.run, advance)
            if response is _END:
                return
            await context.write(response)

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
