"""Handshakes that fail: nobody's load, so not repeated, no circuit opened; and the log says why."""

import asyncio
import logging
import socket
from pathlib import Path
from typing import Final

import grpc
import pytest

import accord
from accord.identity import Identity
from accord.ops.v1 import mesh_pb2
from accord.v1 import policy_pb2
from tests.accord.drivers import Driver
from tests.accord.identity.authority import Authority, Leaf
from tests.accord.identity.kit import credentials, served, whose
from tests.accord.kit import Message, path

ORDERS: Final = "spiffe://shop.internal/orders"
PAYMENTS: Final = "spiffe://shop.internal/payments"
ROOT: Final = Authority()
CA: Final = ROOT.intermediate()
OTHER: Final = Authority()
STRANGER: Final = OTHER.issue(ORDERS)

BY_SERVER: Final = {
    "expired": (CA.issue(ORDERS, begins=-120, ends=-1), "certificate has expired"),
    "future": (CA.issue(ORDERS, begins=600), "certificate is not yet valid"),
    "wrong authority": (
        Leaf(STRANGER.certificate, STRANGER.key, ROOT.roots),
        "unable to get local issuer certificate",
    ),
    "self-signed": (
        CA.issue(ORDERS, self_signed=True, chained=False),
        "self signed certificate",
    ),
    "no intermediate": (CA.issue(ORDERS, chained=False), "unable to get local issuer certificate"),
    "none": (None, "PEER_DID_NOT_RETURN_A_CERTIFICATE"),
}
"""Certificate of a client, and what the server's gRPC writes of it."""

BY_CLIENT: Final = {
    "untrusted server": (OTHER.issue(ORDERS), "CERTIFICATE_VERIFY_FAILED: unable to get local"),
    "key of another": (
        Leaf(CA.issue(ORDERS).certificate, STRANGER.key, ROOT.roots),
        "Failed to create security handshaker",
    ),
}
"""Certificate of a client that does not accept the server's, and what its log says."""


def caller(identity: Identity | None = None) -> accord.Mesh:
    """A client that repeats what is UNAVAILABLE, and whose circuit opens at the first failure."""
    policy = policy_pb2.MethodPolicy(
        breaker=policy_pb2.Breaker(consecutive_failures=1, min_calls=100),
        retry=policy_pb2.Retry(max_attempts=3, codes=[policy_pb2.STATUS_CODE_UNAVAILABLE]),
    )
    policy.retry.initial_backoff.nanos = 1_000_000
    mesh = accord.Mesh("caller", identity=identity)
    mesh.control.overrides.set(path("Retried"), mesh_pb2.Override(policy=policy))
    return mesh


async def neutral(
    driver: Driver, mesh: accord.Mesh, address: str, shown: grpc.ChannelCredentials, good: Leaf
) -> None:
    """Calls with these credentials fail at once, and those with good ones are served meanwhile."""
    bad = driver.stub(mesh, address, credentials=shown)
    well = driver.stub(mesh, address, credentials=credentials(good))
    for _ in range(2):
        with pytest.raises(grpc.RpcError) as caught:
            await bad.Retried(Message(), timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert (await well.Retried(Message(), timeout=10)).text == ORDERS
    (route,) = mesh.snapshot().routes
    assert (route.retries, route.breaker and route.breaker.failures) == (0, 0)
    assert mesh.control.counts.of(path("Retried"))["handshake.failed"] == 2


@pytest.fixture
def server(tmp_path: Path) -> Identity:
    """Who the server is."""
    return Identity.from_folder(CA.issue(PAYMENTS).write(tmp_path / "server"))


@pytest.mark.parametrize("kind", BY_SERVER)
async def test_refused_by_the_server(
    driver: Driver,
    server: Identity,
    kind: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The client says who has refused; the server's process why."""
    leaf, why = BY_SERVER[kind]
    shown = grpc.ssl_channel_credentials(ROOT.roots) if leaf is None else credentials(leaf)
    mesh, callee = caller(), accord.Mesh("callee", identity=server)
    async with served(driver, callee, server, {"Retried": whose}) as address:
        await neutral(driver, mesh, address, shown, CA.issue(ORDERS))
        await driver.close(mesh)
    (line,) = (x.getMessage() for x in caplog.records if x.levelno == logging.WARNING)
    assert "refused by the server, whose log says why" in line
    assert address in line
    assert why in capfd.readouterr().err


@pytest.mark.parametrize("kind", BY_CLIENT)
async def test_refused_by_the_client(
    driver: Driver, server: Identity, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says that it is this process, and why."""
    leaf, why = BY_CLIENT[kind]
    mesh, callee = caller(), accord.Mesh("callee", identity=server)
    async with served(driver, callee, server, {"Retried": whose}) as address:
        await neutral(driver, mesh, address, credentials(leaf), CA.issue(ORDERS))
        await driver.close(mesh)
    (line,) = (x.getMessage() for x in caplog.records if x.levelno == logging.WARNING)
    assert "refused by this process" in line
    assert why in line


async def test_its_own_certificate_is_named(
    driver: Driver, server: Identity, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A process with an identity says which certificate is refused, or what is wrong with it."""
    leaf = CA.issue(ORDERS)
    identity = Identity.from_folder(leaf.write(tmp_path))
    identity.close()
    async with served(driver, accord.Mesh("callee", identity=server), server) as address:
        shown = credentials(Leaf(STRANGER.certificate, STRANGER.key, ROOT.roots))
        for said in (f"it is shown {ORDERS}, serial {leaf.serial}", "tls.key: cannot be read"):
            mesh = caller(identity)
            with pytest.raises(grpc.RpcError):
                await driver.stub(mesh, address, credentials=shown).Unary(Message(), timeout=10)
            assert said in caplog.records[-1].getMessage()
            await driver.close(mesh)
            (tmp_path / "tls.key").write_bytes(b"")
            identity.refresh()
            identity.refresh()


async def test_a_server_without_tls(driver: Driver, server: Identity) -> None:
    """A client that wants TLS does not go on without; that is final, too."""
    mesh, good = caller(), CA.issue(ORDERS)
    async with driver.serving(accord.Mesh("callee"), {"Retried": whose}) as address:
        with pytest.raises(grpc.RpcError):
            await driver.stub(mesh, address, credentials=credentials(good)).Retried(Message())
        (route,) = mesh.snapshot().routes
        assert (route.retries, route.breaker and route.breaker.failures) == (0, 0)
        await driver.close(mesh)


@pytest.mark.parametrize("kind", ["refused", "closed"])
async def test_a_server_that_is_down(driver: Driver, kind: str) -> None:
    """No connection, or one that is lost in mid-handshake, is a failure as any other."""
    mesh = caller()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        stub = driver.stub(mesh, address, credentials=credentials(CA.issue(ORDERS)))
        answering = None
        if kind == "closed":
            listener.listen()
            listener.setblocking(False)
            answering = asyncio.create_task(_close_all(listener))
        with pytest.raises(grpc.RpcError):
            await stub.Retried(Message(), timeout=10)
        if answering is not None:
            answering.cancel()
    (route,) = mesh.snapshot().routes
    assert (route.retries, route.breaker and route.breaker.failures) == (2, 1)
    await driver.close(mesh)


async def _close_all(listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while True:
        connection, _ = await loop.sock_accept(listener)
        await loop.sock_recv(connection, 4096)
        connection.close()


async def test_plaintext(driver: Driver, server: Identity) -> None:
    """A client without TLS is not served; to it that is a server which breaks down."""
    mesh = caller()
    async with served(driver, accord.Mesh("callee", identity=server), server) as address:
        with pytest.raises(grpc.RpcError) as caught:
            await driver.stub(mesh, address).Retried(Message(), timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        (route,) = mesh.snapshot().routes
        assert (route.retries, route.breaker and route.breaker.failures) == (2, 1)
        await driver.close(mesh)
