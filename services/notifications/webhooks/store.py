"""Webhooks and their deliveries in the database."""

import json
from typing import Final

from accord.errors import NotFound, Resource
from accord_runtime.database import Row, Tx
from accord_runtime.grpc.page_tokens import Page
from accord_runtime.grpc.types import timestamp
from shop.notifications.v1 import webhooks_pb2 as pb

MIGRATIONS: Final = [
    """
    CREATE TABLE webhook (
        webhook_id TEXT NOT NULL PRIMARY KEY,
        url TEXT NOT NULL,
        event_types TEXT NOT NULL,
        condition TEXT NOT NULL,
        secret TEXT NOT NULL,
        old_secret TEXT NOT NULL DEFAULT '',
        old_until DOUBLE PRECISION NOT NULL DEFAULT 0,
        state BIGINT NOT NULL,
        reason TEXT NOT NULL DEFAULT '',
        created_at DOUBLE PRECISION NOT NULL,
        state_changed_at DOUBLE PRECISION NOT NULL,
        failing_since DOUBLE PRECISION NOT NULL DEFAULT 0
    )
    """,
    """
    CREATE TABLE delivery (
        message_id TEXT NOT NULL PRIMARY KEY,
        webhook_id TEXT NOT NULL,
        event_id TEXT NOT NULL,
        event_type TEXT NOT NULL,
        key TEXT NOT NULL,
        sequence BIGINT NOT NULL,
        state BIGINT NOT NULL,
        attempts BIGINT NOT NULL DEFAULT 0,
        status BIGINT NOT NULL DEFAULT 0,
        error TEXT NOT NULL DEFAULT '',
        body BLOB NOT NULL,
        updated_at DOUBLE PRECISION NOT NULL
    )
    """,
    "CREATE INDEX delivery_webhook ON delivery (webhook_id, message_id)",
    "CREATE INDEX delivery_state ON delivery (webhook_id, state)",
    "CREATE INDEX delivery_updated ON delivery (updated_at)",
]

ACTIVE: Final = pb.WEBHOOK_STATE_ACTIVE
OFF: Final = pb.WEBHOOK_STATE_OFF
WAITING: Final = pb.DELIVERY_STATE_WAITING
ENDED: Final = (pb.DELIVERY_STATE_DELIVERED, pb.DELIVERY_STATE_GIVEN_UP)
"""A delivery in one of these is not sent."""

MAX_WEBHOOKS: Final = 100
"""Webhooks that there may be."""


def insert(
    tx: Tx, webhook_id: str, request: pb.CreateWebhookRequest, secret: str, now: float
) -> bool:
    """Write a webhook down; False if there are too many."""
    if tx.value("SELECT COUNT(*) FROM webhook") >= MAX_WEBHOOKS:
        return False
    row = {
        "webhook_id": webhook_id,
        "url": request.url,
        "event_types": json.dumps(list(request.event_types)),
        "condition": request.condition,
        "secret": secret,
        "state": ACTIVE,
        "created_at": now,
        "state_changed_at": now,
    }
    return tx.insert("webhook", row)


def find(tx: Tx, webhook_id: str, *, lock: bool = False) -> Row | None:
    """The row of a webhook, secrets and all; `lock` keeps it as it is until the commit."""
    sql = "SELECT * FROM webhook WHERE webhook_id = :id" + (tx.for_update if lock else "")
    return tx.one(sql, {"id": webhook_id})


def get(tx: Tx, webhook_id: str, *, lock: bool = False) -> Row:
    """Like `find`.

    Raises:
        NotFound: there is none.
    """
    row = find(tx, webhook_id, lock=lock)
    if row is None:
        raise NotFound(resource=Resource("shop.notifications.v1.Webhook", webhook_id))
    return row


def change(tx: Tx, webhook_id: str, **columns: object) -> None:
    """Change some columns of a webhook."""
    changes = ", ".join(f"{name} = :{name}" for name in columns)
    sql = f"UPDATE webhook SET {changes} WHERE webhook_id = :webhook_id"
    tx.execute(sql, {"webhook_id": webhook_id, **columns})


def delete(tx: Tx, webhook_id: str) -> None:
    """Remove a webhook with its deliveries."""
    for table in ("webhook", "delivery"):
        tx.execute(f"DELETE FROM {table} WHERE webhook_id = :id", {"id": webhook_id})


def active(tx: Tx) -> list[Row]:
    """All webhooks that are sent."""
    return tx.all("SELECT * FROM webhook WHERE state = :state", {"state": ACTIVE})


def page(tx: Tx, asked: Page) -> tuple[list[pb.Webhook], str]:
    """A page of webhooks, newest first, and the next token."""
    rows, token = asked.read(tx, "SELECT * FROM webhook", "webhook_id", newest_first=True)
    return [message(row) for row in rows], token


def message(row: Row) -> pb.Webhook:
    """A webhook as everybody may see it."""
    since = row["failing_since"]
    return pb.Webhook(
        webhook_id=row["webhook_id"],
        url=row["url"],
        event_types=json.loads(row["event_types"]),
        condition=row["condition"],
        state=row["state"],
        reason=row["reason"],
        created_at=timestamp(row["created_at"]),
        state_changed_at=timestamp(row["state_changed_at"]),
        failing_since=timestamp(since) if since else None,
    )


def begin(tx: Tx, delivery: Row, *, again: bool) -> bool:
    """Write a delivery down; `again`: also one that has ended. False if it waits already."""
    conflict = "DO NOTHING"
    if again:
        conflict = (
            "(message_id) DO UPDATE SET state = excluded.state, attempts = 0, status = 0,"
            " error = '', body = excluded.body, updated_at = excluded.updated_at WHERE"
            f" delivery.state NOT IN ({WAITING}, {pb.DELIVERY_STATE_PARKED})"
        )
    return tx.insert("delivery", {**delivery, "state": WAITING}, on_conflict=conflict)


def delivery(tx: Tx, message_id: str) -> Row | None:
    """The row of a delivery."""
    return tx.one("SELECT * FROM delivery WHERE message_id = :id", {"id": message_id})


def settle(
    tx: Tx,
    message_id: str,
    state: "pb.DeliveryState.ValueType",
    attempts: int,
    status: int,
    error: str,
    now: float,
) -> None:
    """Write down what came of an attempt. What will not be sent again loses its body."""
    tx.execute(
        "UPDATE delivery SET state = :state, attempts = :attempts, status = :status,"
        " error = :error, updated_at = :now WHERE message_id = :id",
        {"state": state, "attempts": attempts, "status": status, "error": error}
        | {"now": now, "id": message_id},
    )
    if state in ENDED:
        empty = {"empty": b"", "id": message_id}
        tx.execute("UPDATE delivery SET body = :empty WHERE message_id = :id", empty)


def give_up(tx: Tx, webhook_id: str, now: float) -> list[str]:
    """Give up the deliveries of a webhook that have not ended; return their keys."""
    rows = tx.all(
        "UPDATE delivery SET state = :given_up, body = :empty, updated_at = :now"
        " WHERE webhook_id = :id AND state IN (:waiting, :parked) RETURNING key",
        {"given_up": pb.DELIVERY_STATE_GIVEN_UP, "empty": b"", "now": now, "id": webhook_id}
        | {"waiting": WAITING, "parked": pb.DELIVERY_STATE_PARKED},
    )
    return sorted({row["key"] for row in rows})


def waiting(tx: Tx, webhook_id: str) -> int:
    """How many deliveries of a webhook wait."""
    sql = "SELECT COUNT(*) FROM delivery WHERE webhook_id = :id AND state = :state"
    return int(tx.value(sql, {"id": webhook_id, "state": WAITING}))


def deliveries(tx: Tx, asked: Page, webhook_id: str, state: int) -> tuple[list[pb.Delivery], str]:
    """A page of deliveries, those of the newest events first, and the next token."""
    rows, token = asked.read(
        tx,
        "SELECT message_id, event_id, event_type, key, sequence, state, attempts, status, error,"
        " updated_at FROM delivery",
        "message_id",
        equal={"webhook_id": webhook_id, "state": state},
        newest_first=True,
    )
    return [
        pb.Delivery(**{**row, "updated_at": timestamp(row["updated_at"])}) for row in rows
    ], token


def sweep(tx: Tx, before: float) -> None:
    """Remove what came of deliveries before a time."""
    sql = "DELETE FROM delivery WHERE updated_at < :before AND state NOT IN (:waiting, :parked)"
    values = {"waiting": WAITING, "parked": pb.DELIVERY_STATE_PARKED}
    tx.execute(sql, {"before": before, **values})
