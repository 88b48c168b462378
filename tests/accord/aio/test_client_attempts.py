"""What the client does on its own: retries, hedges, breakers, kept answers and fallbacks."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

import accord
from accord import context
from accord.client.request import AT_LEAST_KEY, MAX_ATTEMPTS_KEY, POSITION_KEY
from accord.contract import method_policy
from accord.ops.v1 import mesh_pb2
from accord.policies.breaker import Breaker, BreakerPolicy, Permission, State
from accord.policies.outcome import Outcome
from tests.accord.kit import Message, Stub, collect, eventually, failure, path, serving
from tests.accord.tiers import tiers

DOWN = accord.Unavailable("DOWN")


class Flaky:
    """A handler that fails in a given way for its first calls, and counts all of them."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0
        self.attempts: list[int] = []

    async def unary(self, request: Any, context: Any) -> Any:
        self.calls += 1
        call = accord.current()
        self.attempts.append(call.attempt if call is not None else -1)
        if self.errors:
            raise self.errors.pop(0)
        return Message(text=f"answer {self.calls}")

    async def stream(self, request: Any, context: Any) -> AsyncIterator[Any]:
        if request.text == "late":
            yield Message(text="first")
        yield await self.unary(request, context)


@asynccontextmanager
async def served(
    behaviours: dict[str, Callable[..., Any]], **options: Any
) -> AsyncIterator[tuple[Stub, accord.Mesh]]:
    """A server and a client with `options`; yields the stub and the client's mesh."""
    caller = accord.Mesh("caller", **options)
    async with serving(accord.Mesh("callee", idempotency="handler"), behaviours) as address:
        try:
            yield Stub(caller.channel(address)), caller
        finally:
            await caller.close()


def route(mesh: accord.Mesh, method: str) -> Any:
    """What the mesh knows of a method."""
    (found,) = (found for found in mesh.snapshot().routes if found.method == path(method))
    return found


async def test_retries_until_it_works() -> None:
    """A call goes on after failures of a listed code, and each attempt says its number."""
    flaky = Flaky(DOWN, DOWN, DOWN)
    async with served({"Retried": flaky.unary}) as (stub, mesh):
        assert (await stub.Retried(Message())).text == "answer 4"
        assert flaky.attempts == [0, 1, 2, 3]
        assert (route(mesh, "Retried").calls, route(mesh, "Retried").retries) == (1, 3)


async def test_attempts_are_bounded() -> None:
    """When all attempts have failed the last error is raised, and says that it was retried."""
    flaky = Flaky(*[DOWN] * 9)
    async with served({"Retried": flaky.unary}) as (stub, _):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Retried(Message())
    assert flaky.calls == 4
    assert accord.ServiceError.from_rpc(caught.value).reason == "DOWN"
    assert getattr(caught.value, "accord_exhausted", False)


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
    method: str, metadata: tuple[tuple[str, str], ...], expected: int
) -> None:
    """Only what the contract says, only what is safe, and never more than the caller allows."""
    flaky = Flaky(*[DOWN] * 9)
    async with served({method: flaky.unary}) as (stub, _):
        await failure(getattr(stub, method)(Message(), metadata=metadata))
    assert flaky.calls == expected


@pytest.mark.parametrize("error", [accord.NotFound(), accord.Aborted("LOST")])
async def test_other_codes_are_not_repeated(error: accord.ServiceError) -> None:
    """A code that the contract does not list is the answer."""
    flaky = Flaky(error)
    async with served({"Retried": flaky.unary}) as (stub, _):
        assert (await failure(stub.Retried(Message()))).code is error.code
    assert flaky.calls == 1


@pytest.mark.parametrize(
    ("pushback", "calls"), [("-1", 1), ("soon", 1), ("99999", 1), ("0", 2), ("50", 2)]
)
async def test_pushback_is_obeyed(pushback: str, calls: int) -> None:
    """A server says when to come back, or never, and what outlasts the call is not waited for."""
    seen = 0
    loop = asyncio.get_running_loop()
    times: list[float] = []

    async def handler(request: Any, context: Any) -> Any:
        nonlocal seen
        seen += 1
        times.append(loop.time())
        if seen == 1:
            context.set_trailing_metadata((("grpc-retry-pushback-ms", pushback),))
            await context.abort(grpc.StatusCode.UNAVAILABLE, "later")
        return Message()

    async with served({"Retried": handler}) as (stub, _):
        if calls == 1:
            await failure(stub.Retried(Message()))
        else:
            await stub.Retried(Message())
    assert seen == calls
    if pushback == "50":
        assert times[1] - times[0] >= 0.045


async def test_retry_info_is_obeyed() -> None:
    """The RetryInfo of an error is as good as a pushback."""
    flaky = Flaky(accord.Unavailable("DOWN", retry_after=0.1))
    async with served({"Retried": flaky.unary}, random=lambda: 0.0) as (stub, _):
        start = asyncio.get_running_loop().time()
        await stub.Retried(Message())
        assert asyncio.get_running_loop().time() - start >= 0.095


async def test_deadline_spans_all_attempts() -> None:
    """The caller's timeout is for all attempts together."""

    async def slow(request: Any, context: Any) -> Any:
        await asyncio.sleep(0.08)
        raise DOWN

    async with served({"Retried": slow}) as (stub, _):
        start = asyncio.get_running_loop().time()
        error = await failure(stub.Retried(Message(), timeout=0.2))
        assert asyncio.get_running_loop().time() - start < 0.4
    assert error.code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)


async def test_cancel_between_attempts() -> None:
    """A call can be cancelled while it waits for its next attempt."""
    flaky = Flaky(accord.Unavailable("DOWN", retry_after=1.0))
    async with served({"Retried": flaky.unary}) as (stub, _):
        call = stub.Retried(Message())
        await eventually(lambda: flaky.calls == 1)
        await asyncio.sleep(0.02)  # the answer is on its way
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await call.code() is grpc.StatusCode.CANCELLED
    assert flaky.calls == 1


async def test_streams_are_repeated_before_their_first_message() -> None:
    """A server stream is tried again until it has begun, and not afterwards."""
    flaky = Flaky(DOWN, DOWN)
    async with served({"RetriedStream": flaky.stream}) as (stub, _):
        assert [m.text for m in await collect(stub.RetriedStream(Message()))] == ["answer 3"]
        flaky.errors = [DOWN]
        error = await failure(collect(stub.RetriedStream(Message(text="late"))))
        assert error.reason == "DOWN"
        assert flaky.calls == 4


async def test_a_storm_is_stopped() -> None:
    """Three tiers of four attempts over a leaf that fails: at most 1.2 leaf calls per edge call."""
    edge_calls = 60
    async with tiers() as storm:
        for _ in range(edge_calls):
            await failure(storm.edge.Retried(Message()))
    assert edge_calls < storm.leaf_calls <= 1.2 * edge_calls


async def test_only_the_nearest_tier_repeats() -> None:
    """With budget to spare the leaf is called as often as one tier tries, not as all together."""
    leaf = Flaky(*[DOWN] * 1000)
    middle, edge = accord.Mesh("middle"), accord.Mesh("edge")
    stubs: list[Stub] = []

    async def relay(request: Any, context: Any) -> Any:
        return await stubs[0].Retried(request)

    async with (
        serving(accord.Mesh("leaf"), {"Retried": leaf.unary}) as leaf_at,
        serving(middle, {"Retried": relay}) as middle_at,
    ):
        stubs.append(Stub(middle.channel(leaf_at)))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await Stub(edge.channel(middle_at)).Retried(Message())
        await edge.close()
        await middle.close()
    assert leaf.calls == 4
    assert caught.value.trailing_metadata()["grpc-retry-pushback-ms"] == "-1"  # type: ignore[call-overload]
    # A marked error says nothing about the middle.
    breaker = route(edge, "Retried").breaker
    assert (breaker.calls, breaker.failures) == (0, 0)


async def test_hedge_wins() -> None:
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

    async with served({"Hedged": handler}) as (stub, mesh):
        for _ in range(25):
            await stub.Hedged(Message())
        await stub.Hedged(Message(text="stall"))
        await eventually(lambda: (stalled, cancelled) == (1, 1))
        assert route(mesh, "Hedged").hedge.sent >= 1


async def test_cancel_reaches_both_of_a_hedge() -> None:
    """Cancelling a hedged call cancels both of its attempts."""
    started, cancelled = 0, 0

    async def handler(request: Any, context: Any) -> Any:
        nonlocal started, cancelled
        if request.text != "stall":
            return request
        started += 1
        try:
            await asyncio.sleep(3)
        except asyncio.CancelledError:
            cancelled += 1
            raise

    async with served({"Hedged": handler}) as (stub, _):
        for _ in range(25):
            await stub.Hedged(Message())
        call = stub.Hedged(Message(text="stall"))
        await eventually(lambda: started == 2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await eventually(lambda: cancelled == 2)


async def test_breaker_opens_probes_and_closes() -> None:
    """After failures calls are refused at once, then exactly the probes pass, then all."""
    flaky = Flaky(*[DOWN] * 3)
    release = asyncio.Event()

    async def handler(request: Any, context: Any) -> Any:
        found = await flaky.unary(request, context)
        await release.wait()
        return found

    async with served({"Fragile": handler}) as (stub, mesh):
        for _ in range(3):
            await failure(stub.Fragile(Message()))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Fragile(Message())
        error = accord.ServiceError.from_rpc(caught.value)
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "CIRCUIT_OPEN")
        assert error.retry_after is not None
        assert 0 < error.retry_after <= 0.2
        assert getattr(caught.value, "accord_exhausted", False)
        assert flaky.calls == 3

        await eventually(lambda: route(mesh, "Fragile").breaker.state is State.HALF_OPEN)
        crowd = [asyncio.ensure_future(failure(stub.Fragile(Message()))) for _ in range(200)]
        await eventually(lambda: flaky.calls == 5 and sum(task.done() for task in crowd) == 198)
        release.set()
        await asyncio.gather(*crowd, return_exceptions=True)
        assert route(mesh, "Fragile").breaker.state is State.CLOSED
        assert (await stub.Fragile(Message())).text == "answer 6"


async def test_cancelled_probe_gives_its_place_back() -> None:
    """A probe that its caller cancels, or drops, leaves its place to the next one."""
    flaky = Flaky(*[DOWN] * 3)

    async def handler(request: Any, context: Any) -> Any:
        found = await flaky.unary(request, context)
        if request.text == "hold":
            await asyncio.sleep(5)
        return found

    async with served({"Fragile": handler}) as (stub, mesh):
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


def test_probes_are_exact() -> None:
    """A thousand callers at half-open: exactly the configured probes, in 200 repetitions."""
    for repetition in range(200):
        probes = repetition % 5 + 1
        now = 0.0
        breaker = Breaker(
            BreakerPolicy(probes=probes, consecutive_failures=1),
            clock=lambda: now,  # noqa: B023 - read at once
            random=lambda: 0.5,
        )
        permission = breaker.admit()
        assert isinstance(permission, Permission)
        breaker.record(permission, Outcome.FAILURE)
        now = 11.0
        admitted = [breaker.admit() for _ in range(1000)]
        assert sum(isinstance(found, Permission) for found in admitted) == probes


async def test_answers_are_kept() -> None:
    """A declared answer is served again, as a copy, until a write through the same mesh."""
    flaky = Flaky()
    async with served({"Cached": flaky.unary, "Put": flaky.unary}) as (stub, mesh):
        first = await stub.Cached(Message(text="a"))
        first.text = "changed by its caller"
        again = stub.Cached(Message(text="a"))
        assert (await again).text == "answer 1"
        assert await again.code() is grpc.StatusCode.OK
        assert (await stub.Cached(Message(text="b"))).text == "answer 2"
        await stub.Put(Message())
        assert (await stub.Cached(Message(text="a"))).text == "answer 4"
        found = route(mesh, "Cached")
        assert (found.cache_hits, found.cache_misses) == (1, 3)
        (target,) = mesh.snapshot().targets
        assert target.budget.calls == flaky.calls == 4  # what was not sent earns no retries


async def test_consistency_token_passes_old_answers_by() -> None:
    """A caller that has seen a later position is not served an answer from before it."""
    position = 5

    async def handler(request: Any, context: Any) -> Any:
        context.set_trailing_metadata(((POSITION_KEY, str(position)),))
        return Message(after=position)

    async with served({"Cached": handler}) as (stub, _):
        assert (await stub.Cached(Message())).after == 5
        position = 9
        seen_5 = await stub.Cached(Message(), metadata=((AT_LEAST_KEY, "5"),))
        seen_6 = await stub.Cached(Message(), metadata=((AT_LEAST_KEY, "6"),))
        assert (seen_5.after, seen_6.after) == (5, 9)


async def test_principals_do_not_share_answers() -> None:
    """What is kept for one principal is not served to another."""
    flaky = Flaky()
    async with served({"Cached": flaky.unary}) as (stub, _):
        answers = []
        for principal in ("alice", "bob", "alice"):

            async def call(principal: str = principal) -> str:
                context.enter(
                    accord.CallContext(
                        "caller", method_policy(path("Unary")), None, lambda: 0.0, principal
                    )
                )
                return str((await stub.Cached(Message())).text)

            answers.append(await asyncio.create_task(call()))
    assert answers == ["answer 1", "answer 2", "answer 1"]


async def test_fallbacks() -> None:
    """A fallback answers after the attempts, for lost targets only, or leaves the error."""
    flaky = Flaky(*[DOWN] * 4, accord.NotFound(), *[DOWN] * 8)
    seen: list[tuple[str, str]] = []

    async def fallback(request: Any, error: grpc.aio.AioRpcError) -> Any:
        seen.append((request.text, error.code().name))
        if request.text == "fail":
            raise RuntimeError
        return None if request.text == "none" else Message(text="instead")

    async with served({"Retried": flaky.unary}) as (stub, mesh):
        mesh.fallback("accordtest.v1.EchoService/Retried", fallback)
        call = stub.Retried(Message(text="a"))
        assert (await call).text == "instead"
        assert flaky.calls == 4
        assert (await failure(stub.Retried(Message(text="b")))).reason == "NOT_FOUND"
        assert (await failure(stub.Retried(Message(text="none")))).reason == "DOWN"
        assert (await failure(stub.Retried(Message(text="fail")))).code.name == "UNAVAILABLE"
        assert seen == [("a", "UNAVAILABLE"), ("none", "UNAVAILABLE"), ("fail", "UNAVAILABLE")]
        assert route(mesh, "Retried").fallbacks == 1


async def test_fallback_answers_for_an_open_breaker() -> None:
    """A synchronous fallback stands in while the circuit is open."""
    flaky = Flaky(*[DOWN] * 3)
    async with served({"Fragile": flaky.unary}) as (stub, mesh):
        for _ in range(3):
            await failure(stub.Fragile(Message()))
        mesh.fallback("accordtest.v1.EchoService/Fragile", lambda request, error: request)
        assert (await stub.Fragile(Message(text="a"))).text == "a"
        assert flaky.calls == 3


async def test_dark_mode() -> None:
    """A policy in dark mode decides and counts, but does not act."""
    flaky = Flaky(*[DOWN] * 10)
    async with served({"Fragile": flaky.unary, "Retried": flaky.unary}) as (stub, mesh):
        set_override = mesh.control.overrides.set
        set_override(path("Fragile"), mesh_pb2.Override(dark=[mesh_pb2.DARK_POLICY_BREAKER]))
        set_override(path("Retried"), mesh_pb2.Override(dark=[mesh_pb2.DARK_POLICY_RETRY]))
        for _ in range(5):
            assert (await failure(stub.Fragile(Message()))).reason == "DOWN"
        assert mesh.control.counts.of(path("Fragile"))["breaker.dark"] == 2
        await failure(stub.Retried(Message()))
        assert flaky.calls == 6
        assert mesh.control.counts.of(path("Retried"))["retry.dark"] == 1


@pytest.mark.parametrize("method", ["Retried", "Hedged", "Cached", "Keyed"])
async def test_wait_for(method: str) -> None:
    """`wait_for` around a call that policies handle ends in time and reaches the server."""
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(request: Any, context: Any) -> Any:
        started.set()
        try:
            await asyncio.sleep(5)
        finally:
            cancelled.set()

    async with served({method: handler}) as (stub, _):
        call = getattr(stub, method)(Message(), metadata=accord.idempotency_key("k"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call, 0.2)
        assert started.is_set()
        await asyncio.wait_for(cancelled.wait(), 2)


@pytest.mark.parametrize("failures", [0, 2])
async def test_call_object(failures: int) -> None:
    """Asked for its status, told of its end, or awaited by many, a call is carried to its end."""
    flaky = Flaky(*[DOWN] * failures)
    async with served({"Retried": flaky.unary}) as (stub, _):
        call = stub.Retried(Message())
        ended = asyncio.Event()
        call.add_done_callback(lambda _: ended.set())
        await ended.wait()
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
