"""One engine that carries sagas through three gRPC participants; prints what it took as JSON.

Every engine makes the same calls over the same kind of channel (grpc.aio's own), keeps each step's
outcome durably before the next one, and is told the same number of sagas under way at a time. What
it prints: sagas a second, the median from start to end, and CPU, its own and that of a server which
it needs (`--server-pid`).
"""

import argparse
import asyncio
import json
import os
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import uvloop

from benchmarks import harness
from benchmarks.saga_participants import PARTICIPANTS, SERVICE

Call = Callable[[str, str], Awaitable[None]]
"""Asks a participant to act in a saga."""
Carry = Callable[[str], Awaitable[None]]
"""Carries one saga to its end."""


@asynccontextmanager
async def accord(call: Call, url: str) -> AsyncIterator[Carry]:
    """Ours: an executor and its sagas on one database, on the event loop that a service has."""
    from accord_runtime.database import open_database
    from accord_runtime.database.migrations import migrate
    from accord_runtime.process import MIGRATIONS
    from accord_runtime.saga import MIGRATIONS as SAGA_MIGRATIONS
    from accord_runtime.saga import Definition, Kind, Sagas, Step
    from accord_runtime.work.executor import Executor

    ended: dict[str, asyncio.Event] = {}

    def step(name: str, kind: Kind) -> Step:
        async def act(saga: str, key: str) -> Any:
            await call(name, key)
            if kind is Kind.PIVOT:
                return lambda tx: tx.after_commit(ended[saga].set)
            return None

        return Step(name, kind, act, act if kind is Kind.COMPENSATABLE else None)

    kinds = (Kind.COMPENSATABLE, Kind.COMPENSATABLE, Kind.PIVOT)
    steps = tuple(map(step, PARTICIPANTS, kinds))
    definition = Definition("order", 1, steps, lambda *_: None, lambda *_: None)
    database = await open_database(url, "benchmark")
    await migrate(database, "runtime", MIGRATIONS)
    await migrate(database, "service", SAGA_MIGRATIONS)
    executor = Executor(database, "benchmark")
    sagas = Sagas(database, executor)
    sagas.register(definition)
    await executor.take_back()
    serving = asyncio.create_task(executor.serve())

    async def carry(saga: str) -> None:
        ended[saga] = asyncio.Event()
        work = await database.write(lambda tx: sagas.start(tx, definition, saga))
        await executor.run(work)
        await ended[saga].wait()
        del ended[saga]

    yield carry
    await executor.drain()
    serving.cancel()
    await database.close()


@asynccontextmanager
async def dbos(call: Call, url: str) -> AsyncIterator[Carry]:
    """DBOS Transact: a workflow of three steps."""
    from dbos import DBOS, DBOSConfig, SetWorkflowID

    # SQLite's own default (a rollback journal, synchronous=FULL) is what DBOS leaves in place.
    config: DBOSConfig = {"name": "benchmark", "system_database_url": url, "log_level": "ERROR"}
    DBOS(config=config)

    @DBOS.step(retries_allowed=True)
    async def act(name: str, key: str) -> None:
        await call(name, key)

    @DBOS.workflow()
    async def order(saga: str) -> None:
        for name in PARTICIPANTS:
            await act(name, f"{saga}/{name}/do")

    DBOS.launch()

    async def carry(saga: str) -> None:
        with SetWorkflowID(saga):
            handle = await DBOS.start_workflow_async(order, saga)
        await handle.get_result()

    yield carry
    DBOS.destroy()


@asynccontextmanager
async def temporal(call: Call, url: str) -> AsyncIterator[Carry]:
    """Temporal: a workflow of three activities, on a server at `url`."""
    from benchmarks import saga_temporal

    async with saga_temporal.worker(call, url) as carry:
        yield carry


ENGINES = {each.__name__: each for each in (accord, dbos, temporal)}


async def run(engine: str, url: str, participants: str, count: int, at_once: int) -> dict[str, Any]:
    took: list[float] = []
    async with grpc.aio.insecure_channel(participants) as channel:
        calls = {
            name: channel.unary_unary(f"/{SERVICE}/{name}", None, None) for name in PARTICIPANTS
        }

        async def call(name: str, key: str) -> None:
            await calls[name](key.encode())

        async with ENGINES[engine](call, url) as carry:
            names = iter(range(count + at_once))

            async def worker(most: int) -> None:
                for number in names:
                    began = time.monotonic()
                    await carry(f"saga-{os.getpid()}-{number}")
                    took.append(time.monotonic() - began)
                    if len(took) >= most:
                        return

            # The first ones pay for connections and caches.
            await asyncio.gather(*(worker(0) for _ in range(at_once)))
            took.clear()
            cpu, began = time.process_time(), time.monotonic()
            await asyncio.gather(*(worker(count) for _ in range(at_once)))
            seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    return {
        "sagas_per_s": round(len(took) / seconds, 1),
        "p50_ms": round(statistics.median(took) * 1000, 1),
        "cpu_ms": round(cpu / len(took) * 1000, 2),
        "sagas": len(took),
    }


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("engine", choices=ENGINES)
    options.add_argument("url")
    options.add_argument("participants")
    options.add_argument("--sagas", type=int, required=True)
    options.add_argument("--at-once", type=int, required=True)
    options.add_argument("--server-pid", type=int)
    given = options.parse_args()
    if given.engine == "accord":
        uvloop.install()  # as every service does; the makers of the others do not recommend it
    server = given.server_pid
    before = harness.cpu_seconds(server) if server else 0.0
    figures = asyncio.run(
        run(given.engine, given.url, given.participants, given.sagas, given.at_once)
    )
    if server:
        figures["server_cpu_ms"] = round(
            (harness.cpu_seconds(server) - before) / figures["sagas"] * 1000, 2
        )
    print(json.dumps(figures), flush=True)
    # Temporal's worker has crashed in the interpreter's end; nothing is left to be done there.
    os._exit(0)


if __name__ == "__main__":
    main()
