"""From an order's event to a mail, with a real broker and a real mail server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import grpc
import nats
import pytest
from google.protobuf.message import Message

import accord
from accord_runtime.database import Row, Tx
from accord_runtime.grpc.ids import uuid7
from accord_runtime.service import Runtime
from services.customers.servicer import SERVICE as CUSTOMERS
from services.notifications.servicer import SERVICE
from shop.common.v1.money_pb2 import Money
from shop.customers.v1.customers_pb2 import Customer
from shop.notifications.v1 import notifications_pb2 as pb
from shop.notifications.v1.notifications_pb2_grpc import NotificationServiceStub
from shop.orders.v1 import events_pb2, orders_pb2
from tests.runtime.work.support import parked_items
from tests.services.notifications.mailbox import Mailbox
from tests.services.notifications.serving import channel_to, serving
from tests.support.ports import free_port
from tests.support.wait import until

T = TypeVar("T")


@asynccontextmanager
async def notifying(
    home: Path, nats_url: str, mailbox: Mailbox, customers_port: int
) -> AsyncIterator[Runtime]:
    # Nobody is where the record of the orders would be read.
    targets = f"customers=127.0.0.1:{customers_port},orders=127.0.0.1:{free_port()}"
    async with serving(
        SERVICE, home, nats_url=nats_url, smtp=mailbox.address, targets=targets
    ) as runtime:
        yield runtime


@pytest.fixture
async def runtime(
    tmp_path: Path, nats_url: str, mailbox: Mailbox, customers_port: int, impatient: None
) -> AsyncIterator[Runtime]:
    """The notifications service."""
    async with notifying(tmp_path, nats_url, mailbox, customers_port) as runtime:
        yield runtime


@pytest.fixture
async def stub(runtime: Runtime) -> AsyncIterator[NotificationServiceStub]:
    async with channel_to(runtime) as channel:
        yield NotificationServiceStub(channel)


def confirmed(customer: Customer, order_id: str = "") -> events_pb2.OrderConfirmed:
    return events_pb2.OrderConfirmed(
        order_id=order_id or uuid7(),
        customer_id=customer.customer_id,
        total=Money(minor_units=1999, currency_code="EUR"),
        tracking_number="TRACK1",
    )


async def publish(orders: Runtime, event: Message, sequence: int = 1) -> None:
    await orders.database.write(lambda tx: orders.outbox.append(tx, event, sequence=sequence))


async def listed(stub: NotificationServiceStub, order_id: str) -> list[pb.Notification]:
    response = await stub.ListNotifications(pb.ListNotificationsRequest(order_id=order_id))
    return list(response.notifications)


async def eventually(ask: Callable[[], Awaitable[T]]) -> T:
    """The first answer that is not empty."""
    async with asyncio.timeout(20):
        while True:
            if answer := await ask():
                return answer
            await asyncio.sleep(0.02)


async def sent(stub: NotificationServiceStub, order_id: str) -> pb.Notification:
    """The order's notification, once it is marked as sent."""

    async def marked() -> list[pb.Notification]:
        found = await listed(stub, order_id)
        return [one for one in found if one.state == pb.NOTIFICATION_STATE_SENT]

    return (await eventually(marked))[0]


async def work(runtime: Runtime) -> list[Row]:
    return await runtime.database.read(lambda tx: tx.all("SELECT queue, attempts FROM work"))


async def idle(runtime: Runtime) -> None:
    """Returns when there is no work left that could send a mail."""

    async def nothing() -> bool:
        return not await work(runtime)

    await eventually(nothing)


async def test_outcomes_become_mails(
    orders: Runtime,
    customers: Runtime,
    ada: Customer,
    stub: NotificationServiceStub,
    mailbox: Mailbox,
) -> None:
    """Each way in which an order can end is told to its customer, once."""
    who = ada.customer_id
    failure = orders_pb2.Failure(reason=orders_pb2.FAILURE_REASON_OUT_OF_STOCK)
    ids = [uuid7() for _ in range(5)]
    events: list[Message] = [
        confirmed(ada, ids[0]),
        events_pb2.OrderRejected(order_id=ids[1], customer_id=who, failure=failure),
        events_pb2.OrderFailed(order_id=ids[2], customer_id=who, failure=failure),
        events_pb2.OrderCancelled(order_id=ids[3], customer_id=who, failure=failure),
        # Not an outcome: nobody is told.
        events_pb2.OrderPlaced(order_id=ids[4], customer_id=who),
    ]
    for event in reversed(events):
        await publish(orders, event)

    notifications = [await sent(stub, order_id) for order_id in ids[:4]]

    assert mailbox.recipients == ["ada@example.com"] * 4
    by_id = {mail["Message-ID"]: mail for mail in mailbox.mails}
    for notification in notifications:
        mail = by_id[f"<{notification.notification_id}@shop.internal>"]
        assert mail["Subject"] == notification.subject
        assert mail.get_content().replace("\r\n", "\n") == notification.body
        assert notification.body.startswith("Hello Ada Lovelace,\n")
        assert notification.order_id in notification.body
    assert "Paid: 19.99 EUR\nTracking number: TRACK1\n" in notifications[0].body


async def test_mail_server_down(
    orders: Runtime,
    customers: Runtime,
    ada: Customer,
    runtime: Runtime,
    stub: NotificationServiceStub,
    mailbox: Mailbox,
) -> None:
    """Mails wait for a mail server that is away, and go out once when it is back."""
    mailbox.stop()
    events = [confirmed(ada) for _ in range(5)]
    for event in events:
        await publish(orders, event)

    async def all_tried() -> bool:
        tried = [row for row in await work(runtime) if row["queue"] == "mail" and row["attempts"]]
        return len(tried) == 5

    await eventually(all_tried)
    for event in events:
        (waiting,) = await listed(stub, event.order_id)
        assert waiting.state == pb.NOTIFICATION_STATE_QUEUED
        assert not waiting.HasField("sent_at")
    mailbox.start()

    for event in events:
        await sent(stub, event.order_id)
    await idle(runtime)
    assert len(mailbox.mails) == 5


async def test_customers_down(
    orders: Runtime,
    ada: Customer,
    runtime: Runtime,
    stub: NotificationServiceStub,
    mailbox: Mailbox,
    tmp_path: Path,
    customers_port: int,
) -> None:
    """News waits for the customers service, and is told when it is back."""
    event = confirmed(ada)
    await publish(orders, event)

    async def tried() -> bool:
        return any(row["attempts"] for row in await work(runtime))

    await eventually(tried)
    assert await listed(stub, event.order_id) == []

    async with serving(CUSTOMERS, tmp_path, listen=f"127.0.0.1:{customers_port}"):
        await sent(stub, event.order_id)
    assert len(mailbox.mails) == 1


async def test_events_that_come_twice(
    orders: Runtime,
    customers: Runtime,
    ada: Customer,
    runtime: Runtime,
    stub: NotificationServiceStub,
    mailbox: Mailbox,
    nats_url: str,
) -> None:
    """One mail for an outcome, whether the broker or the orders repeat it."""
    event, last = confirmed(ada), confirmed(ada)
    await publish(orders, event)
    await sent(stub, event.order_id)

    client = await nats.connect(nats_url)
    jetstream = client.jetstream()
    first = await jetstream.get_last_msg("ORDERS", f"orders.order.confirmed.{event.order_id}")
    headers = dict(first.headers or {})
    for attempt in range(3):
        headers["Nats-Msg-Id"] = f"again-{attempt}"
        assert first.subject is not None
        await jetstream.publish(first.subject, first.data or b"", headers=headers)
    await client.close()
    await publish(orders, event, sequence=2)
    await publish(orders, last)
    await sent(stub, last.order_id)
    await idle(runtime)

    assert len(mailbox.mails) == 2
    assert len(await listed(stub, event.order_id)) == 1


async def test_mail_server_says_later(
    orders: Runtime,
    customers: Runtime,
    ada: Customer,
    stub: NotificationServiceStub,
    mailbox: Mailbox,
) -> None:
    """A temporary refusal is tried again until it is taken."""
    mailbox.answers = ["451 try again later", "421 going down"]
    event = confirmed(ada)
    await publish(orders, event)

    await sent(stub, event.order_id)
    assert len(mailbox.mails) == 1


async def test_mail_server_says_never(
    orders: Runtime,
    customers: Runtime,
    ada: Customer,
    runtime: Runtime,
    stub: NotificationServiceStub,
    mailbox: Mailbox,
) -> None:
    """A mail that is refused for good waits for an operator, and later mails go out."""
    mailbox.answers = ["554 we do not want this"]
    unwanted, wanted = confirmed(ada), confirmed(ada)
    await publish(orders, unwanted)
    rows = await eventually(lambda: runtime.database.read(parked_items))
    await publish(orders, wanted)
    await sent(stub, wanted.order_id)

    (row,) = rows
    assert (row.queue, row.attempts) == ("mail", 1)
    assert "554" in row.last_error
    (notification,) = await listed(stub, unwanted.order_id)
    assert notification.state == pb.NOTIFICATION_STATE_QUEUED
    assert len(mailbox.mails) == 1


async def test_unknown_customer(
    orders: Runtime, customers: Runtime, runtime: Runtime, mailbox: Mailbox
) -> None:
    """News for a customer who does not exist waits for an operator at once."""
    await publish(orders, confirmed(Customer(customer_id=uuid7())))

    rows = await eventually(lambda: runtime.database.read(parked_items))
    assert [(row.queue, row.attempts) for row in rows] == [("address", 1)]
    assert mailbox.mails == []


async def test_restart_before_the_mail_is_sent(
    orders: Runtime,
    customers: Runtime,
    ada: Customer,
    tmp_path: Path,
    nats_url: str,
    mailbox: Mailbox,
    customers_port: int,
    impatient: None,
) -> None:
    """A mail that was queued by an earlier life of the service is sent by the next."""
    mailbox.stop()
    event = confirmed(ada)
    async with notifying(tmp_path, nats_url, mailbox, customers_port) as first:
        await publish(orders, event)
        await eventually(
            lambda: first.database.read(lambda tx: tx.one("SELECT * FROM notification"))
        )
    mailbox.start()

    async with notifying(tmp_path, nats_url, mailbox, customers_port):
        await until(lambda: mailbox.mails, "the mail")


async def test_death_after_the_mail_server_said_yes(
    orders: Runtime,
    customers: Runtime,
    ada: Customer,
    runtime: Runtime,
    stub: NotificationServiceStub,
    mailbox: Mailbox,
) -> None:
    """A mail whose commit was lost is sent again, byte for byte, under the same Message-ID."""
    event = confirmed(ada)
    await publish(orders, event)
    notification = await sent(stub, event.order_id)
    # What is left of a process that died at that moment: the work, and no mark.
    id_ = notification.notification_id

    def undo(tx: Tx) -> None:
        tx.execute("UPDATE notification SET sent_at = NULL")
        runtime.executor.enqueue(tx, "mail", id_)

    await runtime.database.write(undo)
    await until(lambda: len(mailbox.mails) == 2, "the second mail")

    assert mailbox.raw[0] == mailbox.raw[1]
    assert mailbox.mails[1]["Message-ID"] == f"<{id_}@shop.internal>"


async def test_get_and_pages(
    orders: Runtime,
    customers: Runtime,
    ada: Customer,
    stub: NotificationServiceStub,
) -> None:
    """Notifications are found by id, and listed from the newest in pages of the asked size."""
    for _ in range(5):
        event = confirmed(ada)
        await publish(orders, event)
        notification = await sent(stub, event.order_id)
        request = pb.GetNotificationRequest(notification_id=notification.notification_id)
        assert (await stub.GetNotification(request)).notification == notification

    pages: list[list[str]] = []
    token = ""
    while token or not pages:
        response = await stub.ListNotifications(
            pb.ListNotificationsRequest(page_size=2, page_token=token)
        )
        pages.append([notification.notification_id for notification in response.notifications])
        token = response.next_page_token

    assert [len(page) for page in pages] == [2, 2, 1]
    ids = [id_ for page in pages for id_ in page]
    assert ids == sorted(ids, reverse=True)


async def test_wrong_requests(stub: NotificationServiceStub) -> None:
    """An unknown id is NOT_FOUND; a token of another list, or of none, is INVALID_ARGUMENT."""

    async def code(call: Awaitable[object]) -> grpc.StatusCode:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        error = accord.failure_of(caught.value)
        assert error is not None
        return error.code

    unknown = pb.GetNotificationRequest(notification_id=uuid7())
    assert await code(stub.GetNotification(unknown)) is grpc.StatusCode.NOT_FOUND
    for request in (
        pb.ListNotificationsRequest(page_token="nonsense"),
        pb.ListNotificationsRequest(order_id="no uuid"),
        pb.ListNotificationsRequest(page_size=501),
    ):
        assert await code(stub.ListNotifications(request)) is grpc.StatusCode.INVALID_ARGUMENT
