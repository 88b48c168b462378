"""Deadlines: the pure rule, and what really travels."""

import asyncio
import math
import time
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

import accord
from accord.ops.v1 import mesh_pb2
from accord.policies.deadline import effective, hop_reserve
from accord.v1 import policy_pb2
from tests.accord.drivers import Driver
from tests.accord.kit import Message, Stub, collect, echo, eventually, failure, handlers, path


def on_the_wire(timeout: float) -> float:
    """The most that a callee sees of a timeout: gRPC sends three digits of whole ms, rounded up."""
    return 1.01 * timeout + 0.001


seconds = st.floats(min_value=0.0, max_value=3600.0)
bounds = st.none() | seconds


@given(st.floats(min_value=-10, max_value=1e5))
def test_hop_reserve(remaining: float) -> None:
    """The reserve is at most 20 ms and 5 % of what is left, and never negative."""
    reserve = hop_reserve(remaining)
    assert 0 <= reserve <= 0.020
    assert reserve <= max(0.0, remaining * 0.05)


@given(st.floats(min_value=0, max_value=1e6), bounds, bounds, bounds, bounds)
def test_effective_is_the_tightest_bound(
    now: float,
    explicit: float | None,
    contract: float | None,
    declared: float | None,
    left: float | None,
) -> None:
    """No bound is exceeded, one is met, and an inherited one is undercut by the reserve."""
    inherits = None if left is None else now + left
    deadline = effective(
        now, explicit=explicit, contract=contract, declared=declared, inherits=inherits
    )
    own = [now + bound for bound in (explicit, contract, declared) if bound is not None]
    if inherits is not None:
        own.append(inherits - hop_reserve(inherits - now))
    assert deadline == (min(own) if own else None)


@pytest.mark.parametrize("other", [{"contract": 1.0}, {"inherits": 1.0}, {}])
def test_effective_refuses_nan(other: dict[str, float]) -> None:
    """A timeout that is not a number is refused, whatever else bounds the call."""
    with pytest.raises(ValueError, match="not a number"):
        effective(0.0, explicit=math.nan, **other)
    with pytest.raises(ValueError, match="not a number"):
        effective(0.0, inherits=math.nan)


NONE = 1e9
"""Seconds; with threads gRPC says that more are left where there is no deadline."""


async def _remaining(request: Any, context: Any) -> Any:
    return Message(text=str(context.time_remaining()))


async def test_contract_timeout_is_sent(driver: Driver) -> None:
    """A unary call without a timeout of its own leaves with that of its contract."""
    async with driver.echo({"Unary": _remaining}) as stub:
        left = float((await stub.Unary(Message())).text)
    assert 1.5 < left <= on_the_wire(2.0)


async def test_explicit_timeout_only_shortens(driver: Driver) -> None:
    """The caller's own timeout counts when it is shorter than the contract's."""
    async with driver.echo({"Unary": _remaining}) as stub:
        shorter = float((await stub.Unary(Message(), timeout=0.5)).text)
        longer = float((await stub.Unary(Message(), timeout=50)).text)
    assert shorter <= on_the_wire(0.5)
    assert longer <= on_the_wire(2.0)


async def test_unknown_method_has_no_deadline(driver: Driver) -> None:
    """A method without a contract has its caller's deadline, and none without it."""

    def handler(request: bytes, context: Any) -> bytes:
        left = context.time_remaining()
        return str(left if left is not None and left < NONE else None).encode()

    mesh = accord.Mesh("any")
    server = driver.server(mesh)
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "nobody.Knows", {"It": grpc.unary_unary_rpc_method_handler(handler)}
            ),
        )
    )
    it = driver.stub(mesh, await driver.start(server))._channel.unary_unary("/nobody.Knows/It")

    async def called(**options: Any) -> bytes:
        return bytes(
            await (it(b"", **options) if driver.aio else driver.in_thread(it, b"", **options))
        )

    assert await called() == b"None"
    assert 9 < float(await called(timeout=10)) <= on_the_wire(10)
    await driver.close(mesh)
    await driver.stop(server)


async def _relayed(driver: Driver, method: str, own_timeout: float) -> float:
    """What a nested call of Unary has left when `method` is called with `own_timeout`."""
    mesh = accord.Mesh("relay")
    async with driver.serving(mesh, {"Unary": _remaining}) as leaf:

        async def relay(request: Any, context: Any) -> Any:
            return await asyncio.create_task(_nested(driver.stub(mesh, leaf)))

        async with driver.serving(mesh, {method: relay}) as middle:
            stub = driver.stub(mesh, middle)
            answer = await getattr(stub, method)(Message(), timeout=own_timeout)
            await driver.close(mesh)
            return float(answer.text)


async def _nested(stub: Stub) -> Any:
    return await stub.Unary(Message())


async def test_deadline_is_inherited(driver: Driver) -> None:
    """A nested call, even in another task, has what is left minus the hop reserve."""
    left = await _relayed(driver, "Forward", 0.9)
    assert 0.1 < left <= on_the_wire(0.9 - hop_reserve(0.9))


async def test_declared_call_is_bounded(driver: Driver) -> None:
    """The entry in `calls` of the RPC being handled bounds the nested call."""
    left = await _relayed(driver, "Relay", 2.0)
    assert 0.1 < left <= on_the_wire(0.5)


async def test_detached_work_has_its_own_deadline(driver: Driver) -> None:
    """Inside `detach`, a nested call does not inherit the deadline of the request."""
    mesh = accord.Mesh("relay")
    async with driver.serving(mesh, {"Unary": _remaining}) as leaf:

        async def relay(request: Any, context: Any) -> Any:
            with accord.detach():
                work = asyncio.create_task(_nested(driver.stub(mesh, leaf)))
            inside = accord.current()
            assert inside is not None
            assert inside.deadline is not None
            return await work

        async with driver.serving(mesh, {"Forward": relay}) as middle:
            answer = await driver.stub(mesh, middle).Forward(Message(), timeout=0.5)
            assert float(answer.text) > 1.5
            await driver.close(mesh)


async def test_detached_work_is_nobodys_attempt(driver: Driver) -> None:
    """Inside `detach` the calls of a handler that serves a retry may be retried themselves."""
    seen: list[int] = []

    async def leaf(request: Any, context: Any) -> Any:
        call = accord.current()
        assert call is not None
        seen.append(call.attempt)
        return request

    mesh = accord.Mesh("relay")
    async with driver.serving(mesh, {"Unary": leaf}) as at:

        async def relay(request: Any, context: Any) -> Any:
            await driver.stub(mesh, at).Unary(request)
            with accord.detach():
                return await driver.stub(mesh, at).Unary(request)

        async with (
            driver.serving(mesh, {"Forward": relay}) as middle,
            grpc.aio.insecure_channel(middle) as channel,
        ):
            await Stub(channel).Forward(Message(), metadata=(("accord-attempt", "2"),))
            await driver.close(mesh)
    assert seen == [2, 0]


async def test_carry_takes_the_call_to_a_thread() -> None:
    """`carry` and `asyncio.to_thread` keep the call; a bare executor does not."""

    def deadline() -> float | None:
        call = accord.current()
        return call.deadline if call else None

    async def handler(request: Any, context: Any) -> Any:
        loop = asyncio.get_running_loop()
        seen = [
            deadline(),
            await asyncio.to_thread(deadline),
            await loop.run_in_executor(None, accord.carry(deadline)),
        ]
        bare = await loop.run_in_executor(None, deadline)
        return Message(text=f"{len(set(seen))} {seen[0] is not None} {bare}")

    async with echo({"Unary": handler}) as stub:
        assert (await stub.Unary(Message())).text == "1 True None"


async def test_late_call_is_not_sent(driver: Driver) -> None:
    """A call with no time left fails locally; the server never hears of it."""
    calls = 0

    async def handler(request: Any, context: Any) -> Any:
        nonlocal calls
        calls += 1
        return request

    async with driver.echo({"Unary": handler, "ServerStream": handler, "Bidi": handler}) as stub:
        assert (await stub.Unary(Message(text="warm"))).text == "warm"
        for timeout in (0, -1):
            error = await failure(stub.Unary(Message(), timeout=timeout))
            assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
            assert "before the call was sent" in error.message
            error = await failure(collect(stub.ServerStream(Message(), timeout=timeout)))
            assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
            error = await failure(collect(stub.Bidi(iter(()), timeout=timeout)))
            assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert calls == 1


async def test_expired_work_is_refused_before_the_handler() -> None:
    """A call whose deadline passed while it waited for the loop does not reach its handler.

    A client stream, because gRPC itself starts its handler without having received anything.
    """
    calls = 0

    async def handler(requests: Any, context: Any) -> Any:
        nonlocal calls
        calls += 1
        return Message()

    async with echo({"ClientStream": handler}) as stub:
        await stub.ClientStream(iter(()))
        late = asyncio.ensure_future(failure(stub.ClientStream(iter(()), timeout=0.05)))
        for _ in range(5):
            await asyncio.sleep(0)  # let it be sent, but not answered
        time.sleep(0.2)  # noqa: ASYNC251 - the loop is what must be late
        assert (await late).code is grpc.StatusCode.DEADLINE_EXCEEDED
        await stub.ClientStream(iter(()))
    assert calls == 2


@pytest.mark.parametrize(
    ("driver", "method"),
    [("aio", "Unary"), ("aio", "ClientStream"), ("sync", "ClientStream")],
    indirect=["driver"],
)
async def test_server_bounds_callers_without_deadline(driver: Driver, method: str) -> None:
    """A bare client that sets no deadline cannot hold a handler beyond its contract.

    A function of one request cannot be ended: with threads such a call is answered when it returns.
    """
    ended = asyncio.Event()

    async def handler(request: Any, context: Any) -> Any:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    policy = policy_pb2.MethodPolicy(timeout=Duration(nanos=100_000_000))
    async with driver.bare({method: handler}) as served:
        served.mesh.control.overrides.set(path(method), mesh_pb2.Override(policy=policy))
        call = getattr(served.stub, method)
        error = await failure(call(Message()) if method == "Unary" else call())
        await asyncio.wait_for(ended.wait(), 20)
        await eventually(served.idle)
    assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_no_deadline(driver: Driver) -> None:
    """A caller without a deadline is one: the handler's own bound is the contract's."""

    async def handler(request: Any, context: Any) -> Any:
        current, left = accord.current(), context.time_remaining()
        assert current is not None
        return Message(text=f"{left is None or left > NONE} {current.remaining()}")

    async with driver.bare({"Unary": handler}) as served:
        endless, left = (await served.stub.Unary(Message())).text.split()
    assert endless == "True"
    assert 1.5 < float(left) <= 2


async def test_own_deadline_reaches_the_caller(driver: Driver) -> None:
    """A call that takes too long is DEADLINE_EXCEEDED, and its handler is cancelled."""
    cancelled = asyncio.Event()

    async def handler(request: Any, context: Any) -> Any:
        if request.text == "warm":
            return request
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with driver.echo({"Unary": handler}) as stub:
        await stub.Unary(Message(text="warm"))  # the deadline is the handler's alone
        error = await failure(stub.Unary(Message(), timeout=0.1))
        assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(cancelled.wait(), 20)


def test_handlers_exist() -> None:
    """The kit refuses a method that the test contract does not have."""
    with pytest.raises(KeyError):
        handlers({"Nothing": _remaining})
