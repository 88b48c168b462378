"""The part of notifications that sends webhooks, told of events by a test instead of a broker."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import Message

import accord
from accord_runtime.events.inbox import Received
from accord_runtime.grpc.ids import uuid7
from accord_runtime.service import Runtime, Service
from services.notifications.servicer import SERVICE
from services.notifications.webhooks.servicer import Webhooks
from shop.common.v1.money_pb2 import Money
from shop.notifications.v1 import webhooks_pb2 as pb
from shop.notifications.v1.webhooks_pb2_grpc import (
    WebhookServiceStub,
    add_WebhookServiceServicer_to_server,
)
from shop.orders.v1 import events_pb2
from tests.services.notifications.serving import channel_to, serving
from tests.services.notifications.webhooks.receiver import OUTBOUND
from tests.support.clock import Clock
from tests.support.wait import until

CONFIRMED = "shop.orders.v1.OrderConfirmed"
PAID = "shop.orders.v1.OrderPaid"


@dataclass
class Bench:
    """The service, and its caller."""

    runtime: Runtime
    webhooks: Webhooks
    stub: WebhookServiceStub

    async def create(
        self, url: str, condition: str = "", types: tuple[str, ...] = (CONFIRMED, PAID)
    ) -> tuple[str, str]:
        """Register a webhook; returns its id and its secret."""
        request = pb.CreateWebhookRequest(url=url, event_types=types, condition=condition)
        answer = await self.stub.CreateWebhook(request, metadata=accord.idempotency_key(uuid7()))
        return answer.webhook.webhook_id, answer.secret

    async def update(self, webhook_id: str, **fields: object) -> pb.UpdateWebhookResponse:
        request = pb.UpdateWebhookRequest(webhook_id=webhook_id, **fields)  # type: ignore[arg-type]
        return await self.stub.UpdateWebhook(request, metadata=accord.idempotency_key(uuid7()))

    async def happens(self, payload: Message, sequence: int = 1) -> str:
        """An event of an order is received; returns its id."""
        event_id = uuid7()
        event = Received(event_id, payload.order_id, sequence, payload)  # type: ignore[attr-defined]
        effect = await self.webhooks.steps.take(event)
        if effect is not None:
            await self.runtime.database.write(effect)
        return event_id

    async def get(self, webhook_id: str) -> pb.Webhook:
        request = pb.GetWebhookRequest(webhook_id=webhook_id)
        return (await self.stub.GetWebhook(request)).webhook

    async def deliveries(self, webhook_id: str) -> list[pb.Delivery]:
        request = pb.ListDeliveriesRequest(webhook_id=webhook_id)
        return list((await self.stub.ListDeliveries(request)).deliveries)

    async def idle(self) -> None:
        """Returns when there is nothing left to send."""

        async def nothing() -> bool:
            return await self.runtime.database.read(lambda tx: tx.one("SELECT 1 FROM work")) is None

        await until(nothing, "all deliveries")


def confirmed(order_id: str = "", cents: int = 1999) -> events_pb2.OrderConfirmed:
    return events_pb2.OrderConfirmed(
        order_id=order_id or uuid7(),
        total=Money(minor_units=cents, currency_code="EUR"),
        tracking_number="TRACK1",
    )


@asynccontextmanager
async def bench(
    home: Path, *, database_url: str = "", clock: Clock | None = None
) -> AsyncIterator[Bench]:
    built: list[Webhooks] = []

    def build(runtime: Runtime) -> None:
        built.append(Webhooks(runtime, *([clock] if clock else [])))
        add_WebhookServiceServicer_to_server(built[0], runtime.server)

    service = Service(
        name="notifications",
        contracts=("shop.notifications.v1.WebhookService",),
        build=build,
        migrations=SERVICE.migrations,
    )
    async with (
        serving(service, home, database_url=database_url, **OUTBOUND) as runtime,
        channel_to(runtime) as channel,
    ):
        yield Bench(runtime, built[0], WebhookServiceStub(channel))
