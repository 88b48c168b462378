"""What an operator watches: the state as it changes, and the edges of a process from both sides."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration

import accord
from accord.admin.mesh_service import serve
from accord.admin.watch import Changes
from accord.contract.live_overrides import Layer
from accord.ops.v1 import mesh_pb2 as pb
from accord.ops.v1.mesh_pb2_grpc import MeshServiceStub
from accord.telemetry.edges import MAX_EDGES, WINDOW, Edges, Key
from accord.v1 import policy_pb2
from tests.accord.drivers import Driver
from tests.accord.kit import SERVICE, Message, Stub, eventually, failure, path, serving

OFTEN = pb.WatchStateRequest(interval=Duration(nanos=500_000_000))
UNARY, FLOORED = f"{SERVICE}/Unary", f"{SERVICE}/Floored"


@asynccontextmanager
async def watchable(mesh: accord.Mesh, **options: Any) -> AsyncIterator[MeshServiceStub]:
    """A server that serves the operator of a mesh, and a client of it."""
    server = mesh.server()
    serve(mesh, server, **options)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield MeshServiceStub(channel)
    await server.stop(None)


async def until(stream: Any, wanted: Callable[[pb.Edge], bool]) -> pb.Edge:
    """The first edge of a stream that is as wanted."""
    async with asyncio.timeout(20):
        async for response in stream:
            for edge in filter(wanted, response.edges):
                found: pb.Edge = edge
                return found
    raise AssertionError("the stream has ended")


def slow(mesh: accord.Mesh) -> accord.Mesh:
    """A mesh that leaves a call a minute."""
    policy = policy_pb2.MethodPolicy(timeout=Duration(seconds=60))
    mesh.control.overrides.set(path("Unary"), pb.Override(policy=policy))
    return mesh


async def test_an_edge_is_seen_from_both_sides(driver: Driver) -> None:
    """Caller and server count the same calls: how many, how they ended, how long they took."""
    seen = asyncio.Event()

    async def answer(request: Any, context: Any) -> Any:
        if request.text == "wait":
            await seen.wait()
        if request.text == "fail":
            raise accord.Unavailable("AWAY", 1.0)
        if request.text == "refuse":
            raise accord.NotFound()
        return request

    callee, caller = slow(accord.Mesh("callee")), slow(accord.Mesh("caller"))
    async with (
        driver.serving(callee, {"Unary": answer}) as target,
        driver.calling(caller, target) as stub,
        watchable(callee) as served,
        watchable(caller) as made,
    ):
        await stub.Unary(Message())  # before anybody looks
        assert not callee.control.edges.figures()[1]
        watched = [served.WatchState(OFTEN), made.WatchState(OFTEN)]
        first = [await anext(aiter(each)) for each in watched]
        assert [each.state.service for each in first] == ["callee", "caller"]
        assert [*first[0].edges, *first[1].edges] == []
        for text in ("a", "b"):
            await stub.Unary(Message(text=text))
        for text in ("fail", "refuse"):
            await failure(stub.Unary(Message(text=text)))
        edges = [
            await until(each, lambda edge: edge.method == UNARY and edge.calls == 4)
            for each in watched
        ]
        assert [edge.direction for edge in edges] == [pb.DIRECTION_IN, pb.DIRECTION_OUT]
        assert [edge.peer for edge in edges] == ["anonymous", target]
        assert edges[1].breaker == pb.BREAKER_POSITION_CLOSED
        for edge in edges:
            assert edge.errors == {"UNAVAILABLE": 1, "NOT_FOUND": 1}
            assert (edge.failures, edge.in_flight) == (1, 0)
            assert 0 < edge.p50.ToNanoseconds() <= edge.p99.ToNanoseconds() < 20 * 10**9
        waiting = asyncio.ensure_future(_awaited(stub.Unary(Message(text="wait"))))
        for each in watched:
            await until(each, lambda edge: edge.in_flight == 1)
        seen.set()
        await waiting
        for each in watched:
            each.cancel()
        await eventually(lambda: not callee.control.edges.watched)
        assert not callee.control.edges.figures()[1]


async def _awaited(call: Any) -> Any:
    return await call


async def test_only_what_has_changed_is_sent_again() -> None:
    """The first response has all; a later one the fields that differ, and their names."""
    mesh = accord.Mesh("callee")
    events = [pb.EventEdge(direction=pb.DIRECTION_IN, source="orders", waiting=3)]
    async with watchable(mesh, events=lambda: list(events)) as operator:
        stream = aiter(operator.WatchState(OFTEN))
        first = await anext(stream)
        assert {"service", "limit"} <= {*first.changed}
        assert [(each.source, each.waiting) for each in first.event_edges] == [("orders", 3)]
        slow(mesh)
        mesh.control.overrides.replace({"a.B/C": "[]"}, Layer.FILE)
        async with asyncio.timeout(20):
            while "methods" not in (second := await anext(stream)).changed:
                assert not second.state.methods
        assert (second.state.service, len(second.event_edges)) == ("", 0)
        assert [each.method for each in second.state.methods] == [UNARY]
        mesh.control.overrides.clear(path("Unary"))
        async with asyncio.timeout(20):
            while "methods" not in (third := await anext(stream)).changed:
                pass
        assert not third.state.methods


@pytest.mark.parametrize("interval", [Duration(), Duration(seconds=61), Duration(seconds=-1)])
async def test_an_interval_out_of_range_is_refused(interval: Duration) -> None:
    """Nobody is watched a thousand times a second, nor once an hour."""
    async with watchable(accord.Mesh("callee")) as operator:
        stream = operator.WatchState(pb.WatchStateRequest(interval=interval))
        with pytest.raises(grpc.RpcError) as caught:
            await anext(aiter(stream))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_methods_are_listed_that_nothing_has_happened_to() -> None:
    """All of the contracts served and called, with the contract, what holds and who changed it."""
    mesh = accord.Mesh("callee")
    mesh.channel("127.0.0.1:1", SERVICE)
    async with watchable(mesh) as operator:
        found = (await operator.ListMethods(pb.ListMethodsRequest(page_size=500))).methods
        names = [each.method for each in found]
        assert names == sorted(names)
        assert {UNARY, FLOORED, "accord.ops.v1.MeshService/ListMethods"} <= {*names}
        by_name = {each.method: each for each in found}
        floored = by_name[FLOORED]
        assert (floored.served, floored.contract.floor.timeout.seconds) == (False, 1)
        assert floored.contract == floored.policy
        assert floored.contract.HasField("breaker")  # a default of the service
        assert by_name["accord.ops.v1.MeshService/GetState"].served

        policy = policy_pb2.MethodPolicy(timeout=Duration(seconds=9))
        override = pb.Override(policy=policy)
        request = pb.SetOverrideRequest(method=FLOORED, override=override, reason="slow")
        await operator.SetOverride(request)
        page = await operator.ListMethods(pb.ListMethodsRequest(method_prefix=FLOORED))
        [changed] = page.methods
        assert (changed.policy.timeout.seconds, changed.source) == (9, pb.SOURCE_LIVE)
        assert changed.contract == floored.contract
        assert (changed.override_principal, changed.override_reason) == ("anonymous", "slow")
        mesh.control.overrides.clear(path("Floored"))
        mesh.control.overrides.set(path("Floored"), override)  # as if another process had
        [changed] = (
            await operator.ListMethods(pb.ListMethodsRequest(method_prefix=FLOORED))
        ).methods
        assert changed.override_principal == ""

        paged, wanted = list[str](), pb.ListMethodsRequest(page_size=7)
        while True:
            answer = await operator.ListMethods(wanted)
            paged += [each.method for each in answer.methods]
            wanted.page_token = answer.next_page_token
            if not wanted.page_token:
                break
        assert paged == names
    await mesh.close()


async def test_what_the_cache_has_answered_is_listed() -> None:
    """A method that is called has its calls and the figures of its cache, by target."""

    async def answer(request: Any, context: Any) -> Any:
        return request

    mesh = accord.Mesh("caller")
    async with serving(accord.Mesh("callee"), {"Cached": answer}) as address:
        stub = Stub(mesh.channel(address))
        for _ in range(3):
            await stub.Cached(Message(text="x"))
        async with watchable(mesh) as operator:
            request = pb.ListMethodsRequest(method_prefix=f"{SERVICE}/Cached")
            [found] = (await operator.ListMethods(request)).methods
            [called] = found.called
            assert (called.target, called.cache_hits, called.cache_misses) == (address, 2, 1)
    await mesh.close()


def test_figures_are_of_the_last_seconds() -> None:
    """What is older falls out; half of the calls and 99 % of them took at most so long."""
    now = 1000.0
    edges = Edges(lambda: now)
    key = Key(True, "spiffe://x/orders", UNARY)
    with edges.watching():
        for milliseconds in range(1, 101):
            call = edges.begin(key, now - milliseconds / 1000)
            assert call is not None
            call.end("OK" if milliseconds > 10 else "NOT_FOUND")
        window, found = edges.figures()
        figures = found[key]
        assert (window, figures.codes) == (0.0, {"OK": 90, "NOT_FOUND": 10})
        assert 0.050 <= figures.p50 <= 0.050 * 1.1
        assert 0.099 <= figures.p99 <= 0.099 * 1.1
        now += WINDOW - 1
        assert edges.figures()[1][key].codes.total() == 100
        now += 1
        window, found = edges.figures()
        assert 0 < window <= WINDOW
        assert (found[key].codes.total(), found[key].p99) == (0, 0.0)


def test_nothing_is_said_while_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watcher hears of a quiet process only until its figures are of all their seconds."""
    mesh, now = accord.Mesh("quiet"), 1000.0
    monkeypatch.setattr(mesh.control.edges, "_clock", lambda: now)
    changes = Changes(mesh, lambda: ())
    with mesh.control.edges.watching():
        assert changes.next() is not None
        now += 1
        assert changes.next() is not None
        now += WINDOW
        assert changes.next() is None
        mesh.control.overrides.set(path("Unary"), pb.Override())
        said = changes.next()
        assert said is not None
        assert "methods" in said.changed
        assert changes.next() is None


def test_the_edges_of_a_process_are_bounded() -> None:
    """Peers beyond a thousand are one; gRPC's own calls are none."""
    edges = Edges(lambda: 0.0)
    with edges.watching():
        for number in range(MAX_EDGES + 5):
            edges.begin(Key(True, f"peer {number}", UNARY), 0.0)
        assert edges.begin(Key(True, "probe", "/grpc.health.v1.Health/Check"), 0.0) is None
        found = edges.figures()[1]
    assert len(found) == MAX_EDGES + 1
    assert found[Key(True, "", "/other")].in_flight == 5


def test_edges_are_safe_under_threads() -> None:
    """No call of many threads is lost, and none stays in flight."""
    edges, key = Edges(lambda: 0.0), Key(False, "payments", UNARY)

    def calls(_: int) -> None:
        for _ in range(500):
            call = edges.begin(key, 0.0)
            assert call is not None
            call.end("OK")

    with edges.watching(), ThreadPoolExecutor(8) as threads:
        list(threads.map(calls, range(8)))
        figures = edges.figures()[1][key]
    assert (figures.codes.total(), figures.in_flight) == (4000, 0)
