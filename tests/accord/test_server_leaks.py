"""No permit is lost, however a call ends: 4 arities x 8 endings."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio
import pytest

import accord
from tests.accord.kit import Message, Stub, collect, eventually, serving

ARITIES = ["Unary", "ServerStream", "ClientStream", "Bidi"]
ENDINGS = [
    "ok",
    "error",
    "deadline",
    "caller cancels",
    "server cancels",
    "abandoned",
    "never read",
    "connection lost",
]


class Work:
    """Handlers of all arities that end as they are told."""

    def __init__(self, ending: str) -> None:
        self._ending = ending
        self.started = asyncio.Event()

    async def _end(self) -> None:
        self.started.set()
        if self._ending == "error":
            raise accord.NotFound("thing", "x")
        if self._ending == "server cancels":
            raise asyncio.CancelledError
        if self._ending != "ok":
            await asyncio.sleep(60)

    def handlers(self) -> dict[str, Any]:
        async def unary(request: Any, context: Any) -> Any:
            await self._end()
            return request

        async def server_stream(request: Any, context: Any) -> AsyncIterator[Any]:
            yield request
            await self._end()

        async def client_stream(requests: Any, context: Any) -> Any:
            async for _ in requests:
                break
            await self._end()
            return Message()

        async def bidi(requests: Any, context: Any) -> AsyncIterator[Any]:
            async for request in requests:
                yield request
                break
            await self._end()

        return {
            "Unary": unary,
            "ServerStream": server_stream,
            "ClientStream": client_stream,
            "Bidi": bidi,
        }


async def _requests() -> AsyncIterator[Any]:
    yield Message(text="a")


async def _drive(stub: Stub, method: str, ending: str, work: Work) -> None:
    request = Message() if method in ("Unary", "ServerStream") else _requests()
    call = getattr(stub, method)(request, timeout=0.2 if ending == "deadline" else 5)
    streams = method in ("ServerStream", "Bidi")
    if ending in ("ok", "error", "deadline", "server cancels"):
        with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
            await (collect(call) if streams else call)
        return
    await asyncio.wait_for(work.started.wait(), 3)
    if ending == "caller cancels":
        call.cancel()
    elif ending == "abandoned" and streams:
        async for _ in call:
            break
        call.cancel()  # what the library's own client does by itself
    elif ending in ("abandoned", "never read"):
        call.cancel()
    del call
    gc.collect(0)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("method", ARITIES)
async def test_permits_are_given_back(method: str, ending: str) -> None:
    """After five calls that end so, nothing is in flight and nothing waits."""
    work, mesh = Work(ending), accord.Mesh("callee")
    async with serving(mesh, work.handlers()) as address:
        channel = grpc.aio.insecure_channel(address)
        calls = [
            asyncio.ensure_future(_drive(Stub(channel), method, ending, work)) for _ in range(5)
        ]
        await asyncio.gather(*calls)
        if ending != "connection lost":
            await eventually(lambda: _idle(mesh))
        await channel.close(None)  # "connection lost": with everything still in flight
        await eventually(lambda: _idle(mesh))


def _idle(mesh: accord.Mesh) -> bool:
    calls, streams = mesh.control.calls.snapshot(), mesh.control.streams.snapshot()
    return not (calls.in_flight or calls.queued or streams.in_flight)
