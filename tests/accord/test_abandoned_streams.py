"""A stream that nobody reads any more ends at once: the server need not wait for the collector."""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import accord
from tests.accord.kit import Message, Stub, eventually, serving


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is only found by the collector is not found."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("driver", ["aio", "sync"])
@pytest.mark.parametrize("method", ["ServerStream", "RetriedStream", "Watch", "Bidi"])
async def test_break_ends_a_stream(driver: str, method: str) -> None:
    """A loop that is left, over a call that nobody else holds, cancels it for its server."""
    ended = 0

    async def forever(request: Any, context: Any) -> AsyncIterator[Any]:
        nonlocal ended
        sequence = 0
        try:
            while True:
                sequence += 1
                yield Message(sequence=sequence)
                await asyncio.sleep(0.01)
        finally:
            ended += 1

    mesh = accord.Mesh("caller")
    async with serving(accord.Mesh("callee"), {method: forever}) as address:
        stub = Stub(mesh.channel(address) if driver == "aio" else mesh.sync.channel(address))
        request = iter([Message()]) if method == "Bidi" else Message()

        def blocking() -> None:
            for _ in getattr(stub, method)(request):
                break

        if driver == "aio":
            async for _ in getattr(stub, method)(request):
                break
        else:
            await asyncio.to_thread(blocking)
        await eventually(lambda: ended == 1, 10)
        await mesh.close()
