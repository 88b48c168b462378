"""Deadlines across three hops: what the leaf has left, and whether work is begun that is late.

Edge -> first -> second -> leaf. First, calls with one second: what is left when the leaf begins.
Then calls with short deadlines, more than the leaf has places for, so that most of them expire on
the way, above all while they wait for a place. With bare gRPC for comparison, whose nested calls
have no deadline and whose servers have no places.

A handler is late when it begins a millisecond or more after the deadline: by the clock of the leaf,
which is what a server can know (a timeout is relative, so the time of the journey is added to it;
the hop reserve makes up for it), and by the clock of the edge, which is the same one here.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

import accord
from benchmarks import harness
from tests.accord.kit import Message, Stub, bound, handlers, serving

_CALLERS = 20
_PLACES, _WORK = 2, 0.020
_SHORTEST, _LONGEST = 0.040, 0.120
_SLACK = 0.001


@dataclass(slots=True)
class Chain:
    """`edge` is a stub of the first hop; the leaf writes down when it begins."""

    edge: Any = None
    remaining: list[float | None] = field(default_factory=list)
    begun: int = 0
    late_here: int = 0
    late_there: int = 0
    """After the deadline of the edge, which the edge has put into `deadlines`."""
    deadlines: dict[int, float] = field(default_factory=dict)


@asynccontextmanager
async def chain(*, meshed: bool, work: float) -> AsyncIterator[Chain]:
    """Three servers in a row."""
    found = Chain()

    async def leaf(request: Any, context: Any) -> Any:
        now, call = time.monotonic(), accord.current()
        found.begun += 1
        found.late_there += now >= found.deadlines[request.after] + _SLACK
        if call is not None and call.deadline is not None:
            found.late_here += now >= call.deadline + _SLACK
        found.remaining.append(context.time_remaining())
        await asyncio.sleep(work)
        return request

    def relay(address: str, mesh: accord.Mesh) -> Callable[..., Any]:
        below = Stub(mesh.channel(address) if meshed else grpc.aio.insecure_channel(address))

        async def handler(request: Any, context: Any) -> Any:
            return await below.Unary(request)

        return handler

    async with AsyncExitStack() as stack:

        async def server(handler: Callable[..., Any], most: int) -> str:
            if meshed:
                mesh = accord.Mesh("callee")
                bound(mesh, "Unary", most)
                return await stack.enter_async_context(serving(mesh, {"Unary": handler}))
            return await stack.enter_async_context(_bare({"Unary": handler}))

        meshes = [accord.Mesh(name) for name in ("edge", "first", "second")]
        edge, first, second = meshes
        address = await server(leaf, _PLACES)
        address = await server(relay(address, second), 0)
        address = await server(relay(address, first), 0)
        found.edge = Stub(
            edge.channel(address) if meshed else grpc.aio.insecure_channel(address)
        ).Unary
        try:
            yield found
        finally:
            for mesh in meshes:
                await mesh.close()


@asynccontextmanager
async def _bare(behaviours: dict[str, Callable[..., Any]]) -> AsyncIterator[str]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handlers(behaviours),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def _call(found: Chain, index: int, timeout: float) -> bool:
    found.deadlines[index] = time.monotonic() + timeout
    try:
        await found.edge(Message(after=index), timeout=timeout)
    except grpc.aio.AioRpcError:
        return False
    return True


async def measure(calls: int, *, meshed: bool) -> dict[str, object]:
    """The figures of one kind of client and server."""
    name = "accord" if meshed else "bare gRPC"
    async with chain(meshed=meshed, work=0.0) as found:
        for index in range(50):
            await _call(found, index, 1.0)
        left = [one for one in found.remaining if one is not None]
    async with chain(meshed=meshed, work=_WORK) as found:
        for index in range(20):
            await _call(found, index, 1.0)
        found.begun = found.late_here = found.late_there = 0
        numbers, answered = iter(range(100, 100 + calls)), 0

        async def caller() -> None:
            nonlocal answered
            for index in numbers:
                timeout = random.uniform(_SHORTEST, _LONGEST)
                answered += await _call(found, index, timeout)

        await asyncio.gather(*(caller() for _ in range(_CALLERS)))
        await asyncio.sleep(_LONGEST)  # what still runs may begin
    return {
        f"{name}, most that the leaf has left of 1 s": round(max(left), 3) if left else "no bound",
        f"{name}, calls with short deadlines": calls,
        f"{name}, of them answered": answered,
        f"{name}, handlers begun": found.begun,
        f"{name}, begun late by the clock of the leaf": found.late_here if meshed else "no bound",
        f"{name}, begun late by the clock of the edge": found.late_there,
    }


async def run(calls: int) -> dict[str, object]:
    return {**await measure(calls, meshed=True), **await measure(calls, meshed=False)}


def main() -> None:
    options = harness.parser(__doc__)
    options.add_argument("--calls", type=int, default=10_000)
    given = options.parse_args()
    harness.report("deadline", asyncio.run(run(given.calls)), as_json=given.json)


if __name__ == "__main__":
    main()
