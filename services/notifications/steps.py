"""The steps from an order's event to a mail."""

import dataclasses
import json
import time
from collections.abc import Callable
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from accord.errors import ServiceError
from accord_runtime.database import Tx
from accord_runtime.events.inbox import EventHandler, Received
from accord_runtime.grpc.ids import derived, made_at
from accord_runtime.grpc.types import timestamp
from accord_runtime.service import Runtime
from accord_runtime.work.executor import Permanent, Queue
from accord_runtime.work.table import Effect, Work
from services.notifications import domain, store
from services.notifications.domain import News
from services.notifications.mail import MailServer, send
from services.notifications.queue import EMAIL, PATIENCE, SENDING, URGENT
from shop.customers.v1.customers_pb2 import Customer, GetCustomerRequest
from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub
from shop.notifications.v1.commands_pb2 import SendMail
from shop.notifications.v1.notifications_pb2 import Notification
from shop.orders.v1 import events_pb2

ADDRESS: Final = "address"
"""Queue of news for which the customer is still to be looked up."""
MAIL: Final = "mail"
"""Queue of notifications to be sent, by id."""

_HOPELESS: Final = ("NOT_FOUND", "INVALID_ARGUMENT")
"""Reasons for which a customer cannot be looked up, now or later."""


class MailSteps:
    """Tells customers how their orders ended."""

    def __init__(self, runtime: Runtime) -> None:
        self._database = runtime.database
        self._executor = runtime.executor
        self._customers = CustomerServiceStub(runtime.mesh.channel("customers"))
        self._mail_server = MailServer.of(runtime.settings.mail_server)
        # Without sharing it sends what is left of a time with it.
        self._email, self._shares = runtime.sender(EMAIL), runtime.settings.shared_mail
        self._executor.register(Queue(ADDRESS, self.address, delays=PATIENCE))
        self._executor.register(Queue(MAIL, self.send, delays=PATIENCE, concurrency=SENDING))
        self.handlers: dict[type[Message], EventHandler] = {
            events_pb2.OrderConfirmed: self._take(domain.confirmed),
            events_pb2.OrderRejected: self._take(domain.rejected),
            events_pb2.OrderFailed: self._take(domain.failed),
            events_pb2.OrderCancelled: self._take(domain.cancelled),
        }

    def _take(self, tell: Callable[[Any], News]) -> EventHandler:
        """First step: no service is needed, so the event is never left waiting."""

        async def handle(event: Received[Any]) -> Effect:
            news = dataclasses.replace(tell(event.payload), event_id=event.event_id)
            payload = json.dumps(dataclasses.asdict(news)).encode()
            return lambda tx: self._executor.enqueue(tx, ADDRESS, news.order_id, payload)

        return handle

    async def address(self, work: Work) -> Effect:
        """Second step: look the customer up and write the mail down.

        Its id, which becomes the Message-ID, follows from the outcome, and its date from the event:
        a mail server that has the mail already recognises it, even if databases were restored.
        """
        news = News(**json.loads(work.payload))
        customer = await self._customer(news.customer_id)
        notification = Notification(
            notification_id=derived(news.order_id, f"mail {news.outcome}"),
            order_id=news.order_id,
            recipient=customer.email,
            subject=news.subject,
            body=news.body(customer.name),
            created_at=timestamp(made_at(news.event_id or work.id)),
        )

        def effect(tx: Tx) -> None:
            if not store.insert(tx, notification, news.outcome):
                return
            if self._shares:
                level = None if news.outcome == "CONFIRMED" else URGENT
                self._email.send(tx, _command(notification), level)
            else:
                self._executor.enqueue(tx, MAIL, notification.notification_id)

        return effect

    async def send(self, work: Work) -> Effect | None:
        """Third step: send the mail.

        When the process dies between the mail server's yes and the commit, the mail is sent again,
        under the same Message-ID.
        """
        notification = await self._database.look_up(lambda tx: store.find(tx, work.key))
        if notification is None:
            raise Permanent(f"there is no notification {work.key}")
        if notification.HasField("sent_at"):
            return None
        await send(self._mail_server, notification)
        now = time.time()
        return lambda tx: store.mark_sent(tx, notification.notification_id, now)

    async def _customer(self, customer_id: str) -> Customer:
        try:
            response = await self._customers.GetCustomer(
                GetCustomerRequest(customer_id=customer_id)
            )
        except grpc.RpcError as error:
            failure = ServiceError.from_rpc(error)
            if failure.reason in _HOPELESS:
                raise Permanent(f"customer {customer_id}: {failure.message}") from error
            raise
        return response.customer


def _command(notification: Notification) -> SendMail:
    return SendMail(
        notification_id=notification.notification_id,
        recipient=notification.recipient,
        subject=notification.subject,
        body=notification.body,
        created_at=notification.created_at,
    )
