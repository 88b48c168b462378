"""The RPCs of `shop.notifications.v1.NotificationService`."""

from accord.errors import NotFound, Resource
from accord_runtime.database import Database, Tx
from accord_runtime.grpc.page_tokens import Page
from accord_runtime.grpc.types import Context
from accord_runtime.service import Runtime, Service
from services.notifications import store
from services.notifications.steps import MailSteps
from shop.notifications.v1 import notifications_pb2 as pb
from shop.notifications.v1.notifications_pb2_grpc import (
    NotificationServiceServicer,
    add_NotificationServiceServicer_to_server,
)


class Notifications(NotificationServiceServicer):
    """Answers from the service's own database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def GetNotification(
        self, request: pb.GetNotificationRequest, context: Context
    ) -> pb.GetNotificationResponse:
        found = await self._database.read(lambda tx: store.find(tx, request.notification_id))
        if found is None:
            raise NotFound(resource=Resource("notification", request.notification_id))
        return pb.GetNotificationResponse(notification=found)

    async def RecordSent(
        self, request: pb.RecordSentRequest, context: Context
    ) -> pb.RecordSentResponse:
        at = request.sent_at.ToMicroseconds() / 1e6

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
        asked = Page(request, order_id=request.order_id)
        page, token = await self._database.read(lambda tx: store.page(tx, asked, request.order_id))
        return pb.ListNotificationsResponse(notifications=page, next_page_token=token)


def build(runtime: Runtime) -> None:
    """Put the servicer on the server and receive the events of the orders."""
    MailSteps(runtime)
    add_NotificationServiceServicer_to_server(Notifications(runtime.database), runtime.server)


SERVICE = Service(
    name="notifications",
    migrations=store.MIGRATIONS,
    build=build,
    contracts=("shop.notifications.v1.NotificationService",),
)
