"""A server of the library in a process of its own: `python -m tests.abuse.server aio|sync`.

Prints its address. Its methods are those of the test contract, one that echoes and two that send
for as long as they may.
"""

import asyncio
import ctypes
import gc
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import accord
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


def in_an_event_loop() -> None:
    """With `grpc.aio`."""

    async def echo(request: Any, context: Any) -> Any:
        return tidied(request)

    async def endless(request: Any, context: Any) -> AsyncIterator[Any]:
        while True:
            yield Message(text="x" * 1000)
            await asyncio.sleep(PAUSE)

    async def serve() -> None:
        server = accord.Mesh("callee").server()
        behaviours = {"Unary": echo, "ServerStream": endless, "Quiet": endless}
        server.add_generic_rpc_handlers((handlers(behaviours),))
        port = server.add_insecure_port("127.0.0.1:0")
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

    server = accord.Mesh("callee").sync.server()
    behaviours = {"Unary": echo, "ServerStream": endless, "Quiet": endless}
    server.add_generic_rpc_handlers((handlers(behaviours),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    {"aio": in_an_event_loop, "sync": in_threads}[sys.argv[1]]()
