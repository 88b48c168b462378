"""The RPCs of `shop.notifications.v1.NotificationService`, and how the service is put together."""

import time
from typing import Final

from google.protobuf.message import Message

from accord.errors import InvalidArgument, NotFound, Resource
from accord_runtime.database import Database, Tx
from accord_runtime.events.audit import reading
from accord_runtime.events.inbox import EventHandler, Received
from accord_runtime.grpc import owner
from accord_runtime.grpc.page_tokens import Page
from accord_runtime.grpc.types import Context, unix_seconds
from accord_runtime.service import Runtime, Service
from accord_runtime.work.table import Effect
from services.notifications import store
from services.notifications.steps import MailSteps
from services.notifications.webhooks import store as webhook_store
from services.notifications.webhooks.servicer import Webhooks
from shop.notifications.v1 import notifications_pb2 as pb
from shop.notifications.v1.notifications_pb2_grpc import (
    NotificationServiceServicer,
    add_NotificationServiceServicer_to_server,
)
from shop.notifications.v1.webhooks_pb2_grpc import add_WebhookServiceServicer_to_server
from shop.orders.v1.orders_pb2 import ReadEventsRequest
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub

AHEAD: Final = 60.0
"""Seconds by which the clock of a mailer may be ahead."""


class Notifications(NotificationServiceServicer):
    """Answers from the service's own database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def GetNotification(
        self, request: pb.GetNotificationRequest, context: Context
    ) -> pb.GetNotificationResponse:
        found = await self._database.look_up(lambda tx: store.find(tx, request.notification_id))
        if found is None or owner.only() is not None:  # whose it is, only orders know
            raise NotFound(resource=Resource("notification", request.notification_id))
        return pb.GetNotificationResponse(notification=found)

    async def RecordSent(
        self, request: pb.RecordSentRequest, context: Context
    ) -> pb.RecordSentResponse:
        at = unix_seconds(request.sent_at, "sent_at")
        if at > time.time() + AHEAD:
            raise InvalidArgument(("sent_at", "must not lie in the future"))

        def record(tx: Tx) -> pb.Notification | None:
            store.mark_sent(tx, request.notification_id, at)
            return store.find(tx, request.notification_id)

        found = await self._database.write(record)
        if found is None:
            raise NotFound(resource=Resource("notification", request.notification_id))
        return pb.RecordSentResponse(notification=found)

    async def ListNotifications(
        self, request: pb.ListNotificationsRequest, context: Context
    ) -> pb.ListNotificationsResponse:
        if owner.only() is not None:
            return pb.ListNotificationsResponse()
        asked = Page(request, order_id=request.order_id)
        page, token = await self._database.read(lambda tx: store.page(tx, asked, request.order_id))
        return pb.ListNotificationsResponse(notifications=page, next_page_token=token)


def build(runtime: Runtime) -> None:
    """Put the servicers on the server and receive the events of the orders."""
    webhooks = Webhooks(runtime)
    handlers = MailSteps(runtime).handlers
    for kind, handler in webhooks.steps.handlers.items():
        handlers[kind] = _both(handler, handlers[kind]) if kind in handlers else handler
    orders = OrderServiceStub(runtime.mesh.channel("orders"))
    runtime.subscribe(
        "ORDERS",
        handlers,
        record=reading(orders.ReadEvents, ReadEventsRequest),
        at_once=True,
    )
    add_NotificationServiceServicer_to_server(Notifications(runtime.database), runtime.server)
    add_WebhookServiceServicer_to_server(webhooks, runtime.server)


def _both(first: EventHandler, second: EventHandler) -> EventHandler:
    """A handler that does what both do; their effects commit together."""

    async def handle(event: Received[Message]) -> Effect:
        effects = [await first(event), await second(event)]

        def effect(tx: Tx) -> None:
            for each in filter(None, effects):
                each(tx)

        return effect

    return handle


SERVICE = Service(
    name="notifications",
    migrations=(*store.MIGRATIONS, *webhook_store.MIGRATIONS),
    build=build,
    contracts=(
        "shop.notifications.v1.NotificationService",
        "shop.notifications.v1.WebhookService",
    ),
)
