"""Where orders are kept: their events, and the fold of them as a row."""

import time
from collections.abc import Callable
from typing import Final

from google.protobuf.message import Message

from accord.errors import NotFound
from accord_runtime.database import Row, Tx
from accord_runtime.events.record import Outbox
from services.orders import domain
from shop.orders.v1.events_pb2 import OrderPlaced
from shop.orders.v1.orders_pb2 import Order

MIGRATIONS: Final = [
    """
    CREATE TABLE orders (
        order_id TEXT NOT NULL PRIMARY KEY,
        customer_id TEXT NOT NULL,
        status BIGINT NOT NULL,
        sequence BIGINT NOT NULL,
        folded BLOB NOT NULL,
        card_token TEXT NOT NULL
    )
    """,
    "CREATE INDEX orders_customer ON orders (customer_id, order_id)",
    "CREATE INDEX orders_status ON orders (status, order_id)",
]


class Orders:
    """The orders of one database. Methods that take a `Tx` run inside a transaction."""

    def __init__(self, outbox: Outbox, clock: Callable[[], float] = time.time) -> None:
        self._outbox = outbox
        self._clock = clock

    def now(self) -> float:
        """Unix time in seconds."""
        return self._clock()

    def place(self, tx: Tx, event: OrderPlaced) -> Order:
        """Write a new order."""
        order = Order()
        self._append(tx, order, event)
        tx.insert("orders", {**_columns(order), "card_token": event.card_token})
        return order

    def happened(self, tx: Tx, order: Order, event: Message) -> Order:
        """Append an event to an order that was read with `lock`, and fold it in."""
        self._append(tx, order, event)
        tx.execute(
            "UPDATE orders SET status = :status, sequence = :sequence, folded = :folded"
            " WHERE order_id = :order_id AND customer_id = :customer_id",
            _columns(order),
        )
        return order

    def _append(self, tx: Tx, order: Order, event: Message) -> None:
        written = self._outbox.append(tx, event, sequence=order.sequence + 1)
        domain.apply(order, event, written.sequence, written.occurred_at)


def has_ordered(tx: Tx, customer_id: str) -> bool:
    """Whether there is an order of this customer."""
    row = tx.one("SELECT order_id FROM orders WHERE customer_id = :id LIMIT 1", {"id": customer_id})
    return row is not None


def get(tx: Tx, order_id: str) -> Order:
    """The order with this id.

    Raises:
        NotFound: there is none.
    """
    return _order(
        tx.one("SELECT folded FROM orders WHERE order_id = :id", {"id": order_id}), order_id
    )


def lock(tx: Tx, order_id: str) -> Order:
    """Like `get`; nobody else changes the order before the commit."""
    sql = "SELECT folded FROM orders WHERE order_id = :id" + tx.for_update
    return _order(tx.one(sql, {"id": order_id}), order_id)


def card_token(tx: Tx, order_id: str) -> str:
    """The card to charge."""
    row = tx.one("SELECT card_token FROM orders WHERE order_id = :id", {"id": order_id})
    return "" if row is None else str(row["card_token"])


def page(
    tx: Tx, *, before: str | None, most: int, customer_id: str = "", status: int = 0
) -> list[Order]:
    """Up to `most` orders, newest first, beginning before an order's id."""
    where = ["order_id < :before"]
    if customer_id:
        where.append("customer_id = :customer_id")
    if status:
        where.append("status = :status")
    rows = tx.all(
        f"SELECT folded FROM orders WHERE {' AND '.join(where)} ORDER BY order_id DESC LIMIT :most",
        {
            # "g" sorts behind every hexadecimal id.
            "before": "g" if before is None else before,
            "customer_id": customer_id,
            "status": status,
            "most": most,
        },
    )
    return [Order.FromString(bytes(row["folded"])) for row in rows]


def _order(row: Row | None, order_id: str) -> Order:
    if row is None:
        raise NotFound("shop.orders.v1.Order", order_id)
    return Order.FromString(bytes(row["folded"]))


def _columns(order: Order) -> dict[str, object]:
    return {
        "order_id": order.order_id,
        "customer_id": order.customer_id,
        "status": int(order.status),
        "sequence": order.sequence,
        "folded": order.SerializeToString(),
    }
