"""What is known of a method's target, and acted upon, with both drivers: breaker and hedge."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

import accord
from accord.client.method_state import MethodStates
from accord.contract.live_overrides import Overrides
from accord.policies.breaker import State
from tests.accord.client.kit import DOWN, Flaky, route
from tests.accord.drivers import Driver, every_call
from tests.accord.kit import OPEN, Message, Stub, eventually, failure, patient


@every_call
async def test_hedge_wins(driver: Driver) -> None:
    """A backup request answers for one that is stalled, which is cancelled on the server."""
    stalled, cancelled = 0, 0

    async def handler(request: Any, context: Any) -> Any:
        nonlocal stalled, cancelled
        call = accord.current()
        if request.text == "stall" and call is not None and call.attempt == 0:
            stalled += 1
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled += 1
                raise
        return request

    async with driver.served({"Hedged": handler}) as (stub, mesh):
        for _ in range(25):
            await stub.Hedged(Message())
        await stub.Hedged(Message(text="stall"))
        await eventually(lambda: (stalled, cancelled) == (1, 1))
        assert route(mesh, "Hedged").hedge.sent >= 1


async def test_cancel_reaches_both_of_a_hedge(driver: Driver) -> None:
    """Cancelling a hedged call cancels both of its attempts."""
    started, cancelled = 0, 0

    async def handler(request: Any, context: Any) -> Any:
        nonlocal started, cancelled
        if request.text != "stall":
            return request
        started += 1
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled += 1
            raise

    async with driver.served({"Hedged": handler}) as (stub, _):
        for _ in range(25):
            await stub.Hedged(Message())
        call = stub.Hedged(Message(text="stall"))
        await eventually(lambda: started == 2)
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await eventually(lambda: cancelled == 2)


@asynccontextmanager
async def fragile(driver: Driver, handler: Any) -> AsyncIterator[tuple[Stub, accord.Mesh]]:
    """A method whose circuit opens early, with time enough for a probe on a busy machine."""
    callee = accord.Mesh("callee")
    patient(callee)
    async with driver.served({"Fragile": handler}, callee) as (stub, mesh):
        patient(mesh)
        yield stub, mesh


@every_call
async def test_breaker_opens_probes_and_closes(driver: Driver) -> None:
    """After failures calls are refused at once, then exactly the probes pass, then all."""
    flaky = Flaky(*[DOWN] * 3)
    release = asyncio.Event()

    async def handler(request: Any, context: Any) -> Any:
        found = await flaky.unary(request, context)
        await release.wait()
        return found

    async with fragile(driver, handler) as (stub, mesh):
        for _ in range(3):
            await failure(stub.Fragile(Message()))
        with pytest.raises(grpc.RpcError) as caught:
            await stub.Fragile(Message())
        error = accord.ServiceError.from_rpc(caught.value)
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "CIRCUIT_OPEN")
        assert error.retry_after is not None
        assert 0 < error.retry_after <= OPEN
        assert getattr(caught.value, "accord_exhausted", False)
        assert flaky.calls == 3

        await eventually(lambda: route(mesh, "Fragile").breaker.state is State.HALF_OPEN)
        crowd = [asyncio.ensure_future(failure(stub.Fragile(Message()))) for _ in range(60)]
        await eventually(lambda: flaky.calls == 5 and sum(task.done() for task in crowd) == 58)
        release.set()
        results = await asyncio.gather(*crowd, return_exceptions=True)
        assert sum(isinstance(each, AssertionError) for each in results) == 2  # they succeeded
        assert route(mesh, "Fragile").breaker.state is State.CLOSED
        assert (await stub.Fragile(Message())).text == "answer 6"


async def test_cancelled_probe_gives_its_place_back(driver: Driver) -> None:
    """A probe that its caller cancels, or drops, leaves its place to the next one."""
    flaky = Flaky(*[DOWN] * 3)

    async def handler(request: Any, context: Any) -> Any:
        found = await flaky.unary(request, context)
        if request.text == "hold":
            await asyncio.sleep(60)
        return found

    async with fragile(driver, handler) as (stub, mesh):
        for _ in range(3):
            await failure(stub.Fragile(Message()))
        await eventually(lambda: route(mesh, "Fragile").breaker.state is State.HALF_OPEN)
        held = [stub.Fragile(Message(text="hold")) for _ in range(2)]
        await eventually(lambda: flaky.calls == 5)
        assert (await failure(stub.Fragile(Message()))).reason == "CIRCUIT_OPEN"
        for call in held:
            call.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        await stub.Fragile(Message())
        await stub.Fragile(Message())
        assert route(mesh, "Fragile").breaker.state is State.CLOSED


def test_a_policy_is_found_once_though_nothing_is_stated() -> None:
    """A method whose descriptor is known is not asked for again; another one each time."""
    overrides = Overrides()
    states = MethodStates(overrides, clock=lambda: 0.0, random=lambda: 0.0)
    for method, settled in (("accordtest.v1.BareService/Unary", True), ("strange.v1.S/M", False)):
        for _ in range(2):
            found = states.find("target", f"/{method}")
        assert (found.generation == overrides.generation) is settled
