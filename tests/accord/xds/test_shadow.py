"""Copies of calls to another target: real servers, both drivers."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

import accord
from accord.contract.live_overrides import OverrideRefused
from accord.ops.v1 import mesh_pb2
from tests.accord.drivers import Driver, every_call
from tests.accord.kit import Message, Stub, eventually, path, serving


class Copies:
    """A server that is sent copies, and what has come."""

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []
        self.most = self.now = 0
        self.takes = 0.0
        self.fails = False

    async def answer(self, request: Any, context: Any) -> Any:
        self.seen.append(dict(context.invocation_metadata()))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self.takes)
        finally:
            self.now -= 1
        if self.fails:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the copy fails")
        return Message(text="copy")


def shadowed(mesh: accord.Mesh, method: str = "Cached", **shadow: Any) -> None:
    """Let a mesh send copies of a method's calls to "next"."""
    wanted = mesh_pb2.Shadow(**{"target": "next", "percent": 100, **shadow})
    mesh.control.overrides.set(path(method), mesh_pb2.Override(shadow=wanted))


@asynccontextmanager
async def pair(driver: Driver) -> AsyncIterator[tuple[accord.Mesh, Any, Copies]]:
    """A caller, its stub to a server, and another server, "next"."""
    copies = Copies()

    async def answer(request: Any, context: Any) -> Any:
        assert "accord-shadow" not in dict(context.invocation_metadata())
        return request

    async with (
        serving(accord.Mesh("a"), {"Hedged": answer, "Cached": answer}) as one,
        serving(accord.Mesh("b"), {"Hedged": copies.answer, "Cached": copies.answer}) as two,
    ):
        mesh = accord.Mesh("caller", targets={"echo": one, "next": two})
        try:
            yield mesh, driver.stub(mesh, "echo"), copies
        finally:
            await mesh.close()


def counted(mesh: accord.Mesh, what: str, method: str = "Cached") -> int:
    return mesh.control.counts.of(path(method)).get(f"shadow.{what}", 0)


@every_call
async def test_a_copy_is_sent_and_its_answer_dropped(driver: Driver) -> None:
    """The caller gets its own answer; the copy has the same metadata and a mark."""
    async with pair(driver) as (mesh, stub, copies):
        shadowed(mesh)
        answer = await stub.Cached(Message(text="mine"), metadata=(("own", "x"),))
        assert answer.text == "mine"
        await eventually(lambda: counted(mesh, "ok"))
        assert len(copies.seen) == 1
        assert copies.seen[0]["accord-shadow"] == "1"
        assert copies.seen[0]["own"] == "x"


async def test_a_copy_costs_the_caller_neither_time_nor_errors(driver: Driver) -> None:
    """A target of copies that is slow, and then fails, is not noticed; nothing is tried again."""
    async with pair(driver) as (mesh, stub, copies):
        shadowed(mesh, max_concurrent=3)
        await stub.Cached(Message(text="warm"))
        await eventually(lambda: counted(mesh, "ok"))
        copies.takes, copies.fails = 0.5, True
        began = time.monotonic()
        for number in range(20):
            assert (await stub.Cached(Message(text=str(number)))).text == str(number)
        assert time.monotonic() - began < 20 * copies.takes / 2
        await eventually(lambda: counted(mesh, "failed") + counted(mesh, "refused") == 20)
        assert copies.most <= 3
        assert len(copies.seen) == 1 + counted(mesh, "failed")


async def test_a_fraction(driver: Driver) -> None:
    """Of many calls about as many are copied as is said."""
    async with pair(driver) as (mesh, stub, _):
        shadowed(mesh, percent=30, max_concurrent=1000)
        for number in range(400):
            await stub.Cached(Message(text=str(number)))
        await eventually(lambda: not any(mesh._shadows._under_way.values()))
        assert 80 <= counted(mesh, "ok") <= 160


async def test_a_copy_is_not_copied_again(driver: Driver) -> None:
    """The mark travels on with the calls that a copy leads to, which are not copied."""
    marks: list[str | None] = []
    deep, callee = Copies(), accord.Mesh("callee")

    async def forward(request: Any, context: Any) -> Any:
        marks.append(dict(context.invocation_metadata()).get("accord-shadow"))
        return await Stub(callee.channel(address)).Cached(request)

    async with (
        serving(accord.Mesh("deep"), {"Cached": deep.answer}) as address,
        serving(callee, {"Hedged": forward}) as entry,
    ):
        mesh = accord.Mesh("caller", targets={"echo": entry, "next": entry})
        shadowed(mesh, "Hedged")
        shadowed(callee)
        await driver.stub(mesh, "echo").Hedged(Message(text="once"))
        await eventually(lambda: counted(mesh, "ok", "Hedged"))
        assert sorted(marks, key=str) == ["1", None]
        await eventually(lambda: counted(callee, "failed"))
        assert counted(callee, "failed") == 1  # of the call, and not of its copy
        for each in (mesh, callee):
            await each.close()


@pytest.mark.parametrize(
    ("method", "shadow", "said"),
    [
        ("Retried", {}, "only of an RPC with NO_SIDE_EFFECTS"),
        ("Unary", {}, "only of an RPC with NO_SIDE_EFFECTS"),
        ("Watch", {}, "one request and one response"),
        ("Cached", {"percent": 0}, "percent 1 to 100"),
        ("Cached", {"target": ""}, "target"),
    ],
)
def test_what_cannot_be_shadowed(method: str, shadow: dict[str, Any], said: str) -> None:
    """A method that has effects, or streams, is refused, as is what makes no sense."""
    mesh = accord.Mesh("caller")
    with pytest.raises(OverrideRefused, match=said):
        shadowed(mesh, method, **shadow)


async def test_a_target_that_is_none(driver: Driver, caplog: pytest.LogCaptureFixture) -> None:
    """Copies to nobody are said once in the log, and counted."""
    async with pair(driver) as (mesh, stub, _):
        shadowed(mesh, target="nxet")
        for number in range(3):
            await stub.Cached(Message(text=str(number)))
        assert counted(mesh, "refused") == 3
    assert len([each for each in caplog.records if "cannot be shadowed" in each.message]) == 1
