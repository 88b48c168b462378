"""`accord.deadline`: what calls inherit where no call is being handled, and inside one."""

import asyncio
import math
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final

import grpc
import grpc.aio
import pytest

import accord
from accord.context import scope_left
from tests.accord.kit import Message, Stub, failure, serving
from tests.accord.policies.test_deadline import on_the_wire

Ask = Callable[[], Coroutine[None, None, float]]


async def _remaining(request: Any, context: Any) -> Any:
    left = context.time_remaining()
    return Message(text=str(math.inf if left is None else left))


async def aio(mesh: accord.Mesh, address: str) -> float:
    return float((await Stub(mesh.channel(address)).Unary(Message())).text)


async def aio_stream(mesh: accord.Mesh, address: str) -> float:
    async for message in Stub(mesh.channel(address)).ServerStream(Message()):
        return float(message.text)
    raise AssertionError


async def sync(mesh: accord.Mesh, address: str) -> float:
    stub = Stub(mesh.sync.channel(address))
    return float((await asyncio.to_thread(stub.Unary, Message())).text)


async def sync_future(mesh: accord.Mesh, address: str) -> float:
    call = Stub(mesh.sync.channel(address)).Unary.future(Message())
    return float((await asyncio.to_thread(call.result)).text)


CALLS: Final = [aio, aio_stream, sync, sync_future]


@pytest.fixture(params=CALLS, ids=[call.__name__ for call in CALLS])
async def ask(request: pytest.FixtureRequest) -> Any:
    """Asks a callee what the deadline leaves it; its contract says 2 s for unary calls."""

    async def stream(message: Any, context: Any) -> Any:
        yield await _remaining(message, context)

    mesh = accord.Mesh("edge")
    async with serving(
        accord.Mesh("callee"), {"Unary": _remaining, "ServerStream": stream}
    ) as address:
        yield lambda: request.param(mesh, address)
        await mesh.close()


async def test_calls_inherit_it(ask: Ask) -> None:
    """Less the reserve for the way home; the shorter of two wins, whichever is outer."""
    with accord.deadline(1.0):
        assert await ask() <= on_the_wire(0.98)
        with accord.deadline(0.7):
            assert await ask() <= on_the_wire(0.68)
        with accord.deadline(50):
            assert await ask() <= on_the_wire(0.98)
        with accord.detach():
            assert await ask() > 1.1
    assert await ask() > 1.1


async def test_it_follows_tasks(ask: Ask) -> None:
    """A task that is started inside has it, one that was started before has not."""
    inside = asyncio.Event()

    async def before() -> float:
        await inside.wait()
        return await ask()

    task = asyncio.create_task(before())
    with accord.deadline(1.0):
        inside.set()
        assert await asyncio.create_task(ask()) <= on_the_wire(0.98)
    assert await task > 1.1


async def test_no_time_is_left() -> None:
    """Nothing is sent, and the caller is told that its time is up; infinity is no bound."""
    calls = 0

    async def handler(request: Any, context: Any) -> Any:
        nonlocal calls
        calls += 1
        return await _remaining(request, context)

    mesh = accord.Mesh("edge")
    async with serving(accord.Mesh("callee"), {"Unary": handler}) as address:
        for seconds in (0.0, -1.0, -math.inf):
            with accord.deadline(seconds):
                error = await failure(Stub(mesh.channel(address)).Unary(Message()))
                assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
                with pytest.raises(grpc.RpcError) as caught:
                    Stub(mesh.sync.channel(address)).Unary(Message())
                found = accord.failure_of(caught.value)
                assert found is not None
                assert found.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert calls == 0
        with accord.deadline(math.inf):
            assert await aio(mesh, address) > 1.1
        await mesh.close()


def test_what_is_no_number() -> None:
    """It would be an endless call."""
    with pytest.raises(ValueError, match="not a number"), accord.deadline(math.nan):
        pass


async def test_in_a_handler() -> None:
    """It shortens what the handler has, and never lengthens it."""
    mesh = accord.Mesh("middle")
    seen: list[float | None] = []

    async with serving(accord.Mesh("callee"), {"Unary": _remaining}) as leaf:

        async def handler(request: Any, context: Any) -> Any:
            for seconds in (0.5, 50):
                with accord.deadline(seconds):
                    call = accord.current()
                    assert call is not None
                    seen.append(call.remaining())
                    seen.append(await aio(mesh, leaf))
            return Message()

        # A server that is started inside a scope serves without it.
        with accord.deadline(0.001):
            serve = serving(mesh, {"Unary": handler})
            address = await serve.__aenter__()
        async with grpc.aio.insecure_channel(address) as channel:
            await Stub(channel).Unary(Message(), timeout=1.5)
        await mesh.close()
        await serve.__aexit__(None, None, None)
    short, sent_short, whole, sent_whole = seen
    assert short is not None
    assert whole is not None
    assert short <= 0.5 < whole < 2.0
    assert sent_short is not None
    assert sent_short <= on_the_wire(0.48)
    assert sent_whole is not None
    assert 0.5 < sent_whole <= on_the_wire(1.48)


def test_other_threads() -> None:
    """A thread starts without it, and has it with `accord.carry`."""
    found: list[float | None] = []

    def note() -> None:
        found.append(scope_left())

    with accord.deadline(5.0):
        for work in (note, accord.carry(note)):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join(5)
    assert found[0] is None
    assert found[1] is not None
    assert scope_left() is None
