"""The operator's RPCs: what they show, change, refuse and write down."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration

import accord
from accord.admin.mesh_service import Intervention, serve
from accord.contract.live_overrides import MAX_DOCUMENT
from accord.ops.v1 import mesh_pb2 as pb
from accord.ops.v1.mesh_pb2_grpc import MeshServiceStub
from accord.v1 import policy_pb2
from tests.accord.contract.test_live_overrides import FLOORED, UNARY, Store
from tests.accord.kit import SERVICE, Message, Stub, failure, handlers, path, serving


@dataclass(frozen=True, slots=True)
class Operated:
    """A server that serves its operator, and clients of both."""

    mesh: accord.Mesh
    operator: Any
    stub: Stub
    audit: list[Intervention]


@asynccontextmanager
async def operated(store: Store | None = None) -> AsyncIterator[Operated]:
    written: list[Intervention] = []

    async def audit(done: Intervention) -> None:
        assert accord.current() is not None
        written.append(done)

    async def answer(request: Any, context: Any) -> Any:
        return request

    mesh = accord.Mesh("callee")
    server = mesh.server()
    assert accord.check_service(serve(mesh, server, store=store, audit=audit))
    server.add_generic_rpc_handlers((handlers({"Unary": answer, "Floored": answer}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Operated(mesh, MeshServiceStub(channel), Stub(channel), written)
    await server.stop(None)


def timeout(seconds: int) -> pb.Override:
    return pb.Override(policy=policy_pb2.MethodPolicy(timeout=Duration(seconds=seconds)))


async def test_override_is_set_shown_and_cleared() -> None:
    """An override is in force with the answer, seen in the state, and written down."""
    async with operated() as found:
        request = pb.SetOverrideRequest(method=UNARY, override=timeout(1), reason="slow")
        answer = await found.operator.SetOverride(request)
        assert answer.method.timeout.seconds == 1
        assert answer.method.source == pb.SOURCE_LIVE
        assert found.mesh.control.overrides.policy(path("Unary")).timeout == 1.0
        state = await found.operator.GetState(pb.GetStateRequest())
        assert [method.method for method in state.methods] == [UNARY]
        assert (state.service, state.limit.stream_limit) == ("callee", 1000)
        cleared = await found.operator.ClearOverride(
            pb.ClearOverrideRequest(method=UNARY, reason="over")
        )
        assert cleared.method.timeout.seconds == 2
        [first, second] = found.audit
        assert (first.target, first.reason, first.before) == (UNARY, "slow", "as its contract says")
        assert first.after == second.before
        assert "timeout" in first.after


async def test_state_shows_what_the_clients_have_learned() -> None:
    """Breakers, budgets and hedges of a process's own calls are in its state, by prefix."""
    async with operated() as found, serving(found.mesh, {"Hedged": _echo}) as address:
        stub = Stub(found.mesh.channel(address))
        for _ in range(25):
            await stub.Hedged(Message())
        state = await found.operator.GetState(pb.GetStateRequest())
        [breaker], [budget], [hedge] = state.breakers, state.budgets, state.hedges
        assert {breaker.target, budget.target, hedge.target} == {address}
        assert breaker.method == hedge.method == f"{SERVICE}/Hedged"
        assert (breaker.position, breaker.failures) == (pb.BREAKER_POSITION_CLOSED, 0)
        assert (budget.calls, budget.retries) == (25, hedge.sent)
        assert hedge.samples >= 20
        assert hedge.HasField("delay")
        other = await found.operator.GetState(pb.GetStateRequest(method_prefix=UNARY))
        assert (len(other.breakers), len(other.hedges)) == (0, 0)
        await found.mesh.close()


async def _echo(request: Any, context: Any) -> Any:
    return request


async def test_override_is_refused() -> None:
    """What goes below the contract's floor, and a method that nobody knows, are refused."""
    async with operated() as found:
        request = pb.SetOverrideRequest(
            method=FLOORED,
            override=pb.Override(
                policy=policy_pb2.MethodPolicy(timeout=Duration(nanos=500_000_000))
            ),
        )
        error = await failure(found.operator.SetOverride(request))
        assert (error.code, error.reason) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "OVERRIDE_REFUSED",
        )
        assert "below the contract's floor of 1 s" in error.violations[0].description
        strange = pb.SetOverrideRequest(method="a.B/C", override=timeout(1))
        error = await failure(found.operator.SetOverride(strange))
        assert error.code is grpc.StatusCode.NOT_FOUND
        assert found.mesh.control.overrides.methods() == set()
        assert found.audit == []


@pytest.mark.parametrize(
    "method", ["accord.ops.v1.MeshService/SetOverride", "grpc.health.v1.Health/Check"]
)
async def test_an_operator_does_not_lock_himself_out(method: str) -> None:
    """Neither his own RPCs nor health can be changed or made to fail."""
    store = Store()
    async with operated(store) as found:
        request = pb.SetOverrideRequest(method=method, override=timeout(1), reason="oops")
        error = await failure(found.operator.SetOverride(request))
        assert (error.code, error.reason) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "OVERRIDE_REFUSED",
        )
        fault = pb.Fault(abort_code=policy_pb2.STATUS_CODE_ABORTED, abort_percent=100)
        lasting = Duration(seconds=60)
        inject = pb.InjectFaultRequest(method=method, fault=fault, lasting=lasting, reason="oops")
        error = await failure(found.operator.InjectFault(inject))
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT
        assert error.violations[0].field == "method"
        assert not found.mesh.control.faults.injected
        assert store.documents == {}
        assert found.audit == []


async def test_override_that_is_too_long_is_refused() -> None:
    """What no replica would read back is refused, and reaches neither the store nor the process."""
    store = Store()
    async with operated(store) as found:
        override = timeout(1)
        override.policy.stream.not_resumable = "x" * MAX_DOCUMENT
        method = f"{SERVICE}/ServerStream"
        request = pb.SetOverrideRequest(method=method, override=override, reason="slow")
        error = await failure(found.operator.SetOverride(request))
        assert (error.code, error.reason) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "OVERRIDE_REFUSED",
        )
        [violation] = error.violations
        assert (violation.field, violation.description) == (
            "override",
            "is longer than 65536 characters",
        )
        assert store.documents == {}
        assert found.mesh.control.overrides.methods() == set()


async def test_override_goes_to_the_store() -> None:
    """With a store the override is kept there; while that is away nothing changes at all."""
    store = Store()
    async with operated(store) as found:
        request = pb.SetOverrideRequest(method=UNARY, override=timeout(1), reason="slow")
        await found.operator.SetOverride(request)
        assert "1s" in store.documents[UNARY]
        store.broken = True
        request.override.CopyFrom(timeout(3))
        error = await failure(found.operator.SetOverride(request))
        assert error.reason == "POLICY_STORE_UNAVAILABLE"
        assert found.mesh.control.overrides.policy(path("Unary")).timeout == 1.0


async def test_fault_is_injected() -> None:
    """A fault harms calls until it is taken back, and the state shows how long it goes on."""
    async with operated() as found:
        request = pb.InjectFaultRequest(
            method=UNARY,
            fault=pb.Fault(abort_code=policy_pb2.STATUS_CODE_ABORTED, abort_percent=100),
            lasting=Duration(seconds=60),
            reason="game day",
        )
        answer = await found.operator.InjectFault(request)
        assert 0 < answer.method.fault_ends_in.ToTimedelta().total_seconds() <= 60
        error = await failure(found.stub.Unary(Message()))
        assert (error.code, error.reason) == (grpc.StatusCode.ABORTED, "FAULT_INJECTED")
        state = await found.operator.GetState(pb.GetStateRequest(method_prefix=UNARY))
        assert state.methods[0].fault == request.fault or state.methods[0].fault.abort_percent
        assert state.methods[0].counts == {"fault.aborted": 1}
        harmed = state.methods[0]
        assert (harmed.fault_principal, harmed.fault_reason) == ("anonymous", "game day")
        clear = pb.ClearFaultRequest(method=UNARY, reason="over")
        assert not (await found.operator.ClearFault(clear)).method.HasField("fault")
        await found.stub.Unary(Message())
        assert [done.reason for done in found.audit] == ["game day", "over"]
        request.fault.Clear()  # As clients of 0.2.0 end it.
        await found.operator.InjectFault(request)
        assert (await found.operator.ClearFault(clear)).method.method == UNARY  # nothing to end


async def test_fault_is_checked() -> None:
    """A fault that makes no sense is refused."""
    async with operated() as found:
        for fault, lasting in (
            (pb.Fault(abort_percent=100), 1),
            (pb.Fault(delay_percent=100), 1),
            (pb.Fault(abort_percent=101, abort_code=policy_pb2.STATUS_CODE_ABORTED), 1),
            (pb.Fault(abort_percent=1, abort_code=policy_pb2.STATUS_CODE_ABORTED), 0),
            (pb.Fault(abort_percent=1, abort_code=policy_pb2.STATUS_CODE_ABORTED), 3601),
        ):
            request = pb.InjectFaultRequest(
                method=UNARY, fault=fault, lasting=Duration(seconds=lasting)
            )
            error = await failure(found.operator.InjectFault(request))
            assert error.code is grpc.StatusCode.INVALID_ARGUMENT
