"""Injected faults, and the rule that only the tier nearest a fault retries."""

import time
from typing import Any

import grpc
import grpc.aio
import pytest

import accord
from accord.policies.fault_injection import FaultPolicy
from accord.policies.retry import PUSHBACK_KEY
from accord.policies.types import Code
from tests.accord.drivers import Driver
from tests.accord.kit import Message, Stub, collect, eventually, failure, path
from tests.accord.server_kit import rejected, trailers_of


async def answer(request: Any, context: Any) -> Any:
    return request


async def stream(request: Any, context: Any) -> Any:
    yield request


@pytest.mark.parametrize("method", ["Unary", "ServerStream"])
async def test_abort_and_delay(driver: Driver, method: str) -> None:
    """A call meets the delay, then the abort, with the code that was asked for."""
    async with driver.bare({"Unary": answer, "ServerStream": stream}) as served:
        fault = FaultPolicy(0.1, 100, Code.DATA_LOSS, 100)
        served.mesh.control.faults.inject(path(method), fault, 60)
        began = time.monotonic()
        call = getattr(served.stub, method)(Message())
        error = await failure(call if method == "Unary" else collect(call))
        assert time.monotonic() - began >= 0.1
        assert (error.code, error.reason) == (grpc.StatusCode.DATA_LOSS, "FAULT_INJECTED")
        assert served.counts(method) == {"fault.delayed": 1, "fault.aborted": 1}
        await eventually(served.idle)


async def test_fault_ends_by_itself(driver: Driver) -> None:
    """A fault lasts as long as was asked for."""
    now = [0.0]
    async with driver.bare({"Unary": answer}, clock=lambda: now[0]) as served:
        served.mesh.control.faults.inject(path("Unary"), FaultPolicy(abort_percent=100), 5)
        assert (await failure(served.stub.Unary(Message()))).reason == "FAULT_INJECTED"
        now[0] = 5.0
        assert await served.stub.Unary(Message()) == Message()
        assert not served.mesh.control.faults.injected


async def test_guarded_fault(driver: Driver) -> None:
    """A guarded fault meets only the calls that ask for it, and they can only lower it."""
    async with driver.bare({"Unary": answer}) as served:
        fault = FaultPolicy(abort_percent=100, guarded=True)
        served.mesh.control.faults.inject(path("Unary"), fault, 60)
        await served.stub.Unary(Message())
        asked = (("accord-fault", "delay-ms=0"),)
        error = await failure(served.stub.Unary(Message(), metadata=asked))
        assert error.reason == "FAULT_INJECTED"
        lowered = (("accord-fault", "abort-percent=0"),)
        await served.stub.Unary(Message(), metadata=lowered)


async def test_a_client_of_the_mesh_may_ask(driver: Driver) -> None:
    """The library's own clients send the header of a guarded fault on."""
    callee, caller = accord.Mesh("callee"), accord.Mesh("caller")
    fault = FaultPolicy(abort=Code.DATA_LOSS, abort_percent=100, guarded=True)
    callee.control.faults.inject(path("Unary"), fault, 60)
    async with driver.serving(callee, {"Unary": answer}) as address:
        stub = driver.stub(caller, address)
        await stub.Unary(Message())
        asked = (("accord-fault", "delay-ms=0"),)
        error = await failure(stub.Unary(Message(), metadata=asked))
        assert error.reason == "FAULT_INJECTED"
        await driver.close(caller)


async def test_deadline_during_delay(driver: Driver) -> None:
    """A delay does not outlive the call's deadline, and its handler never starts."""
    started = []

    async def handler(request: Any, context: Any) -> Any:
        started.append(1)
        return request

    async with driver.bare({"Unary": handler}) as served:
        fault = FaultPolicy(delay=60, delay_percent=100)
        served.mesh.control.faults.inject(path("Unary"), fault, 60)
        error = await failure(served.stub.Unary(Message(), timeout=0.05))
        assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(served.idle)
        injected = served.mesh.control.faults.of(path("Unary"))
        assert injected is not None
        await eventually(lambda: injected.faults.active == 0)
    assert not started


def marked() -> grpc.aio.AioRpcError:
    """The error of a nested call that has been retried as often as it may be."""
    error = grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "away", None
    )
    error.accord_exhausted = True  # type: ignore[attr-defined]
    return error


async def _itself(request: Any, context: Any) -> Any:
    raise marked()


async def _caused(request: Any, context: Any) -> Any:
    try:
        raise marked()
    except grpc.aio.AioRpcError as error:
        raise accord.Unavailable("NO_STOCK", 0.5) from error


async def _while_handled(request: Any, context: Any) -> Any:
    try:
        raise marked()
    except grpc.aio.AioRpcError:
        raise accord.Unavailable("NO_STOCK", 0.5)  # noqa: B904


async def _aborted(request: Any, context: Any) -> Any:
    try:
        raise marked()
    except grpc.aio.AioRpcError:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "no stock")


async def _grouped(request: Any, context: Any) -> Any:
    raise ExceptionGroup("several", [ValueError(), marked()])


@pytest.mark.parametrize("handler", [_itself, _caused, _while_handled, _aborted, _grouped])
async def test_exhausted_error_marks_the_answer(driver: Driver, handler: Any) -> None:
    """An error that was retried below tells the tiers above, native clients too, not to retry."""
    async with driver.bare({"Unary": handler}) as served:
        error = await rejected(served.stub.Unary(Message()))
        assert trailers_of(error)[PUSHBACK_KEY] == "-1"


async def test_own_error_is_not_marked(driver: Driver) -> None:
    """An error of the handler's own, after one that it has dealt with, may be retried above."""

    async def handler(request: Any, context: Any) -> Any:
        try:
            raise marked()
        except grpc.aio.AioRpcError:
            pass
        if request.text:
            raise accord.Unavailable("BUSY", 0.5)
        raise accord.NotFound()

    async with driver.bare({"Unary": handler}) as served:
        error = await rejected(served.stub.Unary(Message(text="a")))
        assert trailers_of(error)[PUSHBACK_KEY] == "500"
        assert PUSHBACK_KEY not in trailers_of(await rejected(served.stub.Unary(Message())))


@pytest.mark.parametrize("method", ["Unary", "ServerStream", "ClientStream", "Bidi"])
@pytest.mark.parametrize("own", [True, False])
async def test_mark_of_a_nested_call_travels_up(driver: Driver, method: str, own: bool) -> None:
    """A "never" from below is passed on in all arities, from a foreign channel as well."""
    streamed = method in ("ClientStream", "Bidi")

    async def abort(request: Any, context: Any) -> None:
        if streamed:  # grpc.aio's clients answer INTERNAL where a call ends while they send
            await collect(request)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "down", ((PUSHBACK_KEY, "-1"),))

    middle = accord.Mesh("middle")
    async with (
        driver.serving(accord.Mesh("leaf"), {method: abort}) as leaf,
        grpc.aio.insecure_channel(leaf) as foreign,
    ):

        async def relay(request: Any, context: Any) -> Any:
            below = getattr(Stub(middle.channel(leaf) if own else foreign), method)
            call = below(iter([request]) if streamed else request)
            await (call if method in ("Unary", "ClientStream") else collect(call))

        async with driver.bare({"Relay": relay}) as served:
            error = await rejected(served.stub.Relay(Message()))
        await driver.close(middle)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert trailers_of(error)[PUSHBACK_KEY] == "-1"
