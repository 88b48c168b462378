"""The RPCs of `shop.notifications.v1.NotificationService`."""

from typing import Any

from accord.errors import NotFound
from accord_runtime.database import Database
from accord_runtime.grpc.page_tokens import decode_token, encode_token, page_size
from services.notifications import store
from shop.notifications.v1 import notifications_pb2 as pb
from shop.notifications.v1.notifications_pb2_grpc import NotificationServiceServicer


class Notifications(NotificationServiceServicer):
    """Answers from the service's own database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def GetNotification(
        self, request: pb.GetNotificationRequest, context: Any
    ) -> pb.GetNotificationResponse:
        found = await self._database.read(lambda tx: store.find(tx, request.notification_id))
        if found is None:
            raise NotFound("notification", request.notification_id)
        return pb.GetNotificationResponse(notification=found)

    async def ListNotifications(
        self, request: pb.ListNotificationsRequest, context: Any
    ) -> pb.ListNotificationsResponse:
        filters = {"order_id": request.order_id}
        last = decode_token(filters, request.page_token)
        size = page_size(request.page_size)
        # One more than asked for shows whether there is a next page.
        found = await self._database.read(
            lambda tx: store.page(tx, request.order_id, last, size + 1)
        )
        response = pb.ListNotificationsResponse(notifications=found[:size])
        if len(found) > size:
            response.next_page_token = encode_token(filters, found[size - 1].notification_id)
        return response
