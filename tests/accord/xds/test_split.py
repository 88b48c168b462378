"""Which version of a target gets which calls, with real servers and a file that changes."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import accord
from accord.admin.mesh_service import MeshServicer
from accord.identity import Identity
from accord.ops.v1 import mesh_pb2
from tests.accord.drivers import Driver, ways
from tests.accord.kit import Message, Stub, eventually, path
from tests.accord.xds.kit import CALLER, Backend, backend, called, joined, until_only, until_seen
from tests.accord.xds.test_fleet import write

AT_ONCE = 20


async def many(stub: Stub, calls: int, **options: Any) -> Counter[str]:
    """As `called`, a few at once."""
    found = await asyncio.gather(
        *(called(stub, calls // AT_ONCE, **options) for _ in range(AT_ONCE))
    )
    return sum(found, Counter())


class Versions:
    """Two versions of a target, one server each, and a mesh that obeys a file of routes."""

    def __init__(self, one: Backend, two: Backend, file: Path, mesh: accord.Mesh) -> None:
        self.one, self.two, self.file, self.mesh = one, two, file, mesh

    def route(self, one: int, two: int, **more: object) -> None:
        """Write the file."""
        versions = {"v1": self.one.address, "v2": self.two.address}
        write(self.file, orders={"versions": versions, "weights": {"v1": one, "v2": two}, **more})


@asynccontextmanager
async def versions(
    caller: Identity, orders: Identity, tmp_path: Path, one: int, two: int, **more: object
) -> AsyncIterator[Versions]:
    """Both of them; the file has these weights at the start."""
    file = tmp_path / "routes.json"
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(backend(orders, each)) for each in "ab"]
        mesh = accord.Mesh("caller", identity=caller, routes=file)
        found = Versions(servers[0], servers[1], file, mesh)
        found.route(one, two, **more)
        await joined(mesh, "orders")
        try:
            yield found
        finally:
            await mesh.close()


async def test_five_percent_are_five_percent(
    caller: Identity, orders: Identity, tmp_path: Path
) -> None:
    """Of 10,000 calls 5 % go to the canary, within 0.7 points; a change holds within a second."""
    async with versions(caller, orders, tmp_path, 95, 5) as found:
        stub = Stub(found.mesh.channel("orders"))
        await until_seen(stub, "a", "b")
        answers = await many(stub, 10_000)
        assert answers.total() == answers["a"] + answers["b"] == 10_000
        assert abs(answers["b"] / 100 - 5) <= 0.7, answers
        found.route(0, 1)
        began = time.monotonic()
        while await called(stub, 3) != {"b": 3}:
            assert time.monotonic() - began < 1.0
        assert await many(stub, 200) == {"b": 200}


@ways("aio", "blocking")
async def test_a_bad_canary_is_taken_out(
    driver: Driver, caller: Identity, orders: Identity, tmp_path: Path
) -> None:
    """A version that fails half of its calls is left out, and its share goes to the other."""
    async with versions(caller, orders, tmp_path, 80, 20) as found:
        stub = driver.stub(found.mesh, "orders")
        await until_seen(stub, "a", "b")
        found.two.fails = lambda: random.random() < 0.5
        began, before = time.monotonic(), Counter[str]()
        async with asyncio.timeout(30):
            while (last := await many(stub, 200)) != {"a": 200}:
                before += last
        assert before["INTERNAL"] > 0
        assert time.monotonic() - began < 15
        assert await many(stub, 400) == {"a": 400}


async def test_calls_with_a_header_go_elsewhere(
    driver: Driver, caller: Identity, orders: Identity, tmp_path: Path
) -> None:
    """A rule for a header takes its calls, whatever the weights say; a fallback steps in."""
    rule = {"headers": {"x-canary": "yes"}, "weights": {"v2": 1}, "fallback": ["v1"]}
    async with versions(caller, orders, tmp_path, 1, 0, rules=[rule]) as found:
        stub = driver.stub(found.mesh, "orders")
        marked = (("x-canary", "yes"),)
        assert await called(stub, 20) == {"a": 20}
        assert await called(stub, 20, metadata=marked) == {"b": 20}
        assert await called(stub, 20, metadata=(("x-canary", "no"),)) == {"a": 20}
        # A breaker counts per target: it opens, too, and would hide what the next calls meet.
        found.mesh.control.overrides.set(
            path("Unary"), mesh_pb2.Override(dark=[mesh_pb2.DARK_POLICY_BREAKER])
        )
        found.two.fails = lambda: True
        await until_only(stub, "a", metadata=marked)


async def test_callers_with_an_identity_go_elsewhere(
    caller: Identity, orders: Identity, tmp_path: Path
) -> None:
    """A rule for the caller's identity holds in its process; one for another's does not."""
    mine = {"identities": [CALLER], "weights": {"v2": 1}}
    other = {"identities": ["spiffe://shop.internal/other"], "weights": {"v2": 1}}
    async with versions(caller, orders, tmp_path, 1, 0, rules=[other]) as found:
        stub = Stub(found.mesh.channel("orders"))
        assert await called(stub, 20) == {"a": 20}
        found.route(1, 0, rules=[other, mine])
        await until_seen(stub, "b")
        assert await many(stub, 100) == {"b": 100}
        found.route(1, 0)
        await until_seen(stub, "a")
        assert await many(stub, 100) == {"a": 100}


async def test_no_call_fails_while_rules_come_and_go(
    caller: Identity, orders: Identity, tmp_path: Path
) -> None:
    """Routes that refer to other clusters each time are changed under load without an error."""
    async with versions(caller, orders, tmp_path, 1, 1) as found:
        stub = Stub(found.mesh.channel("orders"))
        calling = asyncio.gather(*(called(stub, 500) for _ in range(4)))
        rules = [{"headers": {"x-canary": str(n)}, "weights": {"v2": 1}} for n in range(3)]
        for turn in range(8):
            found.route(1, 1, rules=rules[: turn % 4])
            await eventually(lambda: len(found.mesh.routed()[0].route.rules) == turn % 4)  # noqa: B023
        answers = sum(await calling, Counter())
        assert answers.keys() == {"a", "b"}


async def test_draining(driver: Driver, caller: Identity, orders: Identity, tmp_path: Path) -> None:
    """An endpoint that drains gets no new calls, and its open streams go on to their end."""
    async with versions(caller, orders, tmp_path, 1, 1) as found:
        stub = driver.stub(found.mesh, "orders")
        await until_seen(stub, "a", "b")
        streams, first = [], list[str]()
        while set(first) != {"a", "b"}:  # Where a call goes is drawn.
            streams.append(stub.ServerStream(Message()))
            first.append((await streams[-1].read()).text)
        found.route(1, 1, draining=[found.two.address])
        await until_only(stub, "a", 30)
        assert await called(stub, 50) == {"a": 50}
        for each in (found.one, found.two):
            each.released.set()
        assert [(await each.read()).text for each in streams] == first
        for each in streams:
            each.cancel()


async def test_an_operator_sees_the_routes(
    caller: Identity, orders: Identity, tmp_path: Path
) -> None:
    """Versions, shares, endpoints, who drains and which rules there are stand in the state."""
    rule = {"headers": {"x-canary": "yes"}, "weights": {"v2": 1}}
    async with versions(caller, orders, tmp_path, 95, 5, rules=[rule]) as found:
        found.route(95, 5, rules=[rule], draining=[found.two.address])
        await eventually(lambda: found.mesh.routed()[0].route.draining)
        operator: Any = MeshServicer(found.mesh, None, None)
        state = await operator.GetState(mesh_pb2.GetStateRequest(), None)
        one, two = state.routes
        assert (one.target, one.version, one.weight) == ("orders", "v1", 95)
        assert (list(one.endpoints), list(one.resting)) == ([found.one.address], [])
        assert list(two.resting) == list(two.endpoints) == [found.two.address]
        assert list(two.rules) == ["x-canary: yes to v2 1"]
        found.route(95, -5)
        await eventually(found.mesh.route_problems)
        state = await operator.GetState(mesh_pb2.GetStateRequest(), None)
        assert "weights: must be whole numbers" in state.refused[0].problem
