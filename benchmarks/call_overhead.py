"""Overhead: CPU of client and server per unary call, bare gRPC against accord, interleaved.

One client process calls all variants in turn, a few hundred calls each, in an order that changes
every round; each kind of server has a process of its own. A ratio compares client and server
together with the bare variant of the same round: what the machine does besides hits both.
Telemetry is not configured.
"""

import asyncio
import os
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import grpc.aio
import uvloop

import accord
from benchmarks import harness
from tests.accord.kit import Message, Stub

_WARM = 3


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to make a call, and the process that answers it."""

    call: Any
    server: int


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one call in one round, in microseconds."""

    client: float
    server: float
    latency: float

    @property
    def cpu(self) -> float:
        """Of both sides."""
        return self.client + self.server


async def batch(variant: Variant, request: Any, calls: int) -> Cost:
    """The mean cost of some calls, one after the other."""
    client, server = harness.cpu_seconds(os.getpid()), harness.cpu_seconds(variant.server)
    began = time.perf_counter()
    for _ in range(calls):
        await variant.call(request, timeout=5)
    took = time.perf_counter() - began
    client = harness.cpu_seconds(os.getpid()) - client
    server = harness.cpu_seconds(variant.server) - server
    return Cost(client / calls * 1e6, server / calls * 1e6, took / calls * 1e6)


async def run(rounds: int, calls: int) -> dict[str, object]:
    mesh = accord.Mesh("caller")
    async with (
        harness.server("benchmarks.echo_server", "bare") as (bare_pid, bare_at),
        harness.server("benchmarks.echo_server", "accord") as (accord_pid, accord_at),
        grpc.aio.insecure_channel(bare_at) as to_bare,
        grpc.aio.insecure_channel(accord_at) as to_accord,
    ):
        variants = {
            "bare": Variant(Stub(to_bare).Unary, bare_pid),
            "server": Variant(Stub(to_accord).Unary, accord_pid),
            "client": Variant(Stub(mesh.channel(bare_at)).Unary, bare_pid),
            "both": Variant(Stub(mesh.channel(accord_at)).Unary, accord_pid),
        }
        costs: dict[str, list[Cost]] = defaultdict(list)
        request = Message(text="x" * 190)
        order = list(variants)
        for turn in range(rounds + _WARM):
            order = order[1:] + order[:1]
            for name in order:
                cost = await batch(variants[name], request, calls)
                if turn >= _WARM:
                    costs[name].append(cost)
        await mesh.close()
    return {name: summary(found, costs["bare"]) for name, found in costs.items()}


def summary(costs: list[Cost], bare: list[Cost]) -> dict[str, float | list[float]]:
    """Medians, and the median and quartiles of the ratios to the bare call of the same round."""
    cpu = [one.cpu / base.cpu for one, base in zip(costs, bare, strict=True)]
    low, middle, high = statistics.quantiles(cpu, n=4)
    latency = [one.latency / base.latency for one, base in zip(costs, bare, strict=True)]
    return {
        "client_us": round(statistics.median(cost.client for cost in costs), 1),
        "server_us": round(statistics.median(cost.server for cost in costs), 1),
        "cpu_ratio": round(middle, 3),
        "cpu_ratio_quartiles": [round(low, 3), round(high, 3)],
        "latency_ratio": round(statistics.median(latency), 3),
    }


def main() -> None:
    options = harness.parser(__doc__)
    options.add_argument("--rounds", type=int, default=40)
    options.add_argument("--calls", type=int, default=400, help="per variant and round")
    given = options.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(run(given.rounds, given.calls))
    figures = dict(sorted(figures.items(), key=lambda item: item[0] != "bare"))
    harness.report("call_overhead", figures, as_json=given.json)


if __name__ == "__main__":
    main()
