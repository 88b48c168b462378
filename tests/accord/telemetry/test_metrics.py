"""Metrics, for those who install an SDK: gRPC's own instruments and the library's."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

import accord
from accord.telemetry import metrics
from tests.accord.drivers import Driver
from tests.accord.kit import Message, bound, collect, eventually, failure, patient
from tests.support.telemetry import Metrics, key

SERVICE = "accordtest.v1.EchoService"


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Metrics:
    """The metrics of this test."""
    return Metrics(monkeypatch)


async def _unary(request: Any, context: Any) -> Any:
    if request.text == "refuse":
        raise accord.NotFound()
    return request


async def _stream(request: Any, context: Any) -> AsyncIterator[Any]:
    for _ in range(3):
        yield request


async def test_durations_and_sizes(
    driver: Driver, meter: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls are counted, timed and measured on both sides, by method, target and status."""
    monkeypatch.setattr(metrics, "_sizes", False)  # back to what it is after the test
    handlers = {"Unary": _unary, "ServerStream": _stream}
    stream = key(grpc__method=f"{SERVICE}/ServerStream", grpc__status="OK")
    async with driver.echo(handlers, message_sizes=True) as stub:
        for _ in range(3):
            await stub.Unary(Message(text="x"))
        await failure(stub.Unary(Message(text="refuse")))
        await collect(stub.ServerStream(Message(text="y")))
        target = stub._channel._attempts._target
        # A server may give account of a call after it has answered it.
        await eventually(lambda: meter.collect()["grpc.server.call.duration"].keys() >= {stream})
        found = meter.collect()
    method = {"grpc__method": f"{SERVICE}/Unary"}
    route = {**method, "grpc__target": target}
    for name, labels in (
        ("grpc.client.call.duration", route),
        ("grpc.client.attempt.duration", route),
        ("grpc.server.call.duration", method),
    ):
        points = found[name]
        assert points[key(**labels, grpc__status="OK")].count == 3
        assert points[key(**labels, grpc__status="NOT_FOUND")].count == 1
        assert tuple(points[key(**labels, grpc__status="OK")].explicit_bounds) == metrics.LATENCY
    assert found["grpc.client.attempt.started"][key(**route)].value == 4
    assert found["grpc.server.call.started"][key(**method)].value == 4
    size = len(Message(text="x").SerializeToString())
    for way, messages in (("sent", 3), ("rcvd", 1)):
        points = found[f"grpc.server.call.{way}_total_compressed_message_size"]
        assert points[key(**method, grpc__status="OK")].sum == 3 * size
        assert points[stream].sum == messages * size
        assert tuple(points[stream].explicit_bounds) == metrics.SIZE


async def test_sizes_are_asked_for(driver: Driver, meter: Metrics) -> None:
    """Unless a mesh asks for them, sizes of messages are not recorded."""
    async with driver.echo({"Unary": _unary}) as stub:
        await stub.Unary(Message(text="x"))
        found = meter.collect()
    assert "grpc.server.call.duration" in found
    assert not [name for name in found if name.endswith("_size")]


async def test_repeats_are_counted(driver: Driver, meter: Metrics) -> None:
    """Retries, hedges and the time between attempts are histograms per call, without zeros."""
    calls = 0

    async def flaky(request: Any, context: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls <= 2:
            raise accord.Unavailable("BUSY", 0.02)
        return request

    async def stalling(request: Any, context: Any) -> Any:
        call = accord.current()
        if request.text and call is not None and call.attempt == 0:
            await asyncio.sleep(60)
        return request

    async with driver.echo({"Retried": flaky, "Hedged": stalling}) as stub:
        await stub.Retried(Message())
        await stub.Retried(Message())
        for _ in range(25):
            await stub.Hedged(Message())
        await stub.Hedged(Message(text="stall"))
        found = meter.collect()
    (retries,) = found["grpc.client.call.retries"].values()
    assert (retries.count, retries.sum) == (1, 2)
    (delay,) = found["grpc.client.call.retry_delay"].values()
    assert delay.sum >= 0.04
    (hedges,) = found["grpc.client.call.hedges"].values()
    assert hedges.sum >= 1
    assert tuple(hedges.explicit_bounds) == metrics.REPEATS
    (sent,) = found["accord.client.hedge.sent"].values()
    assert sent.value == hedges.sum


async def test_states_are_read(driver: Driver, meter: Metrics) -> None:
    """Breakers, budgets, caches, fallbacks, limiters and decisions show as they are."""

    async def broken(request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    release = asyncio.Event()

    async def hold(request: Any, context: Any) -> Any:
        await release.wait()
        return request

    caller = accord.Mesh("caller")
    callee = accord.Mesh("callee")
    bound(callee, "Unary", 1)
    patient(caller)
    async with driver.serving(
        callee, {"Fragile": broken, "Cached": _unary, "Unary": hold}
    ) as address:
        stub = driver.stub(caller, address)
        caller.fallback(f"{SERVICE}/Fragile", lambda request, error: request)
        for _ in range(3):
            await stub.Cached(Message())
        held = asyncio.ensure_future(stub.Unary(Message()))
        await eventually(lambda: callee.control.limiter.snapshot().in_flight == 1)
        await failure(stub.Unary(Message()))
        for _ in range(4):
            await stub.Fragile(Message())
        found = meter.collect()
        release.set()
        await held
        await driver.close(caller)
    where = {"grpc__target": address}
    fragile = {**where, "grpc__method": f"{SERVICE}/Fragile"}
    states = {
        state: found["accord.client.breaker.state"][
            key(**fragile, accord__breaker__state=state)
        ].value
        for state in ("closed", "open", "half_open")
    }
    assert states == {"closed": 0, "open": 1, "half_open": 0}
    assert found["accord.client.breaker.opened"][key(**fragile)].value == 1
    assert found["accord.client.breaker.refused"][key(**fragile)].value == 1
    assert found["accord.client.fallbacks"][key(**fragile)].value == 4
    assert found["accord.client.budget.balance"][key(**where)].value > 0
    cached = {**where, "grpc__method": f"{SERVICE}/Cached"}
    requests = found["accord.client.cache.requests"]
    assert requests[key(**cached, accord__cache__result="hit")].value == 2
    assert requests[key(**cached, accord__cache__result="miss")].value == 1
    assert found["accord.client.cache.entries"][key(**where)].value == 1
    decisions = found["accord.decisions"]
    refused = key(grpc__method=f"{SERVICE}/Unary", accord__decision="limit.refused.DEFAULT")
    assert decisions[refused].value == 1
    assert found["accord.server.limit"][key(grpc__method=f"{SERVICE}/Unary")].value == 1
    of_meshes = ("in_flight", "queued", "shed", "delay", "overloaded")
    assert {f"accord.server.{name}" for name in of_meshes} <= found.keys()


async def test_labels_are_bounded(meter: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no descriptor describes, and what comes after the bound, is "other"."""
    monkeypatch.setattr(metrics, "MAX_METHODS", 2)
    monkeypatch.setattr(metrics, "MAX_TARGETS", 2)
    found = metrics.instruments()
    assert found is not None
    known = [f"/{SERVICE}/{name}" for name in ("Unary", "Put", "Charge")]
    for number in range(50):
        found.client("a", f"/made.Up/Method{number}").attempts += 1
        found.server(f"/made.Up/Method{number}").started += 1
        found.client(f"target-{number}", known[0]).attempts += 1
    for method in known:
        found.client("a", method).attempts += 1
    points = meter.collect()
    attempts = points["grpc.client.attempt.started"]
    assert attempts[key(grpc__method="other", grpc__target="a")].value == 51
    assert attempts[key(grpc__method=known[0][1:], grpc__target="other")].value == 49
    assert len(attempts) == 5
    assert [point.value for point in points["grpc.server.call.started"].values()] == [50]


async def test_off_is_off(driver: Driver) -> None:
    """Without a provider nothing is made, and calls carry no observer."""
    assert metrics.instruments() is None
    async with driver.echo({"Unary": _unary}) as stub:
        call = stub.Unary(Message())
        assert (call if driver.aio else call._call)._outgoing.call.observer is None
        await call
