"""Orchestrated orders against choreographed ones: what each costs, and how long it takes.

Starts the shop (one process a service, broker and supervisor) on a free port offset and places
orders from TPC-H of one kind and then of the other, in turns: one after the other for the latency
from the call to CONFIRMED and its answer; so many at a time for the rate and for the CPU of all
processes until nothing is left to do. Messages are those that the broker has stored. The lines of
code are those that one kind alone needs. Linux only.
"""

import asyncio
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

from benchmarks import harness
from benchmarks.order_cpu import pids_of, settled
from services import topology
from shop.common.v1.fulfilment_pb2 import (
    FULFILMENT_CHOREOGRAPHED,
    FULFILMENT_ORCHESTRATED,
    Fulfilment,
)
from shopctl.replay.clients import Clients, connect
from shopctl.replay.driver import Driver, load
from shopctl.replay.model import Plan
from shopctl.replay.progress import Tally
from shopctl.replay.tpch import Tpch
from shopctl.supervisor.health import broker_health
from tests.support.mesh_process import MeshProcess, running_mesh
from tests.support.ports import free_offset

KINDS = {
    "orchestrated": FULFILMENT_ORCHESTRATED,
    "choreographed": FULFILMENT_CHOREOGRAPHED,
}
ROOT = Path(__file__).parent.parent
CODE = {
    "orchestrated": ["services/orders/steps.py", "runtime/accord_runtime/saga"],
    "choreographed": [
        f"services/{name}/choreography.py"
        for name in ("orders", "inventory", "payments", "shipping")
    ],
}


class Part:
    """A part of a plan, driven as one kind."""

    def __init__(self, plan: Plan, customers: Mapping[int, str], clients: Clients) -> None:
        self._plan, self._customers, self._clients = plan, customers, clients
        self._next = 0

    async def drive(self, orders: int, kind: "Fulfilment.ValueType") -> float:
        """See so many more orders through; returns the seconds that it took."""
        chosen = self._plan.orders[self._next : self._next + orders]
        self._next += orders
        plan, began = replace(self._plan, orders=chosen), time.monotonic()
        await Driver(plan, self._customers, "tok_visa", self._clients, kind).drive()
        return time.monotonic() - began


async def run(alone: int, crowd: int, rounds: int, mesh: MeshProcess) -> Mapping[str, object]:
    total = 2 * rounds * (alone + crowd) + 2 * crowd
    with Tpch(0.01) as tpch:
        plan = tpch.draw(total, declined=0.0, short=0.0, seed=20_26, run="fulfilment")
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    async with connect(mesh.offset, mesh.home, Tally(total), 16) as clients:
        part = Part(plan, await load(plan, clients), clients)
        for kind in KINDS.values():  # what is cold at first
            await part.drive(crowd, kind)
        for _ in range(rounds):
            for name, kind in KINDS.items():
                figures = found[name]
                for _ in range(alone):
                    figures["latency"].append(await part.drive(1, kind))
                pids = pids_of(mesh)
                before, sent = await settled(pids), await _messages(mesh)
                figures["rate"].append(crowd / await part.drive(crowd, kind))
                after = await settled(pids)
                figures["cpu"].append((sum(after.values()) - sum(before.values())) / crowd)
                figures["messages"].append((await _messages(mesh) - sent) / crowd)
    return {name: _summary(name, figures) for name, figures in found.items()} | {
        "orders": total,
        "rounds": rounds,
    }


def _summary(name: str, found: Mapping[str, Sequence[float]]) -> Mapping[str, object]:
    latency = sorted(found["latency"])
    return {
        "p50_ms": round(statistics.median(latency) * 1000, 1),
        "p99_ms": round(latency[min(len(latency) - 1, len(latency) * 99 // 100)] * 1000, 1),
        "orders_per_s": round(statistics.median(found["rate"]), 1),
        "cpu_ms_per_order": round(statistics.median(found["cpu"]) * 1000, 1),
        "messages_per_order": round(statistics.median(found["messages"]), 1),
        "lines": sum(map(_lines, CODE[name])),
    }


async def _messages(mesh: MeshProcess) -> int:
    """Messages that the broker has stored, of all services."""
    address = broker_health(topology.address(topology.BROKER, mesh.offset))

    def ask() -> int:
        with urlopen(f"http://{address}/jsz", timeout=5) as answer:
            return int(json.load(answer)["messages"])

    return await asyncio.to_thread(ask)


def _lines(path: str) -> int:
    """Lines of a module, or of all modules of a folder, that are not empty."""
    where = ROOT / path
    files = [where] if where.suffix else sorted(where.glob("*.py"))
    return sum(bool(line.strip()) for file in files for line in file.read_text().splitlines())


def main() -> None:
    options = harness.parser(__doc__)
    options.add_argument("--alone", type=int, default=100, help="orders one after the other")
    options.add_argument("--crowd", type=int, default=200, help="orders, 16 at a time")
    options.add_argument("--rounds", type=int, default=3, help="of each kind, in turns")
    options.add_argument("--database-url", help="PostgreSQL instead of a file per service")
    given = options.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        running_mesh(Path(folder, "mesh"), free_offset(), given.database_url) as mesh,
    ):
        figures = asyncio.run(run(given.alone, given.crowd, given.rounds, mesh))
    harness.report("fulfilment", figures, as_json=given.json)


if __name__ == "__main__":
    main()
