"""The broker knows services by their certificates, and gives each what is its own."""

import ssl
from pathlib import Path

import grpc
import nats
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from nats.aio.client import Client

from accord_runtime.admin import policy_store
from accord_runtime.process import running
from accord_runtime.settings import Settings
from services import topology
from services.customers.servicer import SERVICE
from shopctl.identity import _watched, credentials
from shopctl.supervisor import broker_users
from tests.security.shop import SecureShop
from tests.support.ports import free_port
from tests.support.shop import running_shop
from tests.support.wait import until


class Peer:
    """A client of the broker by somebody's certificate, and what it is refused."""

    def __init__(self, shop: SecureShop, name: str) -> None:
        self.refused: list[str] = []
        self._folder = shop.home / "certs" / name
        self._address = topology.address(topology.BROKER, shop.mesh.offset)
        self._name = name

    async def connect(self, *, certificate: bool = True) -> Client:
        context = ssl.create_default_context(cafile=self._folder / "ca.crt")
        if certificate:
            context.load_cert_chain(self._folder / "tls.crt", self._folder / "tls.key")
        return await nats.connect(
            f"tls://{self._address}",
            tls=context,
            tls_handshake_first=True,
            tls_hostname="broker",
            inbox_prefix=f"_INBOX_{self._name}".encode(),
            error_cb=self._note,
            allow_reconnect=False,
            connect_timeout=10,
        )

    async def _note(self, error: Exception) -> None:
        self.refused.append(str(error))


async def test_who_takes_whose_events_is_what_services_say(tmp_path: Path) -> None:
    """The broker's permissions follow a table: it has each subscription and queue, and no more."""
    async with running_shop(tmp_path, nats_url=f"nats://127.0.0.1:{free_port()}") as shop:
        work = {name: [each for each, _ in r.background] for name, r in shop.runtimes.items()}
    sources = {
        name: tuple(sorted(each.split()[-1].lower() for each in mine if "consumer of" in each))
        for name, mine in work.items()
    }
    assert {name: found for name, found in sources.items() if found} == topology.SOURCES
    senders = {
        each.split()[-1]: name
        for name, mine in work.items()
        for each in mine
        if each.startswith("sender")
    }
    assert broker_users.BUCKET == policy_store.BUCKET
    assert senders == {queue: sender for queue, (sender, _) in topology.QUEUES.items()}


async def test_each_has_its_own_subjects_streams_and_inbox(shop: SecureShop) -> None:
    """Neither events of others are published or heard, nor their answers, streams or policy."""
    shop.order()
    peer = Peer(shop, "payments")
    client = await peer.connect()
    try:
        jetstream = client.jetstream(timeout=5)
        assert (await jetstream.stream_info("PAYMENTS")).config.name == "PAYMENTS"
        assert (await jetstream.stream_info("ORDERS")).state.messages
        for subject in (
            "orders.created.1",
            "queue.intake.normal",
            "$KV.live-policy.shop.orders.v1.OrderService/GetOrder",
            "$JS.API.STREAM.DELETE.PAYMENTS",
            "$JS.API.STREAM.PURGE.ORDERS",
            "$JS.API.CONSUMER.DELETE.ORDERS.shipping",
            "$JS.API.STREAM.MSG.GET.CUSTOMERS",
            "$JS.API.STREAM.UPDATE.ORDERS",
            "$JS.API.STREAM.UPDATE.PAYMENTS",
            "_INBOX_orders.x",
        ):
            await client.publish(subject, b"x")
        for subject in ("orders.>", "_INBOX.>", "_INBOX_orders.>", ">"):
            await client.subscribe(subject)
        await until(lambda: len(peer.refused) >= 14, "everything to be refused")
        assert len(peer.refused) == 14
    finally:
        await client.close()


async def test_nobody_is_let_in_without_a_certificate(shop: SecureShop) -> None:
    """Neither plaintext, nor TLS without a certificate, nor one that is none of the shop's."""
    address = topology.address(topology.BROKER, shop.mesh.offset)
    assert not (shop.home / "nats.token").exists()
    with pytest.raises((OSError, TimeoutError, nats.errors.Error)):
        await nats.connect(f"nats://{address}", allow_reconnect=False, connect_timeout=2)
    with pytest.raises((OSError, TimeoutError, nats.errors.Error)):
        await Peer(shop, "orders").connect(certificate=False)


async def test_who_is_revoked_is_out(shop: SecureShop) -> None:
    """Its connection ends, and the next is refused, until it has another certificate."""
    shop.say("certs", "issue", "auditor")
    peer = Peer(shop, "auditor")

    clients: list[Client] = []

    async def connects() -> bool:
        try:
            clients.append(await peer.connect())
        except (OSError, TimeoutError, nats.errors.Error):
            return False
        return True

    await until(connects, "the broker to know it")
    shop.say("certs", "revoke", "auditor")
    await until(lambda: clients[0].is_closed, "its connection to end")
    assert not await connects()


async def test_a_refusal_is_said_and_fails_readiness(shop: SecureShop, tmp_path: Path) -> None:
    """With somebody else's certificate a service says what it may not do, and is not ready."""
    settings = Settings(
        "customers",
        topology.addresses(shop.mesh.offset),
        home=tmp_path,
        listen=f"127.0.0.1:{free_port()}",
        identity=shop.home / "certs" / "sandbox",
    )
    operator = credentials(_watched(shop.home / "certs" / "operator"))
    async with (
        running(SERVICE, settings) as runtime,
        grpc.aio.secure_channel(settings.address, operator) as channel,
    ):
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            HealthCheckRequest.SerializeToString,
            HealthCheckResponse.FromString,
        )

        async def ready() -> bool:
            answer: HealthCheckResponse = await check(HealthCheckRequest(), timeout=5)
            return answer.status == HealthCheckResponse.SERVING

        assert await ready()
        await until(lambda: "customers" in runtime.broker.refusal, "the broker's refusal")

        async def refused() -> bool:
            return not await ready()

        await until(refused, "it to be not ready")
