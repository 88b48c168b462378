"""A server of the library in a process of its own: `python -m tests.abuse.server aio|sync`.

With a folder of certificates behind that, it has mutual TLS. Prints its address. Its methods are
those of the test contract, one that echoes and two that send for as long as they may.
"""

import asyncio
import ctypes
import gc
import sys
import time
from collections.abc import AsyncIterator, Iterator
from functools import cache
from typing import Any, Final

import accord
from accord.identity import Identity
from tests.accord.kit import Message, handlers

PAUSE: Final = 0.01
"""Seconds between two messages of a stream."""

TIDY: Final = "tidy"


def tidied(request: Any) -> Any:
    """The request; one that says so has what is free given back, so that memory can be compared."""
    if request.text == TIDY:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
    return request


@cache
def mesh() -> accord.Mesh:
    """That of the server."""
    folder = sys.argv[2:]
    return accord.Mesh("callee", identity=Identity.from_folder(*folder) if folder else None)


def listen(server: Any) -> int:
    """The port of a server that listens."""
    identity = mesh().identity
    if identity is None:
        return int(server.add_insecure_port("127.0.0.1:0"))
    return int(server.add_secure_port("127.0.0.1:0", identity.server_credentials()))


def in_an_event_loop() -> None:
    """With `grpc.aio`."""

    async def echo(request: Any, context: Any) -> Any:
        return tidied(request)

    async def endless(request: Any, context: Any) -> AsyncIterator[Any]:
        while True:
            yield Message(text="x" * 1000)
            await asyncio.sleep(PAUSE)

    async def serve() -> None:
        server = mesh().server()
        behaviours = {"Unary": echo, "ServerStream": endless, "Quiet": endless}
        server.add_generic_rpc_handlers((handlers(behaviours),))
        port = listen(server)
        await server.start()
        print(f"127.0.0.1:{port}", flush=True)
        await server.wait_for_termination()

    asyncio.run(serve())


def in_threads() -> None:
    """With threads."""

    def echo(request: Any, context: Any) -> Any:
        return tidied(request)

    def endless(request: Any, context: Any) -> Iterator[Any]:
        while True:
            yield Message(text="x" * 1000)
            time.sleep(PAUSE)

    server = mesh().sync.server()
    behaviours = {"Unary": echo, "ServerStream": endless, "Quiet": endless}
    server.add_generic_rpc_handlers((handlers(behaviours),))
    port = listen(server)
    server.start()
    print(f"127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    {"aio": in_an_event_loop, "sync": in_threads}[sys.argv[1]]()
