"""Processes that end with calls in flight, one after the other: how does each of them end?

    python -m tests.chaos.exits service|bare|restarts COUNT

`service`: a service as `main` runs it, which calls itself until SIGTERM comes. `bare`: grpc.aio and
nothing of ours, on uvloop, ended without a word. `restarts`: one process that starts and stops a
service so often. Prints the exit codes, negative for signals, and how often each was seen; what a
crashed process said is in a file beside.
"""

import asyncio
import faulthandler
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc.aio
import uvloop

from accord_runtime.process import main, running
from accord_runtime.service import Runtime, Service
from services import topology
from shop.customers.v1.customers_pb2 import GetCustomerRequest
from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub
from tests.runtime import little_service
from tests.support.mesh import settings_of
from tests.support.ports import free_port

NOBODY = "nats://127.0.0.1:1"
AT_ONCE = 8
HANGS = 60.0
"""Seconds after which a process that does not end says where it is, and ends with 1."""


def under_load(*, end: bool) -> Service:
    """A service that calls itself, through its mesh and past it, and may end itself meanwhile."""

    def build(runtime: Runtime) -> None:
        little_service.build(runtime)
        plain = grpc.aio.insecure_channel(runtime.settings.address)
        for channel in (plain, runtime.mesh.channel(runtime.settings.address)):
            for _ in range(AT_ONCE):
                runtime.background.append(("load", lambda channel=channel: _call(channel)))  # type: ignore[misc]
        if end:
            runtime.background.append(("end", _end))

    name = "customers"
    return Service(name, ("shop.customers.v1.CustomerService",), build, little_service.TABLES)


async def _call(channel: Any) -> None:
    stub: Any = CustomerServiceStub(channel)
    while True:
        with suppress(grpc.RpcError):
            await stub.GetCustomer(GetCustomerRequest(customer_id="c"), timeout=2)
        await asyncio.sleep(0.01)


async def _end() -> None:
    await asyncio.sleep(random.uniform(0.1, 0.6))
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(HANGS)


def service(home: Path) -> None:
    """Be a service, from its start to its end."""
    os.environ |= {"MESH_HOME": str(home), "NATS_URL": NOBODY}
    os.environ["MESH_LISTEN"] = f"127.0.0.1:{free_port()}"
    main(under_load(end=True), topology.addresses)


def bare(home: Path) -> None:
    """Be a process that knows grpc.aio only, and ends in the midst of its calls."""
    with suppress(KeyboardInterrupt):
        uvloop.run(_bare())


async def _bare() -> None:
    async def unary(request: bytes, context: Any) -> bytes:
        await asyncio.sleep(random.random() * 0.02)
        return request

    async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
        while True:
            yield request
            await asyncio.sleep(0.001)

    async def read(channel: Any) -> None:
        async for _ in channel.unary_stream("/Plain/Stream")(b"x" * 100, timeout=5):
            pass

    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Plain", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    calls: list[asyncio.Future[Any]] = []
    channel: Any  # its types want what it does not need
    for channel in [grpc.aio.insecure_channel(f"127.0.0.1:{port}") for _ in range(2)]:
        for _ in range(AT_ONCE):
            one = channel.unary_unary("/Plain/Unary")(b"x" * 100, timeout=5)
            calls += [asyncio.ensure_future(one), asyncio.ensure_future(read(channel))]
    await asyncio.sleep(random.random() * 0.02)
    how = random.choice(("exit", "return", "stop", "interrupt"))
    if how == "exit":
        sys.exit(0)
    if how == "stop":
        await server.stop(0)
    if how == "interrupt":
        raise KeyboardInterrupt


def processes(be: Callable[[Path], None], count: int) -> Counter[int]:
    """Exit code -> how many of `count` processes that were `be` ended with it."""
    ended = Counter[int]()
    home = Path(tempfile.mkdtemp())  # no block: the children leave it, too
    said = home / "said"
    for seed in range(count):
        code = os.waitstatus_to_exitcode(os.waitpid(_fork(be, seed, said), 0)[1])
        ended[code] += 1
        if code:
            print(f"seed {seed} ended with {code}:\n{said.read_text()[-4000:]}", flush=True)
    shutil.rmtree(home)
    return ended


def _fork(be: Callable[[Path], None], seed: int, said: Path) -> int:
    # What is imported here needs not be again: a hundred milliseconds each.
    child = os.fork()
    if child:
        return child
    output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    faulthandler.enable()
    faulthandler.dump_traceback_later(HANGS, exit=True)
    random.seed(seed)
    be(said.parent)
    sys.exit(0)


async def restarts(count: int) -> None:
    """Start and stop a service under load `count` times."""
    faulthandler.enable()
    with tempfile.TemporaryDirectory() as folder:
        settings = settings_of("customers", Path(folder), nats_url=NOBODY)
        for _ in range(count):
            async with running(under_load(end=False), settings):
                await asyncio.sleep(random.random() * 0.2)


if __name__ == "__main__":
    kind, number = sys.argv[1], int(sys.argv[2])
    if kind == "restarts":
        uvloop.run(restarts(number))
        print(f"started and stopped {number} times")
    else:
        found = processes({"service": service, "bare": bare}[kind], number)
        print(f"ended: {dict(found)}")
