"""A servicer of your own, served for a test and called over a real port."""

import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc.aio

import accord

S = TypeVar("S")


@asynccontextmanager
async def serve(
    servicer: Any,  # of the generated class, of which there is one per contract
    stub: Callable[[grpc.aio.Channel], S],
    caller: accord.Mesh,
    **settings: Any,  # of many types: a mesh's parameters
) -> AsyncIterator[S]:
    """Serve an aio servicer on a free loopback port.

    Args:
        servicer: an instance of the generated class's subclass.
        stub: the generated stub class. `add_XServicer_to_server` is found beside it.
        caller: the mesh that calls.
        settings: go to the `accord.Mesh` of the server: `clock`, `validator`, `idempotency`, ...

    Yields:
        The stub, connected.

    Raises:
        ValueError: `stub` is not a generated class.
    """
    name, module = stub.__name__, sys.modules[stub.__module__]
    service = re.sub(r"(Async)?Stub$", "", name)
    add = getattr(module, f"add_{service}Servicer_to_server", None)
    if add is None:
        raise ValueError(f"{name} is not a stub that was generated from a contract")
    mesh = accord.Mesh(service, **settings)
    server = mesh.server()
    add(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield stub(caller.channel(f"127.0.0.1:{port}"))
    finally:
        await server.stop(None)
        await mesh.close()
