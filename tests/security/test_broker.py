"""The broker knows services by their certificates, and gives each what is its own."""

import json
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
from tests.security.peer import Peer
from tests.security.shop import SecureShop
from tests.support.ports import free_port
from tests.support.shop import running_shop
from tests.support.wait import until, until_sync


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
        state = (await jetstream.stream_info("ORDERS")).state
        assert state.messages
        assert (await jetstream.get_msg("ORDERS", state.last_seq)).seq == state.last_seq
        for subject in (
            "orders.created.1",
            "queue.intake.normal",
            "$KV.live-policy.shop.orders.v1.OrderService/GetOrder",
            "$KV.live-policy.accord.ops.v1.MeshService/GetState",
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
        await until(lambda: len(peer.refused) >= 15, "everything to be refused")
        assert len(peer.refused) == 15
    finally:
        await client.close()


def test_live_policy_is_each_services_own(shop: SecureShop) -> None:
    """A service keeps that of its own RPCs; being asked for another's leaves it ready.

    There is none of what processes are operated by: clearing that asks nobody for anything.
    """
    change = ("--reason", "a test", "--through")
    own, others = (
        f"shop.{n}.v1.{s}Service/Get{s}" for n, s in (("payments", "Payment"), ("orders", "Order"))
    )
    override = json.dumps({"policy": {"timeout": "4s"}})
    shop.say("policy", "set", own, override, *change, "payments")
    assert own in shop.say("policy", "get", own, "--service", "payments")
    shop.say("policy", "clear", own, *change, "payments")
    shop.say("policy", "clear", "accord.ops.v1.MeshService/GetState", *change, "payments")
    refused = shop.run("policy", "set", others, override, *change, "payments")
    assert "cannot be kept" in refused.stderr, refused
    until_sync(lambda: "the broker refuses" in str(shop.mesh.logged("payments")), "the refusal")
    assert shop.run("status").returncode == 0, shop.say("status")


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
