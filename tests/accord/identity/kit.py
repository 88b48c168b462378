"""Servers and clients with certificates."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

import accord
from accord.identity import Identity
from tests.accord.drivers import Driver
from tests.accord.identity.authority import Leaf
from tests.accord.kit import Handlers, Message, Stub


async def whose(request: Any, context: Any) -> Any:
    """Answers with who has called."""
    call = accord.current()
    assert call is not None
    return Message(text=call.principal)


@asynccontextmanager
async def served(
    driver: Driver,
    mesh: accord.Mesh,
    identity: Identity,
    behaviours: Handlers | None = None,
    **options: Any,
) -> AsyncIterator[str]:
    """A server of the mesh with mutual TLS; yields its address."""
    server = driver.server(mesh, **options)
    port = server.add_secure_port("127.0.0.1:0", identity.server_credentials())
    methods = ("Unary", "Limited")
    await driver.start(server, behaviours or dict.fromkeys(methods, whose))
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await driver.stop(server)


def credentials(leaf: Leaf) -> grpc.ChannelCredentials:
    """What a client shows with this certificate."""
    return grpc.ssl_channel_credentials(leaf.roots, leaf.key, leaf.certificate)


@asynccontextmanager
async def client(address: str, leaf: Leaf, *options: tuple[str, Any]) -> AsyncIterator[Stub]:
    """A bare client with this certificate, on a connection of its own."""
    own = (("grpc.use_local_subchannel_pool", 1), *options)
    async with grpc.aio.secure_channel(address, credentials(leaf), own) as channel:
        yield Stub(channel)


async def asked(address: str, leaf: Leaf, method: str = "Unary") -> str:
    """Who the server takes the holder of a certificate for, or the code and reason of an error."""
    async with client(address, leaf) as stub:
        return await answer(stub, method)


async def answer(stub: Stub, method: str = "Unary") -> str:
    """As `asked`, over an open channel."""
    try:
        found = await getattr(stub, method)(Message(), timeout=10)
    except grpc.aio.AioRpcError as error:
        failure = accord.failure_of(error)
        return f"{error.code().name} {failure.reason if failure else error.details()}"
    return str(found.text)
