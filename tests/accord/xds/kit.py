"""Servers with certificates, and a mesh that finds them by xDS."""

import ast
import asyncio
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

import accord
from accord.identity import Identity
from accord.xds import XdsError
from accord.xds.health import PORT
from tests.accord.identity.authority import Authority
from tests.accord.kit import Message, Stub, handlers

ID: Final = "spiffe://shop.internal/"
CALLER: Final = f"{ID}caller"
SERVING: Final = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING


class People:
    """Identities of one authority, by name; each in a folder."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority()
        self._folder = folder

    def issue(self, name: str, *, ends: float = 3600.0, id: str = "") -> Path:  # noqa: A002
        """Write a new certificate into the folder of `name`; `ends`: seconds from now."""
        leaf = self.authority.issue(id or ID + name, ends=ends)
        return leaf.write(self._folder / name)

    def identity(self, name: str, **options: Any) -> Identity:
        """The identity of a new certificate."""
        return Identity.from_folder(self.issue(name, **options))


@dataclass(slots=True)
class Backend:
    """A server that answers with its own name."""

    name: str
    address: str
    server: Any
    calls: int = 0
    fails: Callable[[], bool] = field(default=lambda: False)
    health: Any = None
    released: asyncio.Event = field(default_factory=asyncio.Event)
    """Until then a stream does not go on."""


@asynccontextmanager
async def backend(
    identity: Identity, name: str = "", *, healthy: bool = False, age: float | None = None
) -> AsyncIterator[Backend]:
    """A server of an identity; `healthy`: with a port for its health; `age` of connections, s."""
    callee = accord.Mesh(name or "callee", identity=identity)
    options = () if age is None else (("grpc.max_connection_age_ms", int(age * 1000)),)
    server = callee.server(options=options)

    async def unary(request: Any, context: Any) -> Any:
        found.calls += 1
        if found.fails():
            await context.abort(grpc.StatusCode.INTERNAL, "as told")
        return Message(text=found.name)

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        for _ in range(2):
            yield Message(text=found.name)
            await found.released.wait()

    server.add_generic_rpc_handlers((handlers({"Unary": unary, "ServerStream": stream}),))
    port = _bind(server, identity, two=healthy)
    found, plain = Backend(name, f"127.0.0.1:{port}", server), None
    if healthy:
        plain = grpc.aio.server()
        found.health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        health_pb2_grpc.add_HealthServicer_to_server(found.health, plain)
        plain.add_insecure_port(f"127.0.0.1:{port + PORT}")
        await found.health.set("", SERVING)
        await plain.start()
    await server.start()
    try:
        yield found
    finally:
        found.released.set()
        if plain is not None:
            await plain.stop(None)
        await server.stop(None)


def _bind(server: Any, identity: Identity, *, two: bool) -> int:
    """A port of which the one for health is free, too, if there are to be two."""
    for _ in range(50):
        port: int = server.add_secure_port("127.0.0.1:0", identity.server_credentials())
        if not two:
            return port
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port + PORT))
            return port
    raise AssertionError("no port has a free one above it")


async def called(stub: Stub, calls: int, **options: Any) -> Counter[str]:
    """Who has answered so many calls, or with which status."""
    found: Counter[str] = Counter()
    for _ in range(calls):
        try:
            found[(await stub.Unary(Message(), **options)).text] += 1
        except grpc.RpcError as error:
            found[error.code().name] += 1
    return found


async def until_seen(stub: Stub, *names: str) -> None:
    """Call until all of these have answered."""
    seen: set[str] = set()
    async with asyncio.timeout(20):
        while not seen >= set(names):
            seen |= set(await called(stub, 5))


async def until_only(stub: Stub, name: str, calls: int = 10, **options: Any) -> None:
    """Call until one has answered so many in a row."""
    async with asyncio.timeout(30):
        while await called(stub, calls, **options) != {name: calls}:
            pass


async def joined(mesh: accord.Mesh, target: str) -> grpc.aio.Channel:
    """A channel of a mesh, once gRPC has let go of what an earlier test of the process had."""
    async with asyncio.timeout(30):
        while True:
            try:
                return mesh.channel(target)
            except XdsError:
                await asyncio.sleep(0.2)


CLIENT: Final = """
import asyncio, collections, sys
import accord
from accord.identity import Identity
from tests.accord.kit import Message, Stub

async def main():
    folder, plane, calls, *metadata = sys.argv[1:]
    mesh = accord.Mesh("any", identity=Identity.from_folder(folder), control_plane=plane)
    stub, found = Stub(mesh.channel("orders")), collections.Counter()
    for _ in range(int(calls)):
        try:
            answer = await stub.Unary(Message(), metadata=[tuple(m.split("=")) for m in metadata])
            found[answer.text] += 1
        except Exception as error:
            print(error.details(), file=sys.stderr)
            found[error.code().name] += 1
    print(dict(found))
    await mesh.close()

asyncio.run(main())
"""
"""A process with an identity and a control plane elsewhere: prints who has answered."""


async def from_process(
    folder: Path, plane: str, calls: int = 4, *metadata: str
) -> tuple[dict[str, int], str]:
    """Who has answered the calls of a process of its own, and what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CLIENT, folder, plane, str(calls), *metadata,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, errors = await asyncio.wait_for(process.communicate(), 60)
    return ast.literal_eval(out.decode() or "{}"), errors.decode()
