"""Who may call a server with an identity, and what it makes of certificates that change."""

import asyncio
import socket
import ssl
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import grpc
import pytest
from grpc.experimental.session_cache import ssl_session_cache_lru
from grpc_channelz.v1 import channelz_pb2
from grpc_channelz.v1.channelz import add_channelz_servicer
from grpc_channelz.v1.channelz_pb2_grpc import ChannelzStub
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.reflection import enable_server_reflection
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

import accord
from accord.admin.mesh_service import CONTRACT
from accord.identity import Identity, IdentityError
from accord.ops.v1 import mesh_pb2
from accord.ops.v1.mesh_pb2_grpc import MeshServiceStub
from accord.server.callers import UNREADABLE, Callers
from tests.accord.drivers import Driver
from tests.accord.identity.authority import Authority, Leaf, put
from tests.accord.identity.kit import answer, asked, client, credentials, served, whose
from tests.accord.kit import Message, Stub, eventually

ORDERS: Final = "spiffe://shop.internal/orders"
PAYMENTS: Final = "spiffe://shop.internal/payments"
EVIL: Final = "spiffe://evil.example/x"
PARTNER: Final = "spiffe://partner.example/x"
WRONG: Final = "PERMISSION_DENIED WRONG_TRUST_DOMAIN"
ROOT: Final = Authority()
CA: Final = ROOT.intermediate()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of the server."""
    return CA.issue(PAYMENTS).write(tmp_path / "server")


CALLERS: Final[dict[str, tuple[Leaf, str, str]]] = {
    "own domain": (CA.issue(ORDERS), ORDERS, ORDERS),
    "named domain": (CA.issue(PARTNER), PARTNER, PARTNER),
    "other domain": (CA.issue(EVIL), WRONG, WRONG),
    "two ids": (CA.issue(ORDERS, PAYMENTS), "anonymous", "UNAUTHENTICATED NO_IDENTITY"),
    "id and URI": (CA.issue(ORDERS, "https://x/"), "anonymous", "UNAUTHENTICATED NO_IDENTITY"),
    "DNS only": (CA.issue(dns=["orders"]), "anonymous", "UNAUTHENTICATED NO_IDENTITY"),
}
"""A certificate, what it is without `authorize`, and with it."""


@pytest.mark.parametrize("authorize", [False, True])
async def test_who_may_call(driver: Driver, folder: Path, authorize: bool) -> None:
    """An identity of another trust domain is refused whatever it calls, under a trusted root, too.

    Who has none is told what the certificate names instead.
    """
    identity = Identity.from_folder(folder, trust_domains=["partner.example"])
    mesh = accord.Mesh("payments", identity=identity, authorize=authorize)
    async with served(driver, mesh, identity) as address:
        for leaf, open_to_all, authorized in CALLERS.values():
            wanted = authorized if authorize else open_to_all
            assert await asked(address, leaf, "Limited") == wanted
            if not authorize:
                assert await asked(address, leaf) == wanted
        own_pool = [("grpc.use_local_subchannel_pool", 1)]
        evil = credentials(CALLERS["other domain"][0])
        async with grpc.aio.secure_channel(address, evil, own_pool) as channel:
            with pytest.raises(grpc.aio.AioRpcError, match="none of the trust domains"):
                await _health(channel).Check(health_pb2.HealthCheckRequest())
        if authorize:
            async with client(address, CALLERS["two ids"][0]) as stub:
                with pytest.raises(grpc.aio.AioRpcError, match=f"names {ORDERS}, {PAYMENTS}"):
                    await stub.Limited(None)


def operated() -> Any:
    """Answers the operator, on a server of either kind."""
    answered = grpc.unary_unary_rpc_method_handler(
        lambda request, context: mesh_pb2.GetStateResponse(),
        request_deserializer=mesh_pb2.GetStateRequest.FromString,
        response_serializer=mesh_pb2.GetStateResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(CONTRACT, {"GetState": answered})


async def rights(address: str, leaf: Leaf) -> dict[str, str]:
    """What becomes of a call of each kind of right: OK, or the code and reason of an error."""
    name = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(address, credentials(leaf), name) as channel:
        untyped: Any = channel  # these know of grpc.Channel only
        reflection: Any = ServerReflectionStub(untyped)
        shown: Any = ChannelzStub(untyped)
        asked = iter([ServerReflectionRequest(list_services="")])
        calls = {
            "open to all": Stub(channel).Limited(Message()),
            "listed": Stub(channel).Guarded(Message()),
            "ops": MeshServiceStub(channel).GetState(mesh_pb2.GetStateRequest()),
            "reflection": anext(aiter(reflection.ServerReflectionInfo(asked))),
            "channelz": shown.GetServers(channelz_pb2.GetServersRequest()),
        }
        found: dict[str, str] = {}
        for kind, call in calls.items():
            try:
                await call
                found[kind] = "OK"
            except grpc.aio.AioRpcError as error:
                failure = accord.failure_of(error)
                found[kind] = f"{error.code().name} {failure and failure.reason}"
        return found


@pytest.mark.parametrize("authorize", [True, "dark"])
async def test_operators_of_another_trust_domain(
    driver: Driver, folder: Path, authorize: Any
) -> None:
    """One of a domain that is not named has no right; of one that is, what lists give to all.

    Who is named as operator, and nobody but him, operates: by ops, reflection and channelz alike.
    """
    denied = "PERMISSION_DENIED NOT_ALLOWED"
    operating = ("ops", "reflection", "channelz")
    foreign, own = "spiffe://partner.example/operator", "spiffe://shop.internal/operator"
    nothing = dict.fromkeys(("open to all", "listed", *operating), WRONG)
    a_caller = {"open to all": "OK", "listed": denied, **dict.fromkeys(operating, denied)}
    operator = a_caller | dict.fromkeys(operating, "OK")
    if authorize == "dark":  # then gRPC's own are everybody's who is let in
        a_caller |= {"reflection": "OK", "channelz": "OK"}
    for domains, operators, wanted in (
        ([], [], {foreign: nothing, own: operator}),
        (["partner.example"], [], {foreign: a_caller, own: operator}),
        (["partner.example"], [foreign], {foreign: operator, own: a_caller, PARTNER: a_caller}),
        (["test.internal"], [], {"spiffe://test.internal/alice": a_caller | {"listed": "OK"}}),
    ):
        identity = Identity.from_folder(folder, trust_domains=domains, operators=operators)
        mesh = accord.Mesh("payments", identity=identity, authorize=authorize)
        server = driver.server(mesh)
        server.add_generic_rpc_handlers((operated(),))
        add_channelz_servicer(server)
        enable_server_reflection(["grpc.channelz.v1.Channelz"], server)
        port = server.add_secure_port("127.0.0.1:0", identity.server_credentials())
        await driver.start(server, {"Limited": whose, "Guarded": whose})
        for who, rights_of_his in wanted.items():
            assert await rights(f"127.0.0.1:{port}", CA.issue(who)) == rights_of_his, who
        await driver.stop(server)
        identity.close()


@pytest.mark.parametrize("name", ["operator", "spiffe://evil.example/operator", "*"])
def test_who_can_be_no_operator(folder: Path, name: str) -> None:
    """An operator is a SPIFFE id of a trust domain that is accepted, which is said at once."""
    with pytest.raises(IdentityError, match="operators: "):
        Identity.from_folder(folder, operators=[name])


async def test_revoked(driver: Driver, folder: Path, tmp_path: Path) -> None:
    """A revoked certificate is refused soon, on connections that it has.

    So are those of a revoked intermediate, and nobody else.
    """
    denied = tmp_path / "revoked.txt"
    identity = Identity.from_folder(folder, revoked=denied)
    mesh = accord.Mesh("payments", identity=identity)
    other = ROOT.intermediate()
    thief, clerk, guest = CA.issue(ORDERS), CA.issue(ORDERS), other.issue(ORDERS)
    async with (
        served(driver, mesh, identity) as address,
        client(address, thief) as one,
        client(address, clerk) as two,
        client(address, guest) as three,
    ):
        assert [await answer(stub) for stub in (one, two, three)] == [ORDERS] * 3
        for serial, stub in ((thief.serial, one), (f"{other.certificate.serial_number:x}", three)):
            put(denied, f"{thief.serial}\n{serial}\n".encode())
            began = time.monotonic()
            while (found := await answer(stub)) == ORDERS:
                assert time.monotonic() - began < 10
                await asyncio.sleep(0.01)
            assert found == "PERMISSION_DENIED REVOKED"
            assert await answer(two) == ORDERS
        put(denied, b"")
        await eventually(lambda: not identity.is_revoked(thief.certificate))
        assert [await answer(stub) for stub in (one, two, three)] == [ORDERS] * 3


def _health(channel: grpc.aio.Channel) -> Any:
    return health_pb2_grpc.HealthStub(channel)


def test_an_unreadable_certificate(folder: Path, tmp_path: Path) -> None:
    """What TLS has accepted, and nobody can look up in the deny list, is refused."""
    put(tmp_path / "revoked.txt", b"12")
    callers = Callers(Identity.from_folder(folder, revoked=tmp_path / "revoked.txt"))
    properties = {"x509_pem_cert": [b"?"], "peer_spiffe_id": [ORDERS.encode()]}
    context: Any = SimpleNamespace(auth_context=lambda: properties)
    assert callers.find(context).reason == UNREADABLE


async def _used(address: str, serial: str) -> None:
    """Wait until the server shows a certificate."""

    def seen() -> str:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        host, port = address.split(":")
        with socket.create_connection((host, int(port))) as raw, context.wrap_socket(raw) as tls:
            der = tls.getpeercert(binary_form=True)
            assert der
            return Leaf(ssl.DER_cert_to_PEM_cert(der).encode(), b"", b"").serial

    began = time.monotonic()
    while await asyncio.to_thread(seen) != serial:
        assert time.monotonic() - began < 5
        await asyncio.sleep(0.05)


async def test_renewal(driver: Driver, folder: Path) -> None:
    """A new leaf, intermediate or root holds from the next handshake, and open channels live on.

    Old and new roots together trust both; who has a certificate of the old one is out with it.
    """
    identity = Identity.from_folder(folder)
    mesh = accord.Mesh("payments", identity=identity)
    new_root = Authority()
    new_ca = new_root.intermediate()
    old = CA.issue(ORDERS).trusting(new_root)
    new = new_ca.issue(ORDERS).trusting(ROOT)
    async with served(driver, mesh, identity) as address, client(address, old) as first:
        assert await answer(first) == ORDERS
        assert (await asked(address, new)).startswith("UNAVAILABLE")
        for leaf in (
            CA.issue(PAYMENTS),
            ROOT.intermediate().issue(PAYMENTS),
            CA.issue(PAYMENTS).trusting(new_root),
            new_ca.issue(PAYMENTS).trusting(ROOT),
            new_ca.issue(PAYMENTS),
        ):
            leaf.write(folder)
            await _used(address, leaf.serial)
            assert (await asked(address, old) == ORDERS) is (ROOT.roots in leaf.roots)
            assert (await asked(address, new) == ORDERS) is (new_root.roots in leaf.roots)
            assert await answer(first) == ORDERS
    assert identity.problem is None


async def test_a_session_does_not_outlive_its_certificate(driver: Driver, folder: Path) -> None:
    """TLS lets a client resume a session although its certificate has ended.

    Its calls are refused when that is longer ago than a connection lives.
    """
    now = time.time()
    identity = Identity(*(folder / name for name in ("tls.crt", "tls.key", "ca.crt")),
                        clock=lambda: now)  # fmt: skip
    mesh = accord.Mesh("payments", identity=identity)
    cache: Any = ssl_session_cache_lru(1)  # type: ignore[no-untyped-call]
    leaf = CA.issue(ORDERS, ends=5)
    age = (("grpc.max_connection_age_ms", 60_000),)
    ended = leaf.not_after
    async with served(driver, mesh, identity, options=age) as address:
        resuming = ("grpc.ssl_session_cache", cache)
        address = address.replace("127.0.0.1", "localhost")  # which TLS has a session for
        async with client(address, leaf, resuming) as stub:
            assert await answer(stub) == ORDERS
        # TLS asks for the time in whole seconds, of a clock that is some milliseconds behind.
        await eventually(lambda: time.time() > ended + 1)
        assert (await asked(address, leaf)).startswith("UNAVAILABLE")
        async with client(address, leaf, resuming) as stub:
            for later, wanted in ((60.0, ORDERS), (70.0, "PERMISSION_DENIED EXPIRED")):
                now = ended + later
                assert await answer(stub) == wanted


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
@pytest.mark.parametrize("version", ["TLSv1_1", "TLSv1_2", "TLSv1_3"])
async def test_versions_of_tls(driver: Driver, folder: Path, version: str) -> None:
    """A server of gRPC takes TLS 1.2 and 1.3, and nothing older."""
    identity = Identity.from_folder(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    context.set_alpn_protocols(["h2"])

    def shake(port: int) -> str | None:
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
        with socket.create_connection(("127.0.0.1", port)) as raw:
            try:
                with context.wrap_socket(raw) as tls:
                    return tls.version()
            except ssl.SSLError:
                return None

    async with served(driver, accord.Mesh("payments", identity=identity), identity) as address:
        found = await asyncio.to_thread(shake, int(address.rpartition(":")[2]))
    assert found == (None if version == "TLSv1_1" else version.replace("_", "."))
