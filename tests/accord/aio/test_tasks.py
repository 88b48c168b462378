"""What only calls of `grpc.aio` have: tasks that are cancelled, iterators that are closed.

A thread that waits for a call cannot be cancelled, and an iterator of gRPC's with threads is the
call itself.
"""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

import accord
from tests.accord.kit import Message, echo, eventually
from tests.accord.test_arities import METHODS, Work, finish, start


@pytest.mark.parametrize("method", METHODS)
async def test_cancelled_task(method: str) -> None:
    """Cancelling the task that awaits a call cancels the call on the server."""
    work = Work()
    async with echo(work.handlers()) as stub:
        waiting = asyncio.ensure_future(finish(start(stub, method, "hold"), method))
        await eventually(lambda: work.started == 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await eventually(lambda: work.cancelled == 1)


async def test_closed_stream() -> None:
    """Closing the iterator of a resumable stream early cancels it on the server, at once."""
    work = Work()

    async def endless(request: Any, context: Any) -> AsyncIterator[Any]:
        yield Message(text="first", sequence=1)
        await work.hold()

    async with echo({"Watch": endless}) as stub:
        gc.disable()
        try:
            call = stub.Watch(Message())
            async with aclosing(aiter(call)) as messages:
                async for _ in messages:
                    await eventually(lambda: work.started == 1)
                    break
            await eventually(lambda: work.cancelled == 1)
        finally:
            gc.enable()


@pytest.mark.parametrize("method", ["Retried", "Hedged", "Cached", "Keyed"])
async def test_wait_for(method: str) -> None:
    """`wait_for` around a call that policies handle ends in time and reaches the server."""
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(request: Any, context: Any) -> Any:
        started.set()
        try:
            await asyncio.sleep(5)
        finally:
            cancelled.set()

    async with echo({method: handler}, idempotency="handler") as stub:
        call = getattr(stub, method)(Message(), metadata=accord.idempotency_key("k"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call, 0.2)
        assert started.is_set()
        await asyncio.wait_for(cancelled.wait(), 20)
