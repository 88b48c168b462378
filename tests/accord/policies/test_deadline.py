"""Deadlines: the pure rule, and what really travels."""

import asyncio
import math
import time
from typing import Any

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

import accord
from accord.policies.deadline import effective, hop_reserve
from tests.accord.kit import Message, Stub, collect, echo, failure, handlers, serving


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


def test_effective_refuses_nan() -> None:
    """A timeout that is not a number is an error and not an endless call."""
    with pytest.raises(ValueError, match="not a number"):
        effective(0.0, explicit=math.nan, contract=1.0)


async def _remaining(request: Any, context: Any) -> Any:
    left = context.time_remaining()
    return Message(text="none" if left is None else str(left))


async def test_contract_timeout_is_sent() -> None:
    """A unary call without a timeout of its own leaves with that of its contract."""
    async with echo({"Unary": _remaining}) as stub:
        left = float((await stub.Unary(Message())).text)
    assert 1.5 < left <= on_the_wire(2.0)


async def test_explicit_timeout_only_shortens() -> None:
    """The caller's own timeout counts when it is shorter than the contract's."""
    async with echo({"Unary": _remaining}) as stub:
        shorter = float((await stub.Unary(Message(), timeout=0.5)).text)
        longer = float((await stub.Unary(Message(), timeout=50)).text)
    assert shorter <= on_the_wire(0.5)
    assert longer <= on_the_wire(2.0)


async def test_unknown_method_has_no_deadline() -> None:
    """A method without a contract has its caller's deadline, and none without it."""

    async def handler(request: bytes, context: Any) -> bytes:
        return str(context.time_remaining()).encode()

    mesh = accord.Mesh("any")
    server = mesh.server()
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "nobody.Knows", {"It": grpc.unary_unary_rpc_method_handler(handler)}
            ),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    it: Any = mesh.channel(f"127.0.0.1:{port}").unary_unary("/nobody.Knows/It")  # type: ignore[call-arg]
    assert await it(b"") == b"None"
    assert 9 < float(await it(b"", timeout=10)) <= on_the_wire(10)
    await mesh.close()
    await server.stop(None)


async def _relayed(method: str, own_timeout: float) -> float:
    """What a nested call of Unary has left when `method` is called with `own_timeout`."""
    mesh = accord.Mesh("relay")
    async with serving(mesh, {"Unary": _remaining}) as leaf:

        async def relay(request: Any, context: Any) -> Any:
            return await asyncio.create_task(_nested(Stub(mesh.channel(leaf))))

        async with serving(mesh, {method: relay}) as middle:
            stub = Stub(mesh.channel(middle))
            answer = await getattr(stub, method)(Message(), timeout=own_timeout)
            await mesh.close()
            return float(answer.text)


async def _nested(stub: Stub) -> Any:
    return await stub.Unary(Message())


async def test_deadline_is_inherited() -> None:
    """A nested call, even in another task, has what is left minus the hop reserve."""
    left = await _relayed("Forward", 0.4)
    assert 0.2 < left <= on_the_wire(0.4 - hop_reserve(0.4))


async def test_declared_call_is_bounded() -> None:
    """The entry in `calls` of the RPC being handled bounds the nested call."""
    left = await _relayed("Relay", 2.0)
    assert 0.3 < left <= on_the_wire(0.5)


async def test_detached_work_has_its_own_deadline() -> None:
    """Inside `detach`, a nested call does not inherit the deadline of the request."""
    mesh = accord.Mesh("relay")
    async with serving(mesh, {"Unary": _remaining}) as leaf:

        async def relay(request: Any, context: Any) -> Any:
            with accord.detach():
                work = asyncio.create_task(_nested(Stub(mesh.channel(leaf))))
            inside = accord.current()
            assert inside is not None
            assert inside.deadline is not None
            return await work

        async with serving(mesh, {"Forward": relay}) as middle:
            answer = await Stub(mesh.channel(middle)).Forward(Message(), timeout=0.5)
            assert float(answer.text) > 1.5
            await mesh.close()


async def test_detached_work_is_nobodys_attempt() -> None:
    """Inside `detach` the calls of a handler that serves a retry may be retried themselves."""
    seen: list[int] = []

    async def leaf(request: Any, context: Any) -> Any:
        call = accord.current()
        assert call is not None
        seen.append(call.attempt)
        return request

    mesh = accord.Mesh("relay")
    async with serving(mesh, {"Unary": leaf}) as at:

        async def relay(request: Any, context: Any) -> Any:
            await Stub(mesh.channel(at)).Unary(request)
            with accord.detach():
                return await Stub(mesh.channel(at)).Unary(request)

        async with (
            serving(mesh, {"Forward": relay}) as middle,
            grpc.aio.insecure_channel(middle) as channel,
        ):
            await Stub(channel).Forward(Message(), metadata=(("accord-attempt", "2"),))
            await mesh.close()
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


async def test_late_call_is_not_sent() -> None:
    """A call with no time left fails locally; the server never hears of it."""
    calls = 0

    async def handler(request: Any, context: Any) -> Any:
        nonlocal calls
        calls += 1
        return request

    async with echo({"Unary": handler, "ServerStream": handler, "Bidi": handler}) as stub:
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


async def test_server_bounds_callers_without_deadline() -> None:
    """A bare client that sets no deadline cannot hold a handler beyond its contract."""
    mesh = accord.Mesh("callee")

    async def handler(request: Any, context: Any) -> Any:
        await asyncio.sleep(60)

    async with (
        serving(mesh, {"Forward": handler}) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        error = await failure(Stub(channel).Forward(Message()))
    assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_own_deadline_reaches_the_caller() -> None:
    """A call that takes too long is DEADLINE_EXCEEDED, and its handler is cancelled."""
    cancelled = asyncio.Event()

    async def handler(request: Any, context: Any) -> Any:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with echo({"Unary": handler}) as stub:
        await stub._channel.channel_ready()  # the deadline is the handler's, not the connection's
        error = await failure(stub.Unary(Message(), timeout=0.1))
        assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(cancelled.wait(), 3)


def test_handlers_exist() -> None:
    """The kit refuses a method that the test contract does not have."""
    with pytest.raises(KeyError):
        handlers({"Nothing": _remaining})
