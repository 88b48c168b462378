"""Where orders are kept: their events, and the fold of them as a row."""

from itertools import accumulate
from typing import Final

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from accord.errors import NotFound, OutOfRange, Resource
from accord_runtime.database import Row, Tx
from accord_runtime.events.outbox import Event, Outbox, event_time, of_key
from accord_runtime.grpc import owner
from accord_runtime.grpc.page_tokens import Page
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
    # Of choreographed orders.
    """
    CREATE TABLE heard (
        order_id TEXT NOT NULL,
        type TEXT NOT NULL,
        payload BLOB NOT NULL,
        PRIMARY KEY (order_id, type)
    )
    """,
]

PAGE_BYTES: Final = 2 * 1024 * 1024
"""Bytes of a page of orders: half of what a message may have. A page of large orders is shorter."""


def place(tx: Tx, outbox: Outbox, event: OrderPlaced, card_token: str) -> Order:
    """Write a new order, and the card that it is paid with."""
    order = Order()
    _append(tx, outbox, order, event)
    tx.insert("orders", {**_columns(order), "card_token": card_token})
    return order


def happened(tx: Tx, outbox: Outbox, order: Order, event: Message) -> None:
    """Append an event to an order that was read with `lock`, and fold it in."""
    _append(tx, outbox, order, event)
    tx.execute(
        "UPDATE orders SET status = :status, sequence = :sequence, folded = :folded"
        " WHERE order_id = :order_id AND customer_id = :customer_id",
        _columns(order),
    )


def _append(tx: Tx, outbox: Outbox, order: Order, event: Message) -> None:
    written = outbox.append(tx, event, sequence=order.sequence + 1)
    domain.apply(order, event, written.sequence, written.occurred_at)


def hear(tx: Tx, order_id: str, event: Message) -> dict[str, bytes]:
    """Keep what another service has published of an order, which is locked.

    Returns all that is known: full name of the event -> its bytes.
    """
    row = {
        "order_id": order_id,
        "type": event.DESCRIPTOR.full_name,
        "payload": event.SerializeToString(),
    }
    tx.insert("heard", row, on_conflict="DO NOTHING")
    rows = tx.all("SELECT type, payload FROM heard WHERE order_id = :id", {"id": order_id})
    return {row["type"]: row["payload"] for row in rows}


def has_ordered(tx: Tx, customer_id: str) -> bool:
    """Whether there is an order of this customer."""
    sql = "SELECT 1 FROM orders WHERE customer_id = :id LIMIT 1"
    return tx.value(sql, {"id": customer_id}) is not None


def get(tx: Tx, order_id: str, *, lock: bool = False) -> Order:
    """The order with this id; `lock` keeps others from changing it before the commit.

    Raises:
        NotFound: there is none.
    """
    sql = "SELECT folded FROM orders WHERE order_id = :id" + (tx.for_update if lock else "")
    row = tx.one(sql, {"id": order_id})
    if row is None:
        raise NotFound(resource=Resource("shop.orders.v1.Order", order_id))
    return Order.FromString(row["folded"])


def get_own(tx: Tx, order_id: str, *, lock: bool = False) -> Order:
    """As `get`, of which other users than its customer are told that there is none."""
    order = get(tx, order_id, lock=lock)
    owner.check(order.customer_id, Resource("shop.orders.v1.Order", order_id))
    return order


def sequence(tx: Tx, order_id: str) -> int:
    """The number of an order's last event; 0: there is no such order."""
    sql = "SELECT sequence FROM orders WHERE order_id = :id"
    return int(tx.value(sql, {"id": order_id}) or 0)


def fold(order: Order, event: Event) -> None:
    """Fold an event of the record into an order. Raises as `Event.read` and `domain.apply`."""
    read = event.read(domain.UPCASTERS)
    domain.apply(order, read, event.sequence, event.occurred_at)


def as_of(tx: Tx, order_id: str, *, sequence: int) -> Order:
    """The order as it was after its event of this number, folded from its events.

    Raises:
        NotFound: there is no such order.
        OutOfRange: it has no such event yet (SEQUENCE_IN_FUTURE).
    """
    order = Order()
    for event in of_key(tx, order_id, most=sequence):
        fold(order, event)
    if order.sequence == 0:
        raise NotFound(resource=Resource("shop.orders.v1.Order", order_id))
    if order.sequence < sequence:
        raise OutOfRange(
            "SEQUENCE_IN_FUTURE", f"the order's last event is {order.sequence}, not {sequence}"
        )
    return order


def as_of_time(tx: Tx, order_id: str, moment: Timestamp, now: float) -> Order:
    """The order as it was at a time, folded from its events.

    Raises:
        NotFound: there is no such order, or there was none at that time.
        OutOfRange: the time is not yet (TIME_IN_FUTURE).
    """
    until = moment.seconds * 10**9 + moment.nanos
    if until > now * 1e9:
        raise OutOfRange("TIME_IN_FUTURE", "at_time is not yet, by the clock of the service")
    order = Order()
    # Their numbers are their order: a clock that was set back hides no event behind a later one.
    for event in of_key(tx, order_id):
        if event_time(event.occurred_at).ToNanoseconds() > until:
            break
        fold(order, event)
    if order.sequence == 0:
        text = f"there was no order {order_id} at that time"
        raise NotFound(resource=Resource("shop.orders.v1.Order", order_id), message=text)
    return order


def card_token(tx: Tx, order_id: str) -> str:
    """The card to charge.

    Raises:
        NotFound: there is no such order.
    """
    row = tx.one("SELECT card_token FROM orders WHERE order_id = :id", {"id": order_id})
    if row is None:
        raise NotFound(resource=Resource("shop.orders.v1.Order", order_id))
    return str(row["card_token"])


def page(tx: Tx, asked: Page, *, customer_id: str, status: int) -> tuple[list[Order], str]:
    """A page of orders, newest first, and the token of the next; of any customer if it is ""."""
    rows, token = asked.read(
        tx,
        "SELECT order_id, folded FROM orders",
        "order_id",
        equal={"customer_id": customer_id, "status": status},
        newest_first=True,
        fitting=_fitting,
    )
    return [Order.FromString(row["folded"]) for row in rows], token


def _fitting(rows: list[Row]) -> int:
    """How many of some orders, the first of them, one message should carry; one at least."""
    sizes = accumulate(len(row["folded"]) for row in rows)
    return max(1, sum(size <= PAGE_BYTES for size in sizes))


def _columns(order: Order) -> dict[str, object]:
    return {
        "order_id": order.order_id,
        "customer_id": order.customer_id,
        "status": int(order.status),
        "sequence": order.sequence,
        "folded": order.SerializeToString(),
    }
