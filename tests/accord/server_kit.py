"""Servers of the mesh, called by bare gRPC clients: what is seen is the server's own doing."""

import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

import accord
from tests.accord.kit import Handlers, Stub, idle, serving

if TYPE_CHECKING:
    from tests.accord.drivers import Driver


@dataclass(frozen=True, slots=True)
class Served:
    """A server's mesh and a bare client of it."""

    mesh: accord.Mesh
    stub: Stub
    channel: grpc.aio.Channel

    def counts(self, method: str) -> dict[str, int]:
        """What the policies of a method have decided."""
        return dict(self.mesh.control.counts.of(f"/accordtest.v1.EchoService/{method}"))

    def idle(self) -> bool:
        """Whether no permit is held and nobody waits for one."""
        return idle(self.mesh)


@asynccontextmanager
async def bare(behaviours: Handlers, **mesh: Any) -> AsyncIterator[Served]:
    """A server of a mesh with these settings, and a client without interceptors."""
    found = accord.Mesh("callee", **mesh)
    async with (
        serving(found, behaviours) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield Served(found, Stub(channel), channel)


def trailers_of(error: Any) -> dict[str, Any]:
    """The trailers of a failed call."""
    trailers: Any = error.trailing_metadata() or ()
    return dict(trailers)


async def rejected(call: Any) -> grpc.aio.AioRpcError:
    """The error of a call that must fail."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError(f"the call succeeded: {answer}")


def certify(folder: Path, names: tuple[str, ...]) -> None:
    """A test authority and a certificate per name, with its SPIFFE identity, below `folder`."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-days", "2", "-subj", "/CN=ca", "-keyout", "ca.key",
            "-out", "ca.pem")  # fmt: skip
    for name in names:
        (folder / f"{name}.ext").write_text(
            f"subjectAltName=URI:spiffe://test.internal/{name},DNS:localhost\n"
        )
        openssl("req", *key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out",
                f"{name}.csr")  # fmt: skip
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext", "-out",
                f"{name}.pem")  # fmt: skip


def _read(folder: Path, *names: str) -> list[bytes]:
    return [(folder / name).read_bytes() for name in names]


def certificate_of(folder: Path, name: str) -> grpc.ChannelCredentials:
    """What `name` shows to a server; `folder` as in `certify`."""
    return grpc.ssl_channel_credentials(*_read(folder, "ca.pem", f"{name}.key", f"{name}.pem"))


@asynccontextmanager
async def secured(
    driver: "Driver", mesh: accord.Mesh, behaviours: Handlers, folder: Path
) -> AsyncIterator[str]:
    """A server with mutual TLS; yields its address."""
    server = driver.server(mesh)
    authority, key, chain = _read(folder, "ca.pem", "server.key", "server.pem")
    port = server.add_secure_port(
        "localhost:0",
        grpc.ssl_server_credentials([(key, chain)], authority, require_client_auth=True),
    )
    await driver.start(server, behaviours)
    try:
        yield f"localhost:{port}"
    finally:
        await driver.stop(server)


@asynccontextmanager
async def mutual(
    driver: "Driver",
    mesh: accord.Mesh,
    behaviours: Handlers,
    folder: Path,
    callers: tuple[str, ...],
) -> AsyncIterator[dict[str, Stub]]:
    """A server with mutual TLS, and a bare client for each caller."""
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(secured(driver, mesh, behaviours, folder))
        channels = {
            name: await stack.enter_async_context(
                grpc.aio.secure_channel(address, certificate_of(folder, name))
            )
            for name in callers
        }
        yield {name: Stub(channel) for name, channel in channels.items()}
