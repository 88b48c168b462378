"""Overhead: CPU and latency of a unary call, accord against bare gRPC and against its rivals.

One client process makes the calls of all variants in turn, a few hundred each, in an order that
changes every round; each kind of server and each Envoy has a process of its own. A ratio compares a
variant with another one of the same round: what the machine does besides hits both.

    bare                      grpc.aio on both sides
    accord                    on both sides, OpenTelemetry's SDK not installed
    accord, client | server   on one side only
    accord, sampled out       OpenTelemetry's SDK installed, spans not sampled
    accord, traces | metrics  one of the two, exported to nowhere
    accord, on                both
    instrumentation           opentelemetry-instrumentation-grpc alone, spans to nowhere
    by hand                   OpenTelemetry's SDK called by hand, without any library between
    envoy x 1 | envoy x 2     bare gRPC through one sidecar, or one on each side
"""

import asyncio
import os
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
import uvloop

import accord
from benchmarks import by_hand, harness
from benchmarks.envoy import sidecar
from benchmarks.recording import METRICS, OFF, ON, SAMPLED_OUT, TRACES, Switch
from tests.accord.kit import Message, Stub

WARM = 3


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to make a call, the processes that take part in it, and the telemetry it needs."""

    call: Any
    server: int
    proxies: tuple[int, ...] = ()
    state: str = OFF


@dataclass(slots=True)
class Cost:
    """Of the calls of one batch: mean CPU and median latency, in microseconds."""

    client: float
    server: float
    proxy: float
    p50: float
    cpu: float = field(init=False)

    def __post_init__(self) -> None:
        self.cpu = self.client + self.server + self.proxy


async def batch(variant: Variant, switch: Switch, request: Any, calls: int) -> Cost:
    """The cost of some calls, one after the other."""
    clocks = (os.getpid(), variant.server, *variant.proxies)
    switch.to(variant.state)
    before = [harness.cpu_seconds(pid) for pid in clocks]
    took = []
    for _ in range(calls):
        began = time.perf_counter()
        await variant.call(request, timeout=5)
        took.append(time.perf_counter() - began)
    switch.flush(variant.state)
    client, server, *proxies = (
        (harness.cpu_seconds(pid) - then) / calls * 1e6
        for pid, then in zip(clocks, before, strict=True)
    )
    return Cost(client, server, sum(proxies), statistics.median(took) * 1e6)


async def variants(stack: AsyncExitStack, switch: Switch) -> dict[str, Variant]:
    """Start everything."""

    async def server(kind: str, state: str = OFF) -> tuple[int, str]:
        running = harness.server("benchmarks.echo_server", kind, state)
        return await stack.enter_async_context(running)

    async def bare(address: str, **options: Any) -> Any:
        channel = grpc.aio.insecure_channel(address, **options)
        return Stub(await stack.enter_async_context(channel)).Retried

    def meshed(address: str) -> Any:
        return Stub(mesh.channel(address)).Retried

    async def envoy(address: str) -> tuple[int, str]:
        return await stack.enter_async_context(sidecar(address))

    mesh = accord.Mesh("caller")
    stack.push_async_callback(mesh.close)
    plain, plain_at = await server("bare")
    off, off_at = await server("accord")
    silent, silent_at = await server("accord", SAMPLED_OUT)
    traced, traced_at = await server("accord", TRACES)
    metered, metered_at = await server("accord", METRICS)
    recorded, recorded_at = await server("accord", ON)
    theirs, theirs_at = await server("instrumentation", ON)
    least, least_at = await server("by hand", ON)
    one, one_at = await envoy(plain_at)
    far, far_at = await envoy(plain_at)
    near, near_at = await envoy(far_at)
    return {
        "bare": Variant(await bare(plain_at), plain),
        "accord": Variant(meshed(off_at), off),
        "accord, client": Variant(meshed(plain_at), plain),
        "accord, server": Variant(await bare(off_at), off),
        "accord, sampled out": Variant(meshed(silent_at), silent, state=SAMPLED_OUT),
        "accord, traces": Variant(meshed(traced_at), traced, state=TRACES),
        "accord, metrics": Variant(meshed(metered_at), metered, state=METRICS),
        "accord, on": Variant(meshed(recorded_at), recorded, state=ON),
        "instrumentation": Variant(
            await bare(theirs_at, interceptors=_instrumentation(switch)), theirs, state=ON
        ),
        "by hand": Variant(by_hand.caller(await bare(least_at), *switch.apis(ON)), least, state=ON),
        "envoy x 1": Variant(await bare(one_at), plain, (one,)),
        "envoy x 2": Variant(await bare(near_at), plain, (near, far)),
    }


def _instrumentation(switch: Switch) -> list[Any]:
    from opentelemetry.instrumentation.grpc import aio_client_interceptors

    tracers = switch.tracers(ON)
    found: list[Any] = aio_client_interceptors(tracers)  # type: ignore[no-untyped-call]
    # In a process of its own, accord would not find it: nor should it here.
    del sys.modules["opentelemetry.instrumentation.grpc"]
    return found


async def interleaved(
    found: dict[str, Variant], switch: Switch, rounds: int, calls: int
) -> dict[str, list[Cost]]:
    """The costs of each variant, by rounds: in each all are called, in another order each time."""
    costs: dict[str, list[Cost]] = defaultdict(list)
    order, request = list(found), Message(text="x" * 190)
    for turn in range(rounds + WARM):
        random.shuffle(order)
        for name in order:
            cost = await batch(found[name], switch, request, calls)
            if turn >= WARM:
                costs[name].append(cost)
    return costs


async def run(rounds: int, calls: int) -> dict[str, object]:
    switch = Switch()
    async with AsyncExitStack() as stack:
        found = await variants(stack, switch)
        costs = await interleaved(found, switch, rounds, calls)
        switch.to(OFF)
    return {
        **{name: summary(costs[name]) for name in found},
        "CPU of both sides, against bare": {
            name: ratios(costs[name], costs["bare"], cpu) for name in found if name != "bare"
        },
        "CPU of accord, on, against instrumentation": ratios(
            costs["accord, on"], costs["instrumentation"], cpu
        ),
        "CPU of accord, on, against by hand": ratios(costs["accord, on"], costs["by hand"], cpu),
        "p50 against bare": {
            name: ratios(costs[name], costs["bare"], _p50) for name in found if name != "bare"
        },
        "p50 of accord against envoy x 1": ratios(costs["accord"], costs["envoy x 1"], _p50),
        "p50 of accord against envoy x 2": ratios(costs["accord"], costs["envoy x 2"], _p50),
        "CPU of accord against envoy x 2": ratios(costs["accord"], costs["envoy x 2"], cpu),
    }


def cpu(cost: Cost) -> float:
    return cost.cpu


def _p50(cost: Cost) -> float:
    return cost.p50


def summary(costs: list[Cost]) -> dict[str, float]:
    """Medians over the rounds, in microseconds per call."""
    return {
        name: round(statistics.median(getattr(cost, name) for cost in costs), 1)
        for name in ("client", "server", "proxy", "cpu", "p50")
    }


def ratios(costs: list[Cost], others: list[Cost], of: Callable[[Cost], float]) -> list[float]:
    """First quartile, median and third quartile of the ratios of each round."""
    ratios = [of(one) / of(other) for one, other in zip(costs, others, strict=True)]
    return [round(each, 3) for each in statistics.quantiles(ratios, n=4)]


def main() -> None:
    options = harness.parser(__doc__)
    options.add_argument("--rounds", type=int, default=40)
    options.add_argument("--calls", type=int, default=400, help="per variant and round")
    given = options.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(run(given.rounds, given.calls))
    harness.report("call_overhead", figures, as_json=given.json)


if __name__ == "__main__":
    main()
