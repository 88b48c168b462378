"""Services are watched once for all who look, and not at all when nobody does."""

import asyncio
from collections.abc import AsyncIterator

import grpc.aio
import pytest

import accord
from accord.ops.v1 import mesh_pb2 as pb
from accord.ops.v1.mesh_pb2_grpc import MeshServiceServicer, add_MeshServiceServicer_to_server
from services.console import watch
from services.console.edges import OPEN, calls_of, together
from services.console.html import Html
from services.console.live import Feeds
from services.console.watch import MeshWatch, Seen
from tests.support.wait import until

CHARGE = "shop.payments.v1.PaymentService/Charge"


class Service(MeshServiceServicer):
    """Says what it is told to, to whoever watches."""

    def __init__(self) -> None:
        self.watchers = 0
        self.begun = 0
        self.more: asyncio.Queue[pb.WatchStateResponse] = asyncio.Queue()

    async def WatchState(
        self, request: pb.WatchStateRequest, context: object
    ) -> AsyncIterator[pb.WatchStateResponse]:
        self.watchers += 1
        self.begun += 1
        try:
            yield pb.WatchStateResponse(state=pb.GetStateResponse(service="a"))
            while True:
                yield await self.more.get()
        finally:
            self.watchers -= 1


@pytest.fixture
async def service() -> AsyncIterator[tuple[Service, MeshWatch]]:
    """A service, and a watch of it that ends at once when nobody looks."""
    servicer = Service()  # type: ignore[abstract]  # it serves what the console asks
    server = grpc.aio.server()
    add_MeshServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    mesh = accord.Mesh("console", targets={"a": f"127.0.0.1:{port}"})
    watched = MeshWatch(mesh, ["a"])
    yield servicer, watched
    await watched.close()
    await mesh.close()
    await server.stop(None)


async def test_one_stream_for_all_viewers(
    service: tuple[Service, MeshWatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins with the first viewer, is the second's too, and ends with the last."""
    monkeypatch.setattr(watch, "LINGER", 0.0)
    servicer, watched = service
    assert servicer.begun == 0
    async with watched.viewer():
        async with watched.viewer():
            await until(lambda: watched.seen["a"].at, "the state")
        assert (servicer.watchers, servicer.begun) == (1, 1)
        assert watched.watching
    await until(lambda: not servicer.watchers, "the end of the watch")
    assert not watched.watching
    async with watched.viewer():
        await until(lambda: servicer.begun == 2, "another watch")


async def test_what_has_changed_is_taken(service: tuple[Service, MeshWatch]) -> None:
    """Fields that are named are replaced, others stay; edges are those of their key."""
    servicer, watched = service
    seen = watched.seen["a"]
    edge = pb.Edge(direction=pb.DIRECTION_OUT, peer="payments", method=CHARGE, calls=1)
    said = pb.WatchStateResponse(
        state=pb.GetStateResponse(budgets=[pb.Budget(target="payments")]),
        changed=["budgets"],
        edges=[edge],
    )
    async with watched.viewer():
        await servicer.more.put(said)
        await until(lambda: seen.edges, "the edge")
        assert (seen.state.service, len(seen.state.budgets)) == ("a", 1)
        edge.calls = 2
        before = watched.version
        await servicer.more.put(pb.WatchStateResponse(changed=["budgets"], edges=[edge]))
        await until(lambda: watched.version > before, "the change")
        assert (len(seen.state.budgets), [each.calls for each in seen.edges.values()]) == (0, [2])
        before = watched.version
        await servicer.more.put(pb.WatchStateResponse())
        await until(servicer.more.empty, "nothing new")
        assert watched.version == before


async def test_a_service_that_has_gone_keeps_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Since when is said, and why, until it is there again."""
    monkeypatch.setattr(watch, "AGAIN", 0.01)
    mesh = accord.Mesh("console", targets={"a": "127.0.0.1:1"})
    watched = MeshWatch(mesh, ["a"])
    async with watched.viewer():
        await until(lambda: watched.seen["a"].away_since, "the end")
        since = watched.seen["a"].away_since
        assert "UNAVAILABLE" in watched.seen["a"].problem
        version = watched.version
        await until(lambda: watched.version > version, "another try")
        assert watched.seen["a"].away_since == since
    await watched.close()
    await mesh.close()


def test_both_sides_of_a_call_are_one_row() -> None:
    """Counted once, by its caller; the other side adds how long it was handled."""
    out = pb.Edge(direction=pb.DIRECTION_OUT, peer="payments", method=CHARGE, calls=4, failures=1)
    out.breaker = OPEN
    out.errors["UNAVAILABLE"] = 1
    out.p99.FromMilliseconds(30)
    served = pb.Edge(direction=pb.DIRECTION_IN, method=CHARGE, calls=4)
    served.peer = "spiffe://shop.internal/orders"
    served.p99.FromMilliseconds(20)
    other = pb.Edge(direction=pb.DIRECTION_IN, peer="anonymous", method=CHARGE, calls=3)
    seen = {"orders": Seen(window=2.0), "payments": Seen(window=2.0)}
    seen["orders"].edges = {(2, "payments", CHARGE): out}
    seen["payments"].edges = {(1, served.peer, CHARGE): served, (1, "anonymous", CHARGE): other}
    for found in (calls_of(seen), calls_of(dict(reversed(seen.items())))):
        by_caller = {each.caller: each for each in found}
        row = by_caller["orders"]
        assert (row.callee, row.calls, row.rate, row.kind) == ("payments", 4, 2.0, "open")
        assert (row.p99, row.served_p99, dict(row.errors)) == (0.03, 0.02, {"UNAVAILABLE": 1})
        assert by_caller["anonymous"].calls == 3
        assert together(found)["orders", "payments"].breaker == OPEN


async def test_a_page_is_looked_up_once_for_all_who_look_at_it() -> None:
    """Each viewer gets what differs from what it has; the last who leaves ends the look-ups."""
    looked = 0

    async def load() -> tuple[dict[str, Html], float]:
        nonlocal looked
        looked += 1
        return {"a": Html("same"), "b": Html(str(min(looked, 3)))}, 0.01

    feeds = Feeds()
    first = feeds.follow("page", load, lambda: True)
    second = feeds.follow("page", load, lambda: True)
    assert (await anext(first)).startswith(":")
    assert (await anext(second)).startswith(":")
    assert '"a": "same"' in await anext(first)
    assert '"a"' in await anext(second)
    assert '"a"' not in await anext(first)
    assert feeds.viewers == 2
    await first.aclose()
    await second.aclose()
    assert feeds.viewers == 0
    now = looked
    await asyncio.sleep(0.05)
    assert looked == now
