"""Testing mode: what passes on the clock, and what is left as it was."""

import asyncio
import time
from typing import Any

import grpc
import pytest

import accord
from accord.client.skip_waiting import backoff, delay
from accord.testing import Clock, Draws, FaultyServer, fail, hang, no_waiting
from accord.testing.aio import Serve
from tests.accord.kit import SERVICE, Message, Stub, eventually, failure


async def test_the_time_of_an_open_breaker_passes_at_once(
    accord_mesh: accord.Mesh, accord_faulty: FaultyServer, accord_clock: Clock
) -> None:
    """An open circuit refuses; after its open time, which nobody waits for, it closes again."""
    stub = Stub(accord_mesh.channel(accord_faulty.address))
    method = f"{SERVICE}/Unary"
    accord_faulty.script(method, "INTERNAL")
    for _ in range(5):
        await failure(stub.Unary(Message()))
    assert (await failure(stub.Unary(Message()))).reason == "CIRCUIT_OPEN"
    accord_faulty.assert_attempts(5)

    accord_faulty.script(method, "OK")
    accord_clock.advance(10)
    for _ in range(2):
        await stub.Unary(Message())
    accord_faulty.assert_attempts(7)


async def test_a_hedge_is_sent_at_once(
    accord_mesh: accord.Mesh, accord_faulty: FaultyServer
) -> None:
    """When enough latencies are known, the backup does not wait for the percentile to pass."""
    stub = Stub(accord_mesh.channel(accord_faulty.address))
    method = f"{SERVICE}/Hedged"
    accord_faulty.script(method, "OK")
    for _ in range(20):
        await stub.Hedged(Message())
    accord_faulty.assert_attempts(20)

    accord_faulty.script(method, hang(), Message(text="backup"))
    assert (await stub.Hedged(Message())).text == "backup"
    first = accord_faulty.assert_attempts(22)[20]
    await eventually(lambda: first.cancelled)


async def test_a_deadline_sees_the_time_that_was_skipped(
    accord_mesh: accord.Mesh, accord_faulty: FaultyServer, accord_clock: Clock
) -> None:
    """What was not waited is gone all the same: the next attempt has less time."""
    stub = Stub(accord_mesh.channel(accord_faulty.address))
    accord_faulty.script("*", fail("UNAVAILABLE", pushback=1.5), "OK")
    await stub.Retried(Message())
    assert accord_clock.waits == [1.5]
    first, second = (attempt.deadline for attempt in accord_faulty.attempts)
    assert first is not None
    assert first > 0.5
    assert second is not None
    assert second <= 0.5


async def test_fixtures_serve_a_servicer_from_its_stub(accord_serve: Serve) -> None:
    """The generated class beside the stub says how the servicer is added."""
    from accord.ops.v1 import mesh_pb2, mesh_pb2_grpc

    class Operator(mesh_pb2_grpc.MeshServiceServicer):
        async def GetState(self, request: Any, context: Any) -> mesh_pb2.GetStateResponse:
            return mesh_pb2.GetStateResponse(service="stand-in")

        SetOverride = ClearOverride = InjectFault = ClearFault = None  # type: ignore[assignment]
        ListMethods = WatchState = None  # type: ignore[assignment]

    stub = await accord_serve(Operator(), mesh_pb2_grpc.MeshServiceStub)
    assert (await stub.GetState(mesh_pb2.GetStateRequest())).service == "stand-in"


async def test_what_is_no_stub_is_refused(accord_serve: Serve) -> None:
    """A class that no contract has generated has no servicer to be added."""
    with pytest.raises(ValueError, match="not a stub that was generated"):
        await accord_serve(object(), Stub)


def test_waiting_is_back_afterwards() -> None:
    """Outside of the context a back-off takes its time; contexts nest."""
    outer = Clock()
    with no_waiting(outer) as clock:
        assert clock is outer
        with no_waiting():
            pass
        assert backoff(3.0) == 0.0
        assert outer.waits == [3.0]
    assert backoff(3.0) == 3.0
    assert delay(3.0) == 3.0


def test_the_clock_runs_and_never_goes_back() -> None:
    """Its time is real time plus what was skipped."""
    clock = Clock()
    before = time.monotonic()
    clock.advance(100)
    assert clock() >= before + 100
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)


def test_draws() -> None:
    """The numbers come in turn, the last for ever; others than random ones are refused."""
    draws = Draws(0.1, 0.9)
    assert [draws() for _ in range(3)] == [0.1, 0.9, 0.9]
    for wrong in ((), (1.0,), (-0.1,)):
        with pytest.raises(ValueError, match="from 0 to less than 1"):
            Draws(*wrong)


async def test_many_calls_at_once(accord_mesh: accord.Mesh, accord_faulty: FaultyServer) -> None:
    """Concurrent calls that fail and are retried all end, each by its own back-off."""
    stub = Stub(accord_mesh.channel(accord_faulty.address))
    accord_faulty.script("*", *["UNAVAILABLE"] * 4, "OK")
    answers = await asyncio.gather(
        *(stub.Retried(Message()) for _ in range(12)), return_exceptions=True
    )
    codes = [each.code() for each in answers if isinstance(each, grpc.aio.AioRpcError)]
    assert len(codes) <= 1
    assert set(codes) <= {grpc.StatusCode.UNAVAILABLE}
