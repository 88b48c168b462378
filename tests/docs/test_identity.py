"""`docs/identity.md`: its five lines, and its tables beside the code."""

from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import accord
from accord import mesh
from accord._files import INTERVAL
from accord.identity import Identity
from accord.identity.bundle import SKEW
from accord.identity.identity import LAYOUTS
from accord.server import callers
from shop.payments.v1.payments_pb2_grpc import PaymentServiceStub
from tests.accord.identity.authority import Authority
from tests.accord.identity.kit import credentials
from tests.docs.pages import ROOT, blocks

PAGE = (ROOT / "docs" / "identity.md").read_text()


def _health(channel: grpc.aio.Channel) -> Any:
    return health_pb2_grpc.HealthStub(channel)


async def test_five_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They make a server that takes callers with certificates, and no others."""
    monkeypatch.chdir(tmp_path)
    authority = Authority()
    authority.issue("spiffe://shop.internal/orders").write(tmp_path / "certs" / "orders")
    names: dict[str, Any] = {
        "accord": accord,
        "Identity": Identity,
        "PaymentServiceStub": PaymentServiceStub,
    }
    (block,) = blocks(PAGE, "python")
    block = block.replace("127.0.0.1:9051", "127.0.0.1:0")
    exec(block.replace("server.add_secure", "port = server.add_secure"), names)
    server = names["server"]
    await server.start()
    shown = credentials(authority.issue("spiffe://shop.internal/edge"))
    request = health_pb2.HealthCheckRequest()
    async with grpc.aio.secure_channel(f"localhost:{names['port']}", shown) as channel:
        answer = await _health(channel).Check(request)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    async with grpc.aio.insecure_channel(f"localhost:{names['port']}") as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await _health(channel).Check(request)
    await server.stop(None)
    await names["mesh"].close()


def test_what_it_says_is_so() -> None:
    """Names of files, reasons and times are those of the code."""
    for name in (name for layout in LAYOUTS for name in layout):
        assert f"`{name}`" in PAGE
    for reason in (callers.WRONG_TRUST_DOMAIN, callers.REVOKED, callers.EXPIRED):
        assert f"`{reason}`" in PAGE
    assert f"up to {SKEW:.0f} s" in PAGE
    assert (INTERVAL, "every half second" in PAGE) == (0.5, True)
    assert ("grpc.max_connection_age_ms", 30 * 60_000) in mesh._SERVER_OPTIONS
    assert "a connection lives 30 minutes and a tenth" in PAGE
