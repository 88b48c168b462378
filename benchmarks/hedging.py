"""Hedging: the tail of a method of which one call in a hundred stalls for two seconds."""

import asyncio
import time
from typing import Any

import accord
from accord.ops.v1 import mesh_pb2
from benchmarks import harness
from tests.accord.kit import Message, Stub, path, serving

_CALLERS = 4
_STALL, _WORK = 2.0, 0.002


async def measure(calls: int, *, hedged: bool) -> dict[str, object]:
    """Latencies, and attempts per call that reached the server."""
    sent = 0

    async def handler(request: Any, context: Any) -> Any:
        nonlocal sent
        sent += 1
        call = accord.current()
        first = call is not None and call.attempt == 0
        await asyncio.sleep(_STALL if first and request.after % 100 == 50 else _WORK)
        return request

    took: list[float] = []
    mesh = accord.Mesh("caller")
    if not hedged:
        off = mesh_pb2.Override(dark=[mesh_pb2.DARK_POLICY_HEDGE])
        mesh.control.overrides.set(path("Hedged"), off)
    async with serving(accord.Mesh("callee"), {"Hedged": handler}) as address:
        stub = Stub(mesh.channel(address))
        pending = iter(range(calls))

        async def caller() -> None:
            for index in pending:
                began = time.perf_counter()
                await stub.Hedged(Message(after=index))
                took.append(time.perf_counter() - began)

        for _ in range(40):
            await stub.Hedged(Message())  # before that nothing is known of the latency
        sent = 0
        await asyncio.gather(*(caller() for _ in range(_CALLERS)))
        await mesh.close()
    name = "hedged" if hedged else "plain"
    return {
        f"{name}, p50, ms": round(harness.percentile(took, 50) * 1e3, 1),
        f"{name}, p99, ms": round(harness.percentile(took, 99) * 1e3, 1),
        f"{name}, p99.9, ms": round(harness.percentile(took, 99.9) * 1e3, 1),
        f"{name}, attempts per call": round(sent / calls, 4),
    }


async def run(calls: int) -> dict[str, object]:
    return {**await measure(calls, hedged=True), **await measure(calls, hedged=False)}


def main() -> None:
    options = harness.parser(__doc__)
    options.add_argument("--calls", type=int, default=3000)
    given = options.parse_args()
    harness.report("hedging", asyncio.run(run(given.calls)), as_json=given.json)


if __name__ == "__main__":
    main()
