"""The concurrency limit: harmless where handlers wait, and of use in an overload.

(a) 1,000 calls at once that wait for a second, (b) 10 callers of a quick method and 18 of a slow
one beside them, (c) a dependency that becomes five times slower, (f) a server that stands still for
half a second: nobody is refused, and as much is answered as by bare gRPC. Three times what a server
can do, (d) behind ten places and (e) with the CPU, a fifth of it critical: the critical calls are
answered, and as many in all as at its peak.
"""

import asyncio
import json
import os
import signal
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle

import grpc
import grpc.aio

from benchmarks import harness
from tests.accord.kit import Message, Stub

# A fifth of the calls is critical: less than the server can do, as it must be.
MIX = ("CRITICAL", "DEFAULT", "SHEDDABLE", "DEFAULT", "SHEDDABLE")
TIMES = 3
"""The load, in capacities."""

PATIENCE = 5.0
"""Seconds that a caller waits for its answer."""


@dataclass
class Tally:
    """What has become of calls."""

    offered: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)
    """When they were answered."""

    async def call(self, method: object, text: str, priority: str = "DEFAULT") -> bool:
        """Make one; whether it was answered."""
        self.offered[priority] += 1
        try:
            await method(  # type: ignore[operator]
                Message(text=text), metadata=(("accord-priority", priority),), timeout=PATIENCE
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                self.refused[priority] += 1
            return False
        self.answered[priority] += 1
        self.times.append(time.monotonic())
        return True


async def closed(tally: Tally, method: object, text: str, callers: int, seconds: float) -> None:
    """So many callers, each of which calls again when it is answered."""
    ends = time.monotonic() + seconds

    async def caller() -> None:
        while time.monotonic() < ends:
            if not await tally.call(method, text):
                await asyncio.sleep(0.05)

    await asyncio.gather(*(caller() for _ in range(callers)))


async def opened(
    tally: Tally, method: object, text: Callable[[], str], per_second: float, seconds: float
) -> None:
    """So many calls per second, whether they are answered or not."""
    calls: list[asyncio.Future[bool]] = []
    began, priorities = time.monotonic(), cycle(MIX)
    while (elapsed := time.monotonic() - began) < seconds:
        calls.extend(
            asyncio.ensure_future(tally.call(method, text(), next(priorities)))
            for _ in range(int(elapsed * per_second) - len(calls))
        )
        await asyncio.sleep(0.002)
    await asyncio.gather(*calls)


@asynccontextmanager
async def served(kind: str, side: str) -> AsyncIterator[tuple[int, Stub]]:
    """A server of "aio" or "sync", "bare" or "accord": its process id and a client."""
    async with (
        harness.server("benchmarks.overload_server", kind, side) as (pid, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub = Stub(channel)
        yield pid, stub


Side = Callable[[int, Stub], Awaitable[tuple[float, int]]]
"""A goodput, and how many were refused."""


async def compare(kind: str, rounds: int, side: Side) -> dict[str, object]:
    """The goodput against bare gRPC, one after the other several times."""
    ratios, refused = [], 0
    async with served(kind, "bare") as bare, served(kind, "accord") as ours:
        for number in range(rounds):
            first, second = (bare, ours) if number % 2 else (ours, bare)
            found = {first: await side(*first), second: await side(*second)}
            ratios.append(found[ours][0] / found[bare][0])
            refused += found[ours][1]
    return {"goodput / bare": round(statistics.median(ratios), 3), "refused": refused}


async def waiting(pid: int, stub: Stub) -> tuple[float, int]:
    """Case a."""
    tally, began = Tally(), time.monotonic()
    await asyncio.gather(*(tally.call(stub.Unary, "wait 1") for _ in range(1000)))
    return tally.answered.total() / (time.monotonic() - began), tally.refused.total()


async def mixed(pid: int, stub: Stub) -> tuple[float, int]:
    """Case b."""
    tally = Tally()
    await closed(tally, stub.Put, "wait 0.002", 10, 3)
    await asyncio.gather(
        closed(tally, stub.Put, "wait 0.002", 10, 5), closed(tally, stub.Unary, "wait 0.5", 18, 5)
    )
    return tally.answered.total(), tally.refused.total()


async def slower(pid: int, stub: Stub) -> tuple[float, int]:
    """Case c."""
    tally, began = Tally(), time.monotonic()
    text = lambda: "wait 0.02" if time.monotonic() - began < 6 else "wait 0.1"  # noqa: E731
    await opened(tally, stub.Unary, text, 300, 20)
    return sum(each - began >= 16 for each in tally.times), tally.refused.total()


async def paused(pid: int, stub: Stub) -> tuple[float, int]:
    """Case f."""

    async def pause() -> None:
        await asyncio.sleep(2)
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(0.5)
        os.kill(pid, signal.SIGCONT)

    tally = Tally()
    await asyncio.gather(
        pause(),
        opened(tally, stub.Unary, lambda: "work 0.01", 30, 4),
        opened(tally, stub.Put, lambda: "wait 0.02", 100, 4),
    )
    return tally.answered.total(), tally.refused.total()


async def overload(
    kind: str, text: str, callers: int, rounds: int, seconds: float
) -> dict[str, object]:
    """(d) and (e): what is answered without overload, and then at three times as much."""
    ratios, ratios_by_cpu, tally, best = [], [], Tally(), Tally()
    delays: list[float] = []
    async with served(kind, "accord") as (pid, stub):

        async def measured(tally: Tally, load: Awaitable[None]) -> tuple[float, float]:
            """What is answered per second, and per second of the server's CPU."""
            before = tally.answered.total(), time.monotonic(), harness.cpu_seconds(pid)
            await load
            answered = tally.answered.total() - before[0]
            took, cpu = time.monotonic() - before[1], harness.cpu_seconds(pid) - before[2]
            return answered / took, answered / cpu

        await closed(Tally(), stub.Unary, text, callers, 1)  # warm
        for _ in range(rounds):
            peak = await measured(best, closed(best, stub.Unary, text, callers, seconds))
            await stub.Fragile(Message())
            load = opened(tally, stub.Unary, lambda: text, TIMES * peak[0], seconds)
            goodput = await measured(tally, load)
            ratios.append(goodput[0] / peak[0])
            ratios_by_cpu.append(goodput[1] / peak[1])
            delays += json.loads((await stub.Fragile(Message())).text)
    return {
        "peak, calls/s": round(best.answered.total() / seconds / rounds),
        "refused at the peak": best.refused.total(),
        "goodput / peak": round(statistics.median(ratios), 3),
        "the same, per second of CPU": round(statistics.median(ratios_by_cpu), 3),
        "delay of the loop, p99 ms": round(1000 * harness.percentile(delays, 99)),
        **{
            f"answered, {each}": round(tally.answered[each] / tally.offered[each], 4)
            for each in sorted(set(MIX))
        },
    }


async def run(kinds: list[str], cases: str, rounds: int, seconds: float) -> dict[str, object]:
    """The figures of all cases asked for, each by its kind of server."""
    found: dict[str, object] = {}
    for kind in kinds:
        for case, side in (("a", waiting), ("b", mixed), ("c", slower), ("f", paused)):
            if case in cases:
                for name, figure in (await compare(kind, rounds, side)).items():
                    found[f"{case} {kind}: {name}"] = figure
        for case, text, callers in (("d", "pool 0.02", 10), ("e", "work 0.02", 3)):
            if case in cases:
                figures = await overload(kind, text, callers, rounds, seconds)
                for name, figure in figures.items():
                    found[f"{case} {kind}: {name}"] = figure
    return found


def main() -> None:
    options = harness.parser(__doc__)
    options.add_argument("--seconds", type=float, default=10.0, help="of peak, and of overload")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--cases", default="abcdef")
    options.add_argument("--kinds", nargs="*", default=["aio", "sync"])
    given = options.parse_args()
    figures = asyncio.run(run(given.kinds, given.cases, given.rounds, given.seconds))
    harness.report("overload", figures, as_json=given.json)


if __name__ == "__main__":
    main()
