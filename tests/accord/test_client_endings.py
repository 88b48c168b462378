"""However a call ends, it leaves neither a task nor a breaker's probe behind."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import duration_pb2

import accord
from accord.ops.v1 import mesh_pb2
from accord.policies.breaker import State
from accord.v1 import policy_pb2
from tests.accord.kit import Message, Stub, collect, path, serving

SHORT = duration_pb2.Duration(nanos=1_000_000)
FRAGILE = policy_pb2.Breaker(consecutive_failures=1, open=SHORT, max_open=SHORT)
ENDINGS = ["ok", "refuse", "deadline", "cancel", "server cancels", "abandoned", "never read"]


async def _act(text: str) -> None:
    if text == "down":
        raise accord.Unavailable("DOWN")
    if text == "refuse":
        raise accord.NotFound("order", "1")
    if text == "server cancels":
        raise asyncio.CancelledError
    if text not in ("ok", "never read"):
        await asyncio.sleep(5)


async def _unary(request: Any, context: Any) -> Any:
    await _act(request.text)
    return request


async def _stream(request: Any, context: Any) -> AsyncIterator[Any]:
    await _act(request.text)
    yield request


async def _upload(requests: Any, context: Any) -> Any:
    async for request in requests:
        await _act(request.text)
    return Message()


async def _bidi(requests: Any, context: Any) -> AsyncIterator[Any]:
    async for request in requests:
        await _act(request.text)
        yield request


HANDLERS = {"Unary": _unary, "ServerStream": _stream, "ClientStream": _upload, "Bidi": _bidi}


def _start(stub: Stub, method: str, text: str, **options: Any) -> Any:
    request = Message(text=text)
    streamed = method in ("ClientStream", "Bidi")
    return getattr(stub, method)(iter([request]) if streamed else request, **options)


async def _finish(call: Any, method: str) -> None:
    with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
        await (call if method in ("Unary", "ClientStream") else collect(call))


async def _end(stub: Stub, method: str, ending: str) -> None:
    call = _start(stub, method, ending, timeout=0.1 if ending == "deadline" else 2)
    if ending in ("abandoned", "never read"):
        await asyncio.sleep(0.03)
        del call
        return
    if ending == "cancel":
        asyncio.get_running_loop().call_later(0.03, call.cancel)
    await _finish(call, method)


@pytest.mark.parametrize("method", HANDLERS)
@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_probe_is_always_given_back(method: str, ending: str) -> None:
    """Whatever the arity and the ending of a half-open breaker's probe, another one follows it."""
    mesh = accord.Mesh("caller")
    override = mesh_pb2.Override(policy=policy_pb2.MethodPolicy(breaker=FRAGILE))
    mesh.control.overrides.set(path(method), override)
    async with serving(accord.Mesh("callee"), HANDLERS) as address:
        stub = Stub(mesh.channel(address))
        await _finish(_start(stub, method, "down"), method)
        (route,) = mesh.snapshot().routes
        assert route.breaker is not None
        assert route.breaker.opened == 1
        await asyncio.sleep(0.01)  # longer than it is open
        await _end(stub, method, ending)
        async with asyncio.timeout(3):
            while mesh.snapshot().routes[0].breaker.state is not State.CLOSED:  # type: ignore[union-attr]
                gc.collect()
                await asyncio.sleep(0.01)
                await _finish(_start(stub, method, "ok"), method)
        await mesh.close()
