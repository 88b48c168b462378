"""An attempt that is not made says why: the error of the attempt before is its cause."""

import asyncio
from typing import Any, Final

import grpc
import pytest

import accord
from accord.client.request import MAX_ATTEMPTS_KEY
from tests.accord.drivers import Driver, every_way
from tests.accord.kit import Message, eventually

ONCE: Final = ((MAX_ATTEMPTS_KEY, "1"),)


@every_way
async def test_circuit_opens_between_two_attempts(driver: Driver) -> None:
    """The caller sees that the circuit is open, and what had failed before."""
    calls = 0

    async def handler(request: Any, context: Any) -> Any:
        nonlocal calls
        calls += 1
        raise accord.Unavailable("DOWN", 0.5 if calls == 1 else None)

    async with driver.served({"Frail": handler}) as (stub, _):

        async def called(**options: Any) -> grpc.RpcError:
            with pytest.raises(grpc.RpcError) as caught:
                await stub.Frail(Message(), **options)
            return caught.value

        waiting = asyncio.create_task(called())
        await eventually(lambda: calls == 1)
        for _ in range(2):  # others, while it waits for its second attempt
            await called(metadata=ONCE)
        error = await waiting
    refusal, cause = accord.failure_of(error), error.__cause__
    assert refusal is not None
    assert refusal.reason == "CIRCUIT_OPEN"
    assert cause is not None
    before = accord.failure_of(cause)
    assert before is not None
    assert before.reason == "DOWN"
