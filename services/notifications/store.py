"""The notifications in the database."""

from typing import Final

from accord_runtime.database import Row, Tx
from accord_runtime.grpc.page_tokens import Page
from accord_runtime.grpc.types import timestamp
from shop.notifications.v1 import notifications_pb2 as pb

MIGRATIONS: Final = [
    """
    CREATE TABLE notification (
        notification_id TEXT NOT NULL PRIMARY KEY,
        order_id TEXT NOT NULL,
        outcome TEXT NOT NULL,
        recipient TEXT NOT NULL,
        subject TEXT NOT NULL,
        body TEXT NOT NULL,
        created_at DOUBLE PRECISION NOT NULL,
        sent_at DOUBLE PRECISION,
        UNIQUE (order_id, outcome)
    )
    """,
]


def insert(tx: Tx, notification: pb.Notification, outcome: str) -> bool:
    """Write a notification down; False when the order's outcome has one already."""
    return tx.insert(
        "notification",
        {
            "notification_id": notification.notification_id,
            "order_id": notification.order_id,
            "outcome": outcome,
            "recipient": notification.recipient,
            "subject": notification.subject,
            "body": notification.body,
            "created_at": notification.created_at.ToMicroseconds() / 1e6,
        },
        on_conflict="(order_id, outcome) DO NOTHING",
    )


def mark_sent(tx: Tx, notification_id: str, now: float) -> None:
    """Note that the mail server took a notification; the first time counts."""
    tx.execute(
        "UPDATE notification SET sent_at = :now WHERE notification_id = :id AND sent_at IS NULL",
        {"id": notification_id, "now": now},
    )


def find(tx: Tx, notification_id: str) -> pb.Notification | None:
    """The notification with an id."""
    row = tx.one("SELECT * FROM notification WHERE notification_id = :id", {"id": notification_id})
    return None if row is None else _notification(row)


def page(tx: Tx, asked: Page, order_id: str) -> tuple[list[pb.Notification], str]:
    """A page of notifications, newest first, and the next token; of any order if it is ""."""
    rows, token = asked.read(
        tx,
        "SELECT * FROM notification",
        "notification_id",
        equal={"order_id": order_id},
        newest_first=True,
    )
    return [_notification(row) for row in rows], token


def _notification(row: Row) -> pb.Notification:
    sent = row["sent_at"] is not None
    return pb.Notification(
        notification_id=row["notification_id"],
        order_id=row["order_id"],
        recipient=row["recipient"],
        subject=row["subject"],
        body=row["body"],
        state=pb.NOTIFICATION_STATE_SENT if sent else pb.NOTIFICATION_STATE_QUEUED,
        created_at=timestamp(row["created_at"]),
        sent_at=timestamp(row["sent_at"]) if sent else None,
    )
