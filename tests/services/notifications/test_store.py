"""The notifications on each database."""

from functools import partial

import pytest

from accord_runtime.database import Database
from accord_runtime.database.migrations import migrate
from accord_runtime.grpc.ids import uuid7
from accord_runtime.grpc.page_tokens import Page, encode_token
from services.notifications import store
from services.notifications.store import MIGRATIONS
from shop.notifications.v1 import notifications_pb2 as pb


def a_notification(order_id: str) -> pb.Notification:
    notification = pb.Notification(
        notification_id=uuid7(),
        order_id=order_id,
        recipient="ada@example.com",
        subject="Your order",
        body="Hello Ada,\n",
        state=pb.NOTIFICATION_STATE_QUEUED,
    )
    notification.created_at.FromMicroseconds(1_700_000_000_123_456)
    return notification


async def add(database: Database, notification: pb.Notification, outcome: str) -> bool:
    return await database.write(lambda tx: store.insert(tx, notification, outcome))


@pytest.fixture
async def notifications(database: Database) -> Database:
    """A database with the tables of the service."""
    await migrate(database, "notifications", MIGRATIONS)
    return database


async def test_what_goes_in_comes_out(notifications: Database) -> None:
    """A notification is kept whole and knows when it was sent, the first time."""
    written = a_notification("o1")
    id_ = written.notification_id
    await add(notifications, written, "CONFIRMED")
    assert await notifications.read(lambda tx: store.find(tx, id_)) == written

    for now in (1_700_000_001.5, 1_700_000_009.0):
        await notifications.write(partial(store.mark_sent, notification_id=id_, now=now))

    found = await notifications.read(lambda tx: store.find(tx, id_))
    assert found is not None
    assert found.state == pb.NOTIFICATION_STATE_SENT
    assert found.sent_at.ToMilliseconds() == 1_700_000_001_500


async def test_one_for_each_outcome(notifications: Database) -> None:
    """An outcome of an order is told once; another outcome of it is told too."""
    assert await add(notifications, a_notification("o1"), "CONFIRMED")
    assert not await add(notifications, a_notification("o1"), "CONFIRMED")
    assert await add(notifications, a_notification("o1"), "CANCELLED")
    assert await add(notifications, a_notification("o2"), "CONFIRMED")


async def test_pages(notifications: Database) -> None:
    """Pages go from the newest down, of one order or of all."""
    written = []
    for number in range(6):
        written.append(a_notification(f"o{number % 2}"))
        await add(notifications, written[-1], str(number))
    newest = written[::-1]

    async def page(order: str, before: str | None, most: int) -> list[pb.Notification]:
        token = encode_token({}, before) if before else ""
        asked = Page(pb.ListNotificationsRequest(page_size=most, page_token=token))
        return (await notifications.read(lambda tx: store.page(tx, asked, order)))[0]

    assert await page("", None, 4) == newest[:4]
    assert await page("", newest[3].notification_id, 4) == newest[4:]
    assert await page("o1", None, 9) == newest[0::2]
    assert await page("o1", newest[2].notification_id, 9) == newest[4::2]
