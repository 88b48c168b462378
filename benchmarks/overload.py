"""Overload: three times what a server can do, of mixed importance.

The server has ten permits and a handler of 20 ms. Its peak is measured first, without overload, by
as many callers as there are permits.
"""

import asyncio
import time
from collections import Counter
from itertools import cycle

import grpc
import grpc.aio

from benchmarks import harness
from benchmarks.overload_server import PERMITS, WORK
from tests.accord.kit import Message, Stub

# A fifth of the calls is critical: less than the server can do, as it must be.
MIX = ("CRITICAL", "DEFAULT", "SHEDDABLE", "DEFAULT", "SHEDDABLE")


async def peak(stub: Stub, seconds: float) -> float:
    """Calls per second when as many are made at once as there are permits."""
    ends, done = time.monotonic() + seconds, 0

    async def caller() -> None:
        nonlocal done
        while time.monotonic() < ends:
            await stub.Unary(Message())
            done += 1

    await asyncio.gather(*(caller() for _ in range(PERMITS)))
    return done / seconds


async def overload(
    stub: Stub, per_second: float, seconds: float
) -> tuple[Counter[str], Counter[str], float]:
    """Offered and answered calls by priority, and the time it took to answer them."""
    offered: Counter[str] = Counter()
    answered: Counter[str] = Counter()

    async def call(priority: str) -> None:
        try:
            await stub.Unary(Message(), metadata=(("accord-priority", priority),), timeout=2)
        except grpc.aio.AioRpcError:
            return
        answered[priority] += 1

    calls: list[asyncio.Future[None]] = []
    began, priorities = time.monotonic(), cycle(MIX)
    while (elapsed := time.monotonic() - began) < seconds:
        for _ in range(int(elapsed * per_second) - len(calls)):
            priority = next(priorities)
            offered[priority] += 1
            calls.append(asyncio.ensure_future(call(priority)))
        await asyncio.sleep(0.002)
    await asyncio.gather(*calls)
    return offered, answered, time.monotonic() - began


async def run(seconds: float, times: float) -> dict[str, object]:
    async with (
        harness.server("benchmarks.overload_server") as (_, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub = Stub(channel)
        await peak(stub, 1.0)  # warm
        best = await peak(stub, seconds)
        offered, answered, took = await overload(stub, times * PERMITS / WORK, seconds)
    goodput = answered.total() / took
    return {
        "peak, calls/s": round(best),
        "offered, calls/s": round(offered.total() / seconds),
        "goodput, calls/s": round(goodput),
        "goodput, share of the peak": round(goodput / best, 3),
        **{
            f"answered, {each}": round(answered[each] / offered[each], 4)
            for each in sorted(set(MIX))
        },
    }


def main() -> None:
    options = harness.parser(__doc__)
    options.add_argument("--seconds", type=float, default=5.0)
    options.add_argument("--times", type=float, default=3.0, help="load, in capacities")
    given = options.parse_args()
    figures = asyncio.run(run(given.seconds, given.times))
    harness.report("overload", figures, as_json=given.json)


if __name__ == "__main__":
    main()
