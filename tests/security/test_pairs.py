"""Who may call what: every identity and every RPC, by real certificates, against the contracts.

Both lists are made, from descriptors and topology: a new RPC or a new service is covered by itself.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import pytest
from google.protobuf.message_factory import GetMessageClass

import accord
from accord.identity import Identity
from services import topology
from shopctl.certs import spiffe_id
from tests.security.descriptors import RPCS, Rpc
from tests.support.bad_certificates import Bad, bad_certificates

Code = grpc.StatusCode
Answer = tuple[Code, str]

OPERATORS: Final = {spiffe_id("console"), spiffe_id("operator")}
NAMES: Final = (*topology.SERVICES, "mailer", "edge", "console", "operator", "stranger")
"""Who has a certificate of the shop; no contract knows the stranger."""

HANDSHAKE: Final = ("expired", "future", "wrong-ca", "self-signed", "no-intermediate")
"""Whose connections end before there is a call."""

OK: Final = (Code.OK, "")
NOT_ALLOWED: Final = (Code.PERMISSION_DENIED, "NOT_ALLOWED")
NO_IDENTITY: Final = (Code.UNAUTHENTICATED, "NO_IDENTITY")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Bad:
    found = bad_certificates(tmp_path_factory.mktemp("pairs"), "orders")
    found.authority.prepare([*NAMES, "pairs"])
    return found


def _handlers(served: list[Rpc]) -> list[Any]:
    """Handlers that answer one empty message, whatever the shape of the RPC."""
    services: dict[str, dict[str, Any]] = {}
    for rpc in served:
        request, response = map(GetMessageClass, (rpc.method.input_type, rpc.method.output_type))
        sides = [
            "stream" if streams else "unary"
            for streams in (rpc.method.client_streaming, rpc.method.server_streaming)
        ]
        make: Callable[..., Any] = getattr(grpc, f"{'_'.join(sides)}_rpc_method_handler")

        async def one(request: Any, context: Any, answer: type = response) -> Any:
            return answer()

        async def many(request: Any, context: Any, answer: type = response) -> AsyncIterator[Any]:
            yield answer()

        behaviour = many if rpc.method.server_streaming else one
        found = services.setdefault(rpc.method.containing_service.full_name, {})
        found[rpc.method.name] = make(behaviour, request.FromString, response.SerializeToString)
    return [grpc.method_handlers_generic_handler(*service) for service in services.items()]


@asynccontextmanager
async def _serving(certificates: Bad) -> AsyncIterator[str]:
    folder = certificates.authority.folder
    identity = Identity.from_folder(folder / "pairs", revoked=folder / "revoked.txt")
    mesh = accord.Mesh("pairs", identity=identity, idempotency="handler", authorize=True)
    server = mesh.server(handlers=_handlers(RPCS))
    port = server.add_secure_port("127.0.0.1:0", identity.server_credentials())
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)
        identity.close()


def _credentials(roots: Path, folder: Path | None) -> grpc.ChannelCredentials:
    """Those of who has the certificate of a folder."""
    shown = [(folder / name).read_bytes() for name in ("tls.key", "tls.crt")] if folder else []
    return grpc.ssl_channel_credentials(roots.read_bytes(), *shown)


async def _answers(address: str, credentials: grpc.ChannelCredentials) -> dict[str, Answer]:
    """What each RPC answers, over one connection."""

    async def answer(channel: grpc.aio.Channel, rpc: Rpc) -> Answer:
        call: Any = channel.unary_unary(rpc.path, bytes, bytes)
        try:
            await call(b"", timeout=20, metadata=(("idempotency-key", rpc.path),))
        except grpc.aio.AioRpcError as error:
            found = accord.failure_of(error)
            assert found is not None
            return found.code, found.reason
        return OK

    async with grpc.aio.secure_channel(address, credentials) as channel:
        found = await asyncio.gather(*(answer(channel, rpc) for rpc in RPCS))
    return {rpc.path: each for rpc, each in zip(RPCS, found, strict=True)}


def _expected(rpc: Rpc, identity: str | None) -> Answer:
    """What the contract says; None: whoever calls has no identity."""
    if rpc.path.startswith("/grpc.health."):
        return OK
    if identity is None:
        return NO_IDENTITY
    allow = OPERATORS if rpc.path.startswith("/grpc.") else rpc.allow
    return OK if allow & {"*", identity} else NOT_ALLOWED


async def test_every_identity_at_every_rpc(certificates: Bad) -> None:
    """Each identity of the shop may call what the contract says, and nothing else."""
    folder = certificates.authority.folder
    async with _serving(certificates) as address:
        for name in NAMES:
            found = await _answers(
                address, _credentials(folder / "pairs" / "ca.crt", folder / name)
            )
            assert found == {rpc.path: _expected(rpc, spiffe_id(name)) for rpc in RPCS}, name


async def test_certificates_without_one_identity(certificates: Bad) -> None:
    """Two SPIFFE ids, or DNS names alone, are no identity: nobody knows who calls."""
    roots = certificates.authority.folder / "pairs" / "ca.crt"
    async with _serving(certificates) as address:
        for kind in ("two-ids", "dns-only"):
            found = await _answers(address, _credentials(roots, certificates.folders[kind]))
            assert found == {rpc.path: _expected(rpc, None) for rpc in RPCS}, kind


@pytest.mark.parametrize("kind", ["wrong-trust-domain", "revoked"])
async def test_identities_that_are_not_accepted(certificates: Bad, kind: str) -> None:
    """An id of another trust domain, and a revoked certificate, may call nothing at all."""
    roots = certificates.authority.folder / "pairs" / "ca.crt"
    async with _serving(certificates) as address:
        found = await _answers(address, _credentials(roots, certificates.folders[kind]))
    reason = {"wrong-trust-domain": "WRONG_TRUST_DOMAIN", "revoked": "REVOKED"}[kind]
    assert set(found.values()) == {(Code.PERMISSION_DENIED, reason)}


@pytest.mark.parametrize("kind", [None, *HANDSHAKE])
async def test_connections_that_are_refused(certificates: Bad, kind: str | None) -> None:
    """Without a certificate, or with one that is not valid here and now, there is no connection."""
    roots = certificates.authority.folder / "pairs" / "ca.crt"
    async with _serving(certificates) as address:
        shown = certificates.folders[kind] if kind else None
        found = await _answers(address, _credentials(roots, shown))
        assert {code for code, _ in found.values()} == {Code.UNAVAILABLE}


def test_the_list_is_whole() -> None:
    """What is called are all contracts that there are, and each of the shop's names its callers."""
    packages = {rpc.path.split("/")[1].rpartition(".")[0] for rpc in RPCS}
    ours = {path.parent for path in Path("protos").glob("*/*/v1/*.proto")}
    wanted = {".".join(path.parts[1:]) for path in ours} - {"shop.common.v1"}
    assert wanted <= packages
    assert not [rpc.path for rpc in RPCS if not rpc.allow and not rpc.path.startswith("/grpc.")]
