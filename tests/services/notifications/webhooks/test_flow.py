"""From an order's event to a subscriber: over a broker, over a death, and from the record."""

import asyncio
import time
from pathlib import Path

import grpc
import pytest
from aiohttp import web

import accord
from accord.errors import ServiceError
from accord.ops.v1 import operation_pb2
from accord.ops.v1.operation_pb2_grpc import OperationServiceStub
from accord_runtime.grpc.ids import uuid7
from accord_runtime.grpc.types import timestamp
from accord_runtime.service import Runtime
from accord_runtime.settings import Settings
from services import topology
from services.notifications.servicer import SERVICE
from services.notifications.webhooks import replay, steps
from shop.customers.v1.customers_pb2 import Customer
from shop.notifications.v1 import webhooks_pb2 as pb
from shop.notifications.v1.webhooks_pb2_grpc import WebhookServiceStub
from shop.orders.v1 import events_pb2
from tests.services.notifications.mailbox import Mailbox
from tests.services.notifications.serving import channel_to, serving
from tests.services.notifications.webhooks.bench import CONFIRMED, bench, confirmed
from tests.services.notifications.webhooks.receiver import OUTBOUND, Receiver, Request, says
from tests.support.ports import free_offset, free_port
from tests.support.process import ServiceProcess
from tests.support.shop import running_shop
from tests.support.wait import until


async def create(stub: WebhookServiceStub, url: str, condition: str = "") -> str:
    request = pb.CreateWebhookRequest(url=url, event_types=[CONFIRMED], condition=condition)
    created = await stub.CreateWebhook(request, metadata=accord.idempotency_key(uuid7()))
    return created.webhook.webhook_id


async def test_over_the_broker(
    orders: Runtime,
    customers: Runtime,
    ada: Customer,
    nats_url: str,
    mailbox: Mailbox,
    customers_port: int,
    tmp_path: Path,
    receiver: Receiver,
) -> None:
    """One event becomes a mail to the customer and a delivery to the subscriber."""
    targets = f"customers=127.0.0.1:{customers_port},orders=127.0.0.1:{free_port()}"
    where = {"nats_url": nats_url, "smtp": mailbox.address, "targets": targets}
    async with (
        serving(SERVICE, tmp_path, **OUTBOUND, **where) as runtime,
        channel_to(runtime) as channel,
    ):
        await create(WebhookServiceStub(channel), receiver.url)
        event = confirmed()
        event.customer_id = ada.customer_id
        await orders.database.write(lambda tx: orders.outbox.append(tx, event, sequence=1))
        await until(lambda: receiver.requests, "the delivery")
        await until(lambda: mailbox.mails, "the mail")
    assert receiver.requests[0].told == (event.order_id, 1)
    assert mailbox.recipients == [ada.email]


async def test_kill(tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed while it sends sends it again under its id; the order is kept."""
    monkeypatch.setattr(steps, "DELAYS", (0.02,) * len(steps.DELAYS))
    order_id = uuid7()
    async with bench(tmp_path) as before:
        receiver.answer = says(500)
        _, secret = await before.create(receiver.url)
        for sequence in (1, 2, 3):
            await before.happens(events_pb2.OrderPaid(order_id=order_id), sequence)
        await until(lambda: receiver.requests, "a first attempt")
    receiver.requests.clear()
    go = asyncio.Event()

    async def wait(request: Request) -> web.StreamResponse:
        await go.wait()
        return web.Response()

    receiver.answer = wait
    monkeypatch.setenv("OUTBOUND_NETWORKS", "127.0.0.0/8")
    monkeypatch.setenv("OUTBOUND_HTTP", "1")
    offset = free_offset()
    settings = Settings(
        "notifications", topology.addresses(offset), home=tmp_path, port_offset=offset
    )
    process = ServiceProcess(settings, tmp_path / "log")
    await asyncio.to_thread(process.start)
    try:
        await until(lambda: receiver.requests, "an attempt of the process")
        process.kill()
        go.set()
        await asyncio.to_thread(process.start)
        await until(lambda: receiver.requests[-1].told == (order_id, 3), "the last one", seconds=60)
    finally:
        process.kill()
    told = [request.told[1] for request in receiver.requests]
    assert told == [1, 1, 2, 3]
    assert receiver.requests[0].id == receiver.requests[1].id
    assert len({request.id for request in receiver.requests}) == 3
    assert [request.verify(secret) for request in receiver.requests]
    assert secret not in (tmp_path / "log").read_text()


async def test_replay(tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """What happened in a range of time is sent again from the record, under the same ids."""
    monkeypatch.setattr(replay, "BATCH", 3)
    async with running_shop(tmp_path, "orders", "notifications", **OUTBOUND) as shop:
        orders = shop.runtimes["orders"]
        stub = WebhookServiceStub(shop.channel("notifications"))

        async def append(cents: int) -> str:
            event = confirmed(cents=cents)
            await orders.database.write(lambda tx: orders.outbox.append(tx, event, sequence=1))
            return event.order_id

        early = [await append(1)]
        await asyncio.sleep(0.01)
        since = time.time()
        within = [await append(cents) for cents in (1, 2, 1, 1, 1)]
        until_ = time.time()
        await asyncio.sleep(0.01)
        late = [await append(1)]
        webhook_id = await create(stub, receiver.url, "event.total.minor_units == 1")

        async def replayed() -> pb.ReplaySummary:
            request = pb.ReplayWebhookRequest(
                webhook_id=webhook_id, since=timestamp(since), until=timestamp(until_)
            )
            key = accord.idempotency_key(uuid7())
            operation = (await stub.ReplayWebhook(request, metadata=key)).operation
            watch = operation_pb2.WatchOperationRequest(operation_id=operation.operation_id)
            operations = OperationServiceStub(shop.channel("notifications"))
            (*_, last) = [each async for each in operations.WatchOperation(watch)]
            summary = pb.ReplaySummary()
            assert last.operation.response.Unpack(summary), last
            return summary

        assert await replayed() == pb.ReplaySummary(events=5, deliveries=4)
        wanted = [order_id for order_id in within if order_id != within[1]]

        def told() -> list[str]:
            return [request.told[0] for request in receiver.requests]

        await until(lambda: len(told()) >= 4, "the deliveries")
        await replayed()
        await until(lambda: len(told()) >= 8, "the deliveries again")
        assert sorted(told()) == sorted(wanted * 2)
        assert len({request.id for request in receiver.requests}) == 4
        assert not {*early, *late} & set(told())

        for bounds, field in (((2.0, 1.0), "until"), ((1.0, time.time() + 60), "until")):
            request = pb.ReplayWebhookRequest(
                webhook_id=webhook_id, since=timestamp(bounds[0]), until=timestamp(bounds[1])
            )
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await stub.ReplayWebhook(request, metadata=accord.idempotency_key(uuid7()))
            assert [each.field for each in ServiceError.from_rpc(raised.value).violations] == [
                field
            ]
