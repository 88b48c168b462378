"""What follows a failed attempt, with both drivers: retries, their bounds, and whose they are."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

import accord
from accord.client.request import MAX_ATTEMPTS_KEY
from accord.ops.v1 import mesh_pb2
from accord.policies.budget import BudgetPolicy
from tests.accord.client.kit import DOWN, Flaky, route
from tests.accord.drivers import Driver, every_call, every_way
from tests.accord.kit import Message, Stub, collect, eventually, failure, path
from tests.accord.server_kit import trailers_of
from tests.accord.test_arities import finish
from tests.accord.tiers import tiers

NO_BREAKER = mesh_pb2.Override(dark=[mesh_pb2.DARK_POLICY_BREAKER])


@every_way
async def test_retries_until_it_works(driver: Driver) -> None:
    """A call goes on after failures of a listed code, and each attempt says its number."""
    flaky = Flaky(DOWN, DOWN, DOWN)
    async with driver.served({"Retried": flaky.unary}) as (stub, mesh):
        assert (await stub.Retried(Message())).text == "answer 4"
        assert flaky.attempts == [0, 1, 2, 3]
        assert (route(mesh, "Retried").calls, route(mesh, "Retried").retries) == (1, 3)


@every_way
async def test_attempts_are_bounded(driver: Driver) -> None:
    """When all attempts have failed the last error is raised, and says that it was retried."""
    flaky = Flaky(*[DOWN] * 9)
    async with driver.served({"Retried": flaky.unary}) as (stub, _):
        with pytest.raises(grpc.RpcError) as caught:
            await stub.Retried(Message())
    assert flaky.calls == 4
    assert accord.ServiceError.from_rpc(caught.value).reason == "DOWN"
    assert getattr(caught.value, "accord_exhausted", False)


@every_call
@pytest.mark.parametrize(
    ("method", "metadata", "expected"),
    [
        ("Unsafe", (), 1),
        ("Unsafe", accord.idempotency_key("k"), 1),
        ("Keyed", accord.idempotency_key("k"), 4),
        ("Retried", ((MAX_ATTEMPTS_KEY, "2"),), 2),
        ("Retried", ((MAX_ATTEMPTS_KEY, "99"),), 4),
        ("Unary", (), 1),
    ],
)
async def test_only_safe_calls_are_repeated(
    driver: Driver, method: str, metadata: tuple[tuple[str, str], ...], expected: int
) -> None:
    """Only what the contract says, only what is safe, and never more than the caller allows."""
    flaky = Flaky(*[DOWN] * 9)
    callee = accord.Mesh("callee", idempotency="handler")
    async with driver.served({method: flaky.unary}, callee) as (stub, _):
        await failure(getattr(stub, method)(Message(), metadata=metadata))
    assert flaky.calls == expected


@pytest.mark.parametrize("error", [accord.NotFound(), accord.Aborted("LOST")])
async def test_other_codes_are_not_repeated(driver: Driver, error: accord.ServiceError) -> None:
    """A code that the contract does not list is the answer."""
    flaky = Flaky(error)
    async with driver.served({"Retried": flaky.unary}) as (stub, _):
        assert (await failure(stub.Retried(Message()))).code is error.code
    assert flaky.calls == 1


@every_call
@pytest.mark.parametrize(
    ("pushback", "calls"), [("-1", 1), ("soon", 1), ("99999", 1), ("0", 2), ("50", 2)]
)
async def test_pushback_is_obeyed(driver: Driver, pushback: str, calls: int) -> None:
    """A server says when to come back, or never, and what outlasts the call is not waited for."""
    loop = asyncio.get_running_loop()
    times: list[float] = []

    async def handler(request: Any, context: Any) -> Any:
        times.append(loop.time())
        if len(times) == 1:
            context.set_trailing_metadata((("grpc-retry-pushback-ms", pushback),))
            await context.abort(grpc.StatusCode.UNAVAILABLE, "later")
        return Message()

    async with driver.served({"Retried": handler}) as (stub, _):
        if calls == 1:
            await failure(stub.Retried(Message()))
        else:
            await stub.Retried(Message())
    assert len(times) == calls
    if pushback == "50":
        assert times[1] - times[0] >= 0.045


@every_call
async def test_retry_info_is_obeyed(driver: Driver) -> None:
    """The RetryInfo of an error is as good as a pushback."""
    flaky = Flaky(accord.Unavailable("DOWN", retry_after=0.1))
    loop = asyncio.get_running_loop()
    async with driver.served({"Retried": flaky.unary}, random=lambda: 0.0) as (stub, _):
        start = loop.time()
        await stub.Retried(Message())
        assert loop.time() - start >= 0.095


@every_call
async def test_budget_bounds_retries(driver: Driver) -> None:
    """Without a floor, twenty calls that fail make at most four more; the target is shared."""
    flaky = Flaky(*[DOWN] * 99)
    budget = BudgetPolicy(floor=0.0)
    async with driver.served({"Retried": flaky.unary}, budget=budget) as (stub, mesh):
        mesh.control.overrides.set(path("Retried"), NO_BREAKER)
        for _ in range(20):
            await failure(stub.Retried(Message()))
    assert 20 < flaky.calls <= 24


@every_call
async def test_deadline_spans_all_attempts(driver: Driver) -> None:
    """The caller's timeout is for all attempts and waits together."""
    flaky = Flaky(accord.Unavailable("DOWN", retry_after=0.05), DOWN, DOWN)

    async def slow(request: Any, context: Any) -> Any:
        await asyncio.sleep(0.1)
        return await flaky.unary(request, context)

    loop = asyncio.get_running_loop()
    async with driver.served({"Retried": slow}) as (stub, _):
        start = loop.time()
        error = await failure(stub.Retried(Message(), timeout=0.2))
        assert loop.time() - start < 1.5  # less than the contract's
    assert error.code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
    assert flaky.calls <= 2


async def test_cancel_between_attempts(driver: Driver) -> None:
    """A call can be cancelled while it waits for its next attempt."""
    flaky = Flaky(accord.Unavailable("DOWN", retry_after=1.0))
    async with driver.served({"Retried": flaky.unary}) as (stub, mesh):
        call = stub.Retried(Message())
        waiting = asyncio.ensure_future(finish(call, "Retried"))
        await eventually(lambda: bool(mesh.snapshot().routes) and route(mesh, "Retried").retries)
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert call.cancelled()
        assert await call.code() is grpc.StatusCode.CANCELLED
    assert flaky.calls == 1


@pytest.mark.parametrize("failures", [0, 2])
async def test_call_object(driver: Driver, failures: int) -> None:
    """Asked for its status, told of its end, or awaited by many, a call is carried to its end."""
    flaky = Flaky(*[DOWN] * failures)
    async with driver.served({"Retried": flaky.unary}) as (stub, _):
        call = stub.Retried(Message())
        ended = asyncio.Event()
        call.add_done_callback(lambda _: ended.set())
        await asyncio.wait_for(ended.wait(), 20)
        assert call.done()
        assert not call.cancel()
        assert await call.code() is grpc.StatusCode.OK
        expected = f"answer {failures + 1}"
        answers = await asyncio.gather(call, call, call)
        assert [answer.text for answer in answers] == [expected] * 3

        flaky.errors = [DOWN] * 4
        call = stub.Retried(Message())
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        assert (await failure(call)).reason == "DOWN"
        assert not call.cancelled()


async def test_streams_are_repeated_before_their_first_message(driver: Driver) -> None:
    """A server stream is tried again until it has begun, and not afterwards."""
    flaky = Flaky(DOWN, DOWN)
    async with driver.served({"RetriedStream": flaky.stream}) as (stub, _):
        assert [m.text for m in await collect(stub.RetriedStream(Message()))] == ["answer 3"]
        flaky.errors = [DOWN]
        error = await failure(collect(stub.RetriedStream(Message(text="late"))))
        assert error.reason == "DOWN"
        assert flaky.calls == 4


async def test_a_storm_is_stopped(driver: Driver) -> None:
    """Three tiers of four attempts over a leaf that fails: at most 1.2 leaf calls per edge call."""
    edge_calls = 60
    async with tiers(driver) as storm:
        for _ in range(edge_calls):
            await failure(storm.edge.Retried(Message()))
    assert edge_calls < storm.leaf_calls <= 1.2 * edge_calls


@every_call
async def test_only_the_nearest_tier_repeats(driver: Driver) -> None:
    """With budget to spare the leaf is called as often as one tier tries, not as all together."""
    leaf = Flaky(*[DOWN] * 1000)
    middle, edge = accord.Mesh("middle"), accord.Mesh("edge")
    stubs: list[Stub] = []

    async def relay(request: Any, context: Any) -> Any:
        return await stubs[0].Retried(request)

    async with (
        driver.serving(accord.Mesh("leaf"), {"Retried": leaf.unary}) as leaf_at,
        driver.serving(middle, {"Retried": relay}) as middle_at,
        driver.calling(middle, leaf_at) as below,
        driver.calling(edge, middle_at) as stub,
    ):
        stubs.append(below)
        with pytest.raises(grpc.RpcError) as caught:
            await stub.Retried(Message())
    assert leaf.calls == 4
    assert trailers_of(caught.value)["grpc-retry-pushback-ms"] == "-1"
    # A marked error says nothing about the middle.
    breaker = route(edge, "Retried").breaker
    assert (breaker.calls, breaker.failures) == (0, 0)


async def test_dark_mode(driver: Driver) -> None:
    """A policy in dark mode decides and counts, but does not act."""
    flaky = Flaky(*[DOWN] * 10)
    behaviours = {"Fragile": flaky.unary, "Retried": flaky.unary}
    async with driver.served(behaviours) as (stub, mesh):
        set_override = mesh.control.overrides.set
        set_override(path("Fragile"), NO_BREAKER)
        set_override(path("Retried"), mesh_pb2.Override(dark=[mesh_pb2.DARK_POLICY_RETRY]))
        for _ in range(5):
            assert (await failure(stub.Fragile(Message()))).reason == "DOWN"
        assert mesh.control.counts.of(path("Fragile"))["breaker.dark"] == 2
        await failure(stub.Retried(Message()))
        assert flaky.calls == 6
        assert mesh.control.counts.of(path("Retried"))["retry.dark"] == 1


async def test_refused_stream_says_so(driver: Driver) -> None:
    """A stream that an open breaker refuses has a status as any other, and is not opened."""
    opened = 0

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        nonlocal opened
        opened += 1
        raise DOWN
        yield

    async with driver.served({"ServerStream": stream}) as (stub, _):
        for _ in range(5):
            await failure(collect(stub.ServerStream(Message())))
        call = stub.ServerStream(Message())
        assert (await failure(collect(call))).reason == "CIRCUIT_OPEN"
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
    assert opened == 5


@every_call
async def test_what_cannot_be_sent_is_raised(driver: Driver) -> None:
    """A request that is none, or metadata that gRPC refuses, raises and holds no probe."""

    async def handler(request: Any, context: Any) -> Any:
        return request

    async with driver.echo({"Fragile": handler}) as stub:
        with pytest.raises((grpc.RpcError, TypeError)):
            await stub.Fragile("not a message")
        with pytest.raises(Exception, match=r"metadata|batch|x"):
            await stub.Fragile(Message(), metadata=(("x", 1),))
        assert (await stub.Fragile(Message(text="a"))).text == "a"
