"""Mutual TLS by xDS: CPU of a unary call and of a connection against plaintext, and the memory.

One client process calls a server without certificates and one with, in turn, by two meshes; the one
with an identity has its control plane in the same process. A connection is a new channel with its
first call. The memory is the proportional set size of two client processes that have called eight
targets each, one by plaintext and one by xDS, and their CPU while they do nothing.
"""

import asyncio
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import uvloop

import accord
from accord.identity import Identity
from benchmarks import harness
from benchmarks.call_overhead import Variant, cpu, interleaved, ratios, summary
from benchmarks.recording import OFF, Switch
from tests.accord.kit import Message, Stub
from tests.accord.xds.kit import People

TARGETS = 8
IDLE = 5.0
"""Seconds in which a client process does nothing."""


class Side:
    """A server process, and a mesh that calls it."""

    def __init__(self, server: int, mesh: accord.Mesh) -> None:
        self.server = server
        self.mesh = mesh
        self._numbers = itertools.count()

    async def connections(self, number: int) -> float:
        """CPU of both sides for a new channel and its first call, in milliseconds."""
        clocks = (os.getpid(), self.server)
        before = sum(map(harness.cpu_seconds, clocks))
        for _ in range(number):
            own = ("grpc.primary_user_agent", f"{next(self._numbers)}")
            options = (("grpc.use_local_subchannel_pool", 1), own)
            channel = self.mesh.channel("orders", options=options)
            await Stub(channel).Retried(Message(), timeout=10)
            await channel.close(None)
        return (sum(map(harness.cpu_seconds, clocks)) - before) / number * 1e3


async def run(rounds: int, calls: int, connections: int) -> dict[str, object]:
    switch = Switch()
    async with AsyncExitStack() as stack:
        people = People(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        folders = {"plaintext": "-", "mutual TLS": str(people.issue("orders"))}
        caller = people.issue("caller")
        sides: dict[str, Side] = {}
        addresses = {}
        for name, folder in folders.items():
            running = harness.server("benchmarks.mtls_server", folder)
            pid, address = await stack.enter_async_context(running)
            addresses[name] = address
            identity = None if folder == "-" else Identity.from_folder(caller)
            mesh = accord.Mesh("caller", targets={"orders": address}, identity=identity)
            stack.push_async_callback(mesh.close)
            sides[name] = Side(pid, mesh)
        variants = {
            name: Variant(Stub(side.mesh.channel("orders")).Retried, side.server)
            for name, side in sides.items()
        }
        costs = await interleaved(variants, switch, rounds, calls)
        switch.to(OFF)
        made: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(rounds // 4 + 1):
            for name in random.sample(list(sides), len(sides)):
                made[name].append(await sides[name].connections(connections))
        tls, plain = costs["mutual TLS"], costs["plaintext"]
        idle = {
            name: await asyncio.to_thread(
                client, addresses[name], "-" if at == "-" else str(caller)
            )
            for name, at in folders.items()
        }
    return {
        **{name: summary(each) for name, each in costs.items()},
        "CPU of both sides per call, against plaintext": ratios(tls, plain, cpu),
        "CPU of a connection with its channel, ms": {
            name: round(statistics.median(each), 2) for name, each in made.items()
        },
        "a client of eight targets": idle,
    }


def client(address: str, folder: str) -> dict[str, float]:
    """What a client process of its own needs."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.mtls", "--client", address, folder],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout)
    return found


async def measured(address: str, folder: str) -> dict[str, float]:
    """Of this process: call all targets, then do nothing."""
    names = [f"orders{number}" if folder == "-" else "orders" for number in range(TARGETS)]
    identity = None if folder == "-" else Identity.from_folder(folder)
    began = time.perf_counter()
    meshes = [accord.Mesh("caller", targets={each: address}, identity=identity) for each in names]
    channels: list[Any] = [m.channel(n) for m, n in zip(meshes, names, strict=True)]
    for number, channel in enumerate(channels):
        await Stub(channel).Retried(Message(), timeout=10)
        if not number:
            first = time.perf_counter() - began
    before = time.process_time()
    await asyncio.sleep(IDLE)
    spent = time.process_time() - before
    pss = psutil.Process().memory_full_info().pss
    found = {
        "PSS, MB": round(pss / 2**20, 1),
        "idle, % of a core": round(spent / IDLE * 100, 2),
        "first call, ms": round(first * 1e3, 1),
    }
    for mesh in meshes:
        await mesh.close()
    return found


def main() -> None:
    options = harness.parser(__doc__)
    options.add_argument("--rounds", type=int, default=40)
    options.add_argument("--calls", type=int, default=400, help="per side and round")
    options.add_argument("--connections", type=int, default=40, help="per side and round")
    options.add_argument("--client", nargs=2, help="for itself")
    given = options.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if given.client:
            print(json.dumps(runner.run(measured(*given.client))))
            return
        figures = runner.run(run(given.rounds, given.calls, given.connections))
    harness.report("mtls", figures, as_json=given.json)


if __name__ == "__main__":
    main()
