"""A server process whose handlers wait, queue or work; prints its port.

Bare or with accord, in an event loop or with threads. `Unary` does what its request says:
"wait S", "work S" (CPU), or "pool S", which waits while it holds one of ten places. `Put` is a
second method that does the same. `Fragile` answers with how late the loop, or the threads, were
when nothing but a timer was due: each delay since it was last asked, in seconds.
"""

import asyncio
import json
import sys
import threading
import time
from typing import Any

import grpc
import grpc.aio

import accord
from accord.ops.v1 import mesh_pb2
from accord.v1 import policy_pb2
from tests.accord.kit import Message, handlers, path

PLACES = 10
TICK = 0.01

_delays: list[float] = []


def _work(seconds: float) -> None:
    ends = time.thread_time() + seconds
    while time.thread_time() < ends:
        pass


def _report() -> Any:
    found = json.dumps([round(each, 4) for each in _delays])
    _delays.clear()
    return Message(text=found)


def _mesh() -> accord.Mesh:
    mesh = accord.Mesh("callee")
    limit = mesh_pb2.Override(policy=policy_pb2.MethodPolicy(limit=policy_pb2.Limit()))
    for method in ("Unary", "Put"):
        mesh.control.overrides.set(path(method), limit)
    return mesh


async def _looped(meshed: bool) -> None:
    pool = asyncio.Semaphore(PLACES)

    async def handle(request: Any, context: Any) -> Any:
        what, seconds = request.text.split()
        if what == "work":
            _work(float(seconds))
        elif what == "wait":
            await asyncio.sleep(float(seconds))
        else:
            async with pool:
                await asyncio.sleep(float(seconds))
        return request

    async def report(request: Any, context: Any) -> Any:
        return _report()

    server = _mesh().server() if meshed else grpc.aio.server()
    server.add_generic_rpc_handlers(
        (handlers({"Unary": handle, "Put": handle, "Fragile": report}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    while True:
        began = time.monotonic()
        await asyncio.sleep(TICK)
        _delays.append(time.monotonic() - began - TICK)


def _threaded(meshed: bool, threads: int) -> None:
    pool = threading.Semaphore(PLACES)

    def handle(request: Any, context: Any) -> Any:
        what, seconds = request.text.split()
        if what == "work":
            _work(float(seconds))
        elif what == "wait":
            time.sleep(float(seconds))
        else:
            with pool:
                time.sleep(float(seconds))
        return request

    def report(request: Any, context: Any) -> Any:
        return _report()

    server: grpc.Server
    if meshed:
        server = _mesh().sync.server(max_workers=threads)
    else:
        from concurrent.futures import ThreadPoolExecutor

        server = grpc.server(ThreadPoolExecutor(threads))
    server.add_generic_rpc_handlers(
        (handlers({"Unary": handle, "Put": handle, "Fragile": report}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    while True:
        began = time.monotonic()
        time.sleep(TICK)
        _delays.append(time.monotonic() - began - TICK)


def main(kind: str, side: str, threads: str = "1000") -> None:
    if kind == "aio":
        asyncio.run(_looped(side == "accord"))
    else:
        _threaded(side == "accord", int(threads))


if __name__ == "__main__":
    main(*sys.argv[1:])
