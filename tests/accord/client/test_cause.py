"""An attempt that is not made says why: the error of the attempt before is its cause."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import grpc
import grpc.aio
import pytest

import accord
from accord.client.request import MAX_ATTEMPTS_KEY
from tests.accord.kit import Message, Stub, eventually, serving

ONCE: Final = ((MAX_ATTEMPTS_KEY, "1"),)


def threads(channel: Callable[[accord.Mesh, str], grpc.Channel], *, future: bool = False) -> Any:
    """A call of gRPC with threads, as one that is awaited."""

    async def call(mesh: accord.Mesh, address: str, **options: Any) -> Any:
        method = Stub(channel(mesh, address)).Frail
        if future:
            return await asyncio.to_thread(method.future(Message(), **options).result)
        return await asyncio.to_thread(method, Message(), **options)

    return call


async def aio(mesh: accord.Mesh, address: str, **options: Any) -> Any:
    return await Stub(mesh.channel(address)).Frail(Message(), **options)


async def aio_own(mesh: accord.Mesh, address: str, **options: Any) -> Any:
    interceptors = mesh.client_interceptors(address)
    async with grpc.aio.insecure_channel(address, interceptors=interceptors) as channel:
        return await Stub(channel).Frail(Message(), **options)


def sync_own(mesh: accord.Mesh, address: str) -> grpc.Channel:
    interceptors = mesh.sync.client_interceptors(address)
    return grpc.intercept_channel(grpc.insecure_channel(address), *interceptors)


CALLS: Final = {
    "aio": aio,
    "aio, own channel": aio_own,
    "sync": threads(lambda mesh, address: mesh.sync.channel(address)),
    "sync, future": threads(lambda mesh, address: mesh.sync.channel(address), future=True),
    "sync, own channel": threads(sync_own),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_circuit_opens_between_two_attempts(call: Callable[..., Any]) -> None:
    """The caller sees that the circuit is open, and what had failed before."""
    calls = 0

    async def handler(request: Any, context: Any) -> Any:
        nonlocal calls
        calls += 1
        raise accord.Unavailable("DOWN", 0.5 if calls == 1 else None)

    mesh = accord.Mesh("caller")
    async with serving(accord.Mesh("callee"), {"Frail": handler}) as address:
        waiting = asyncio.create_task(call(mesh, address))
        await eventually(lambda: calls == 1)
        for _ in range(2):  # others, while it waits for its second attempt
            with pytest.raises(grpc.RpcError):
                await aio(mesh, address, metadata=ONCE)
        with pytest.raises(grpc.RpcError) as caught:
            await waiting
        await mesh.close()
    refusal, cause = accord.failure_of(caught.value), caught.value.__cause__
    assert refusal is not None
    assert refusal.reason == "CIRCUIT_OPEN"
    assert cause is not None
    before = accord.failure_of(cause)
    assert before is not None
    assert before.reason == "DOWN"
