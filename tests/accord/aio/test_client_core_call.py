"""Calls without a task: what gRPC does for a call that nobody drives, done here."""

import asyncio
import gc
from typing import Any

import grpc
import grpc.aio
import pytest

import accord
from accord.aio import client_core_call as direct
from tests.accord.kit import Message, Stub, echo, eventually, failure, path, serving


async def _echo(request: Any, context: Any) -> Any:
    return request


@pytest.fixture(params=[True, False], ids=["direct", "task"])
def usable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """With the way past gRPC's tasks, and without it, as with another gRPC."""
    monkeypatch.setattr(direct, "_USABLE", request.param)
    return bool(request.param)


def test_this_grpc_can() -> None:
    """The gRPC that is installed has what is needed: an upgrade that has not would cost speed."""
    assert direct._as_expected()


async def test_calls_start_at_once(usable: bool) -> None:
    """Calls run side by side although they are awaited one after the other."""
    arrived, gate = 0, asyncio.Event()

    async def handler(request: Any, context: Any) -> Any:
        nonlocal arrived
        arrived += 1
        await gate.wait()
        return request

    async with echo({"Unary": handler}) as stub:
        calls = [stub.Unary(Message(after=index)) for index in range(3)]
        await eventually(lambda: arrived == 3)
        gate.set()
        assert [(await call).after for call in calls] == [0, 1, 2]


@pytest.mark.parametrize("method", ["Hedged", "Cached"])
async def test_no_task_before_it_is_needed(method: str) -> None:
    """Neither a method that is hedged nor one whose answers are kept costs a task for each call."""
    async with echo({method: _echo}) as stub:
        for _ in range(25):  # by then it is known when a backup would be due
            before = asyncio.all_tasks()
            call = getattr(stub, method)(Message(text="a"))
            assert asyncio.all_tasks() == before
            assert (await call).text == "a"


async def test_forgotten_call_goes_on(usable: bool) -> None:
    """A call that nobody holds is neither cancelled nor lost, and leaves nothing behind."""
    answered = 0
    gate = asyncio.Event()

    async def handler(request: Any, context: Any) -> Any:
        nonlocal answered
        await gate.wait()
        answered += 1
        return request

    async with echo({"Unary": handler}) as stub:
        stub.Unary(Message())
        gc.collect()
        gate.set()
        await eventually(lambda: answered == 1)


async def test_wrong_types() -> None:
    """A request or a response of another type is an error, not an empty message as with gRPC."""
    mesh = accord.Mesh("caller")
    async with serving(accord.Mesh("callee"), {"Unary": _echo}) as address:
        channel: Any = mesh.channel(address)
        wrong = Stub(channel).Unary("not a message")
        with pytest.raises(TypeError):
            await wrong
        garbled = channel.unary_unary(path("Unary"), response_deserializer=lambda _: 1 // 0)
        error = await failure(garbled(b""))
        await mesh.close()
    assert error.code is grpc.StatusCode.INTERNAL


async def test_illegal_metadata(usable: bool) -> None:
    """Metadata that gRPC refuses fails when the call is awaited, and only that call."""
    async with echo({"Unary": _echo}) as stub:
        illegal = stub.Unary(Message(), metadata=(("Not Allowed", "x"),))
        with pytest.raises(Exception, match=r"execute_batch|start_batch"):
            await illegal
        assert (await stub.Unary(Message(text="fine"))).text == "fine"


async def test_close_waits_for_calls(usable: bool) -> None:
    """A channel that is closed lets its calls end, for as long as it is told to, then ends them."""
    gate, arrived = asyncio.Event(), 0

    async def handler(request: Any, context: Any) -> Any:
        nonlocal arrived
        arrived += 1
        if request.after:
            await gate.wait()
        else:
            await asyncio.sleep(0.05)
        return request

    mesh = accord.Mesh("caller")
    async with serving(accord.Mesh("callee"), {"Unary": handler}) as address:
        stub = Stub(mesh.channel(address))
        short = stub.Unary(Message(text="short"))
        stuck = asyncio.ensure_future(_outcome(stub.Unary(Message(after=1))))
        await eventually(lambda: arrived == 2)
        await mesh.close(0.5)
        assert (await short).text == "short"
        assert await stuck == "cancelled"


async def test_closed_channel(usable: bool) -> None:
    """A channel that is closed takes no calls."""
    mesh = accord.Mesh("caller")
    async with serving(accord.Mesh("callee"), {"Unary": _echo}) as address:
        channel = mesh.channel(address)
        await Stub(channel).Unary(Message())
        await mesh.close()
        with pytest.raises(grpc.aio.UsageError):
            await Stub(channel).Unary(Message())


async def test_caller_is_cancelled(usable: bool) -> None:
    """A caller that is cancelled while it waits cancels the call on the server."""
    cancelled, arrived = asyncio.Event(), asyncio.Event()

    async def handler(request: Any, context: Any) -> Any:
        arrived.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with echo({"Unary": handler}) as stub:
        task = asyncio.ensure_future(_outcome(stub.Unary(Message())))
        await arrived.wait()
        task.cancel()
        assert await task == "cancelled"
        await asyncio.wait_for(cancelled.wait(), 3)


async def _outcome(call: Any) -> str:
    try:
        await call
    except asyncio.CancelledError:
        return "cancelled"
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


async def test_wrapped_without_interceptor() -> None:
    """A mesh's server and one with its interceptor answer alike, also for a method it has not."""

    class Nothing(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
        async def intercept_service(self, continuation: Any, details: Any) -> Any:
            return await continuation(details)

    for interceptors in ((), (Nothing(),)):
        async with (
            serving(accord.Mesh("callee"), {"Unary": _echo}, interceptors=interceptors) as address,
            grpc.aio.insecure_channel(address) as channel,
        ):
            assert (await Stub(channel).Unary(Message(text="a"))).text == "a"
            untyped: Any = channel
            with pytest.raises(grpc.aio.AioRpcError) as found:
                await untyped.unary_unary(path("Nothing"))(b"")
            assert found.value.code() is grpc.StatusCode.UNIMPLEMENTED
