"""Callbacks of calls: what they raise is theirs."""

import asyncio
from typing import Any

import pytest

import accord
from tests.accord.kit import Message, Stub, collect, serving


async def _one(request: Any, context: Any) -> Any:
    return Message(sequence=1)


async def _two(request: Any, context: Any) -> Any:
    yield Message(sequence=1)
    yield Message(sequence=2)


@pytest.mark.parametrize("driver", ["aio", "sync"])
@pytest.mark.parametrize("method", ["Unary", "ServerStream", "RetriedStream", "Watch"])
async def test_a_callback_that_raises_leaves_the_answer_alone(driver: str, method: str) -> None:
    """The caller gets its messages, and the other callbacks are called."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()

    def fail(*_: Any) -> None:
        raise RuntimeError("a callback")

    def tell(*_: Any) -> None:
        loop.call_soon_threadsafe(told.set)

    mesh = accord.Mesh("caller")
    behaviour = _one if method == "Unary" else _two
    async with serving(accord.Mesh("callee"), {method: behaviour}) as address:
        stub = Stub(mesh.channel(address) if driver == "aio" else mesh.sync.channel(address))
        make = getattr(stub, method)
        call = make.future(Message()) if (driver, method) == ("sync", "Unary") else make(Message())
        add = (
            call.add_callback if driver == "sync" and method != "Unary" else call.add_done_callback
        )
        add(fail)
        add(tell)
        if method == "Unary":
            answer = [await call if driver == "aio" else await asyncio.to_thread(call.result)]
        else:
            answer = await (collect(call) if driver == "aio" else asyncio.to_thread(list, call))
        assert [message.sequence for message in answer] == ([1] if method == "Unary" else [1, 2])
        async with asyncio.timeout(10):
            await told.wait()
        await mesh.close()
