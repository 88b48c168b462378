"""A server of a mesh outlives what ends a bare one."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
from grpc._cython import cygrpc

import accord
from accord.aio import server_core
from tests.accord.kit import SERVICE, Handlers, Message, Stub, handlers, serving
from tests.accord.server_kit import bare
from tests.support.http2 import ask

CANCELLED = grpc.StatusCode.CANCELLED.value[0]
BAD = b"/\xff"
"""A path that is no UTF-8."""


async def echo(request: Message, context: object) -> Message:
    return request


async def ask_badly(address: str, times: int = 1) -> None:
    """So many calls, each on a connection of its own; none is left unanswered."""
    for _ in range(times):
        assert await asyncio.to_thread(ask, address, BAD, b"") in (CANCELLED, 2)


def test_what_is_used_of_grpc_is_there() -> None:
    """Else its server is used as it is, and a call can end it."""
    assert server_core._KNOWN


async def test_what_runs_goes_on() -> None:
    """Streams, connections and new calls: nobody but the one to blame sees any of it."""
    go_on = asyncio.Event()

    async def stream(request: Message, context: object) -> AsyncIterator[Message]:
        yield request
        await go_on.wait()
        yield request

    mesh = accord.Mesh("callee")
    behaviours: Handlers = {"Unary": echo, "ServerStream": stream}
    async with serving(mesh, behaviours) as address, grpc.aio.insecure_channel(address) as channel:
        stub = Stub(channel)
        running = stub.ServerStream(Message(text="a"), timeout=60)
        assert (await running.read()).text == "a"
        connected = channel.get_state()
        for _ in range(3):
            await ask_badly(address)
            assert (await stub.Unary(Message(text="b"), timeout=60)).text == "b"
        assert channel.get_state() is connected
        go_on.set()
        assert (await running.read()).text == "a"
        assert await running.code() is grpc.StatusCode.OK


async def test_a_stop_is_as_before() -> None:
    """Calls that run have their grace, and a server is terminated by nothing else."""
    begun = asyncio.Event()

    async def slow(request: Message, context: object) -> Message:
        begun.set()
        await asyncio.sleep(0.3)
        return request

    server = accord.Mesh("callee").server(lame_duck=0)
    server.add_generic_rpc_handlers((handlers({"Unary": slow}),))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    await ask_badly(address, 2)
    assert await server.wait_for_termination(0.05)
    async with grpc.aio.insecure_channel(address) as channel:
        call = Stub(channel).Unary(Message(text="a"), timeout=60)
        await begun.wait()
        async with asyncio.timeout(20):
            await server.stop(10)
        assert (await call).text == "a"
    assert not await server.wait_for_termination(1)
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_registered_handlers() -> None:
    """They come before generic ones, and gRPC is not told of them."""

    async def registered(request: Message, context: object) -> Message:
        return Message(text="registered")

    method = grpc.unary_unary_rpc_method_handler(
        registered,
        request_deserializer=Message.FromString,
        response_serializer=Message.SerializeToString,
    )
    server = accord.Mesh("callee").server()
    server.add_generic_rpc_handlers((handlers({"Unary": echo}),))
    server.add_registered_method_handlers(SERVICE, {"Unary": method})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        answer = await Stub(channel).Unary(Message(text="generic"), timeout=60)
    await server.stop(None)
    assert answer.text == "registered"


async def test_a_grpc_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its server is used as it is."""
    monkeypatch.setattr(server_core, "_KNOWN", False)
    async with bare({"Unary": echo}) as served:
        assert (await served.stub.Unary(Message(text="a"))).text == "a"
    assert cygrpc.AioServer is not server_core.CoreServer
