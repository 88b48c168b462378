"""What an order costs: CPU of all processes of the shop, from its placing to its mail.

Starts the shop (one process a service, broker and supervisor) on a free port offset, places orders
from TPC-H, so many at a time, each with a watch on it to its end, and adds up what each process has
used until nothing is left to do. The client that places them is not counted. Linux only.
"""

import asyncio
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks import harness
from shopctl.replay.clients import connect
from shopctl.replay.driver import Driver, load
from shopctl.replay.progress import Tally
from shopctl.replay.tpch import Tpch
from shopctl.supervisor import state
from tests.support.mesh_process import MeshProcess, running_mesh
from tests.support.ports import free_offset

TODAY = ("orders", "payments", "inventory", "shipping", "notifications", "customers")
"""The six services that the aim is about; the outside party, the broker and the supervisor count
with them. What consumes events beside them is reported, and is not in the sum."""

WITH_THEM = (*TODAY, "sandbox", "broker", "supervisor")


async def run(orders: int, warm: int, at_once: int, mesh: MeshProcess) -> Mapping[str, object]:
    with Tpch(0.01) as tpch:
        plan = tpch.draw(orders + warm, declined=0.0, short=0.0, seed=20_26, run="cpu")
    tally = Tally(orders + warm)
    async with connect(mesh.offset, mesh.home, tally, at_once) as clients:
        customers = await load(plan, clients)
        first = replace(plan, orders=plan.orders[:warm])
        await Driver(first, customers, "tok_visa", clients).drive()
        pids = pids_of(mesh)
        before, began = used(pids), time.monotonic()
        counted = replace(plan, orders=plan.orders[warm:])
        await Driver(counted, customers, "tok_visa", clients).drive()
        placed = time.monotonic() - began
        after = await settled(pids)
    spent = {name: (after[name] - before[name]) / orders * 1000 for name in pids}
    return {
        "cpu_ms_per_order": round(sum(spent[name] for name in WITH_THEM), 2),
        "by_process": {name: round(each, 2) for name, each in spent.items()},
        "orders_per_s": round(orders / placed, 1),
        "orders": orders,
        "at_once": at_once,
    }


async def settled(pids: Mapping[str, int]) -> Mapping[str, float]:
    """What each process has used when the shop does nothing any more."""
    seen = used(pids)
    while True:
        await asyncio.sleep(1.0)
        now = used(pids)
        if sum(now.values()) - sum(seen.values()) < 0.05:
            return now
        seen = now


def pids_of(mesh: MeshProcess) -> Mapping[str, int]:
    """Name -> process id of all that runs."""
    found = state.read_run(mesh.home)
    assert found is not None
    ours = {"supervisor": found.pid, "fork server": found.forks}
    pids = {each.name: each.pid for each in found.processes} | ours
    return {name: pid for name, pid in pids.items() if pid}


def used(pids: Mapping[str, int]) -> dict[str, float]:
    """Seconds of CPU that each process has used."""
    return {name: harness.cpu_seconds(pid) for name, pid in pids.items()}


def main() -> None:
    options = harness.parser(__doc__)
    options.add_argument("--orders", type=int, default=600)
    options.add_argument("--warm", type=int, default=100, help="orders before those that count")
    options.add_argument("--at-once", type=int, default=16)
    options.add_argument("--database-url", help="PostgreSQL instead of a file per service")
    given = options.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        running_mesh(Path(folder, "mesh"), free_offset(), given.database_url) as mesh,
    ):
        figures = asyncio.run(run(given.orders, given.warm, given.at_once, mesh))
    harness.report("order_cpu", figures, as_json=given.json)


if __name__ == "__main__":
    main()
