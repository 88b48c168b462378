"""Reservations in the database: reserve, release, commit.

    unknown  -> RESERVED, REJECTED, RELEASED
    RESERVED -> RELEASED, COMMITTED
    REJECTED -> RELEASED

Each change is published.

Each runs in one transaction that first takes the order's reservation and then the rows of its
products by SKU. As all of them take rows in this order, none can wait for another in a circle.
"""

from collections.abc import Sequence
from typing import Final

from accord.errors import FailedPrecondition, InvalidArgument, Precondition
from accord_runtime.database import Tx
from accord_runtime.events.outbox import Outbox, of_key
from services.fulfilment import OrderTable
from services.inventory.domain import State, problems
from services.inventory.store import to_price, to_product
from shop.common.v1.fulfilment_pb2 import FULFILMENT_ORCHESTRATED, Fulfilment
from shop.inventory.v1.events_pb2 import (
    StockCommitted,
    StockRejected,
    StockReleased,
    StockReserved,
)
from shop.inventory.v1.inventory_pb2 import Product, ReserveLine

ORDERS: Final = OrderTable("reservation")

NAMED: Final = 20
"""Lines that a refusal names, the worst ones; an error with more would not fit the trailers."""


def reserve(
    tx: Tx,
    outbox: Outbox,
    order_id: str,
    lines: Sequence[ReserveLine],
    key: str | None,
    fulfilment: "Fulfilment.ValueType" = FULFILMENT_ORCHESTRATED,
) -> State | FailedPrecondition:
    """Hold the stock of an order, all lines or none. A repeat returns what the first one did.

    Also after the goods have left: orders that were restored from a copy ask again.

    Each line has a SKU of its own. The idempotency key is remembered for ever.

    Returns:
        Where the reservation stands, or why there is none and never will be, which is to be
        committed: OUT_OF_STOCK, UNKNOWN_PRODUCT or PRICE_CHANGED.

    Raises:
        FailedPrecondition: RESERVATION_CLOSED.
        InvalidArgument: the order has reserved something else, or the key is another order's.
    """
    if not _begin(tx, order_id, State.RESERVED, fulfilment, key):
        return _repeated(tx, order_id, lines)
    for line in lines:
        tx.insert(
            "reservation_line",
            {
                "order_id": order_id,
                "sku": line.sku,
                "quantity": line.quantity,
                "price_minor_units": line.unit_price.minor_units,
                "currency_code": line.unit_price.currency_code,
            },
        )
    found = problems(lines, _locked(tx, order_id))
    if found:
        refusal = _refusal(found)
        _enter(tx, order_id, State.REJECTED)
        rejected = StockRejected(order_id=order_id, reason=refusal.reason, detail=refusal.message)
        ORDERS.publish(tx, outbox, rejected)
        return refusal
    _move(tx, order_id, reserved=+1)
    ORDERS.publish(tx, outbox, StockReserved(order_id=order_id, lines=lines))
    return State.RESERVED


def release(
    tx: Tx,
    outbox: Outbox,
    order_id: str,
    fulfilment: "Fulfilment.ValueType" = FULFILMENT_ORCHESTRATED,
) -> State:
    """Give the stock of an order back, and refuse it to the order from now on.

    Raises:
        FailedPrecondition: RESERVATION_COMMITTED.
    """
    begun = _begin(tx, order_id, State.RELEASED, fulfilment)
    state = None if begun else _state(tx, order_id)
    if state is State.COMMITTED:
        raise FailedPrecondition("RESERVATION_COMMITTED", "the goods have left the warehouse")
    if state is State.RESERVED:
        _end(tx, order_id, State.RELEASED)
    elif state is State.REJECTED:
        _enter(tx, order_id, State.RELEASED)
    if state is not State.RELEASED:
        ORDERS.publish(tx, outbox, StockReleased(order_id=order_id))
    return State.RELEASED


def commit(tx: Tx, outbox: Outbox, order_id: str) -> State:
    """Take the reserved stock of an order out of the warehouse.

    Raises:
        FailedPrecondition: NOT_RESERVED.
    """
    state = _state(tx, order_id)
    if state not in (State.RESERVED, State.COMMITTED):
        raise FailedPrecondition("NOT_RESERVED", "the order holds no stock")
    if state is State.RESERVED:
        _end(tx, order_id, State.COMMITTED, on_hand=-1)
        ORDERS.publish(tx, outbox, StockCommitted(order_id=order_id))
    return State.COMMITTED


def _begin(tx: Tx, order_id: str, state: State, fulfilment: int, key: str | None = None) -> bool:
    """Write the order's reservation; False when there is one, or the key was used."""
    row = {
        "order_id": order_id,
        "state": state.value,
        "idempotency_key": key,
        "fulfilment": fulfilment,
    }
    return tx.insert("reservation", row, on_conflict="DO NOTHING")


def _state(tx: Tx, order_id: str) -> State | None:
    """Where the order's reservation stands; it is locked."""
    row = tx.one(
        f"SELECT state FROM reservation WHERE order_id = :order_id{tx.for_update}",
        {"order_id": order_id},
    )
    return None if row is None else State(row["state"])


def _end(tx: Tx, order_id: str, state: State, *, on_hand: int = 0) -> None:
    _locked(tx, order_id)
    _move(tx, order_id, reserved=-1, on_hand=on_hand)
    _enter(tx, order_id, state)


def _enter(tx: Tx, order_id: str, state: State) -> None:
    tx.execute(
        "UPDATE reservation SET state = :state WHERE order_id = :order_id",
        {"order_id": order_id, "state": state.value},
    )


def _repeated(tx: Tx, order_id: str, lines: Sequence[ReserveLine]) -> State | FailedPrecondition:
    state = _state(tx, order_id)
    if state is None:
        raise InvalidArgument(
            "IDEMPOTENCY_KEY_REUSED", message="the key was used for another order"
        )
    if state is State.RELEASED:
        text = "the reservation of the order is released already"
        raise FailedPrecondition("RESERVATION_CLOSED", text)
    if state is State.REJECTED:
        said = next(
            event
            for each in of_key(tx, order_id)
            if isinstance(event := each.message(), StockRejected)
        )
        return FailedPrecondition(said.reason, said.detail)
    if sorted(lines, key=lambda line: line.sku) != _lines(tx, order_id):
        raise InvalidArgument(("lines", "must be the lines that the order has reserved"))
    return state


def _lines(tx: Tx, order_id: str) -> list[ReserveLine]:
    rows = tx.all(
        "SELECT * FROM reservation_line WHERE order_id = :order_id", {"order_id": order_id}
    )
    lines = (
        ReserveLine(sku=row["sku"], quantity=row["quantity"], unit_price=to_price(row))
        for row in rows
    )
    return sorted(lines, key=lambda line: line.sku)


def _locked(tx: Tx, order_id: str) -> dict[str, Product]:
    """The products of an order's lines; nobody else can change them before the commit."""
    rows = tx.all(
        "SELECT * FROM product WHERE sku IN"
        " (SELECT sku FROM reservation_line WHERE order_id = :order_id)"
        f" ORDER BY sku{tx.for_update}",
        {"order_id": order_id},
    )
    return {row["sku"]: to_product(row) for row in rows}


def _move(tx: Tx, order_id: str, *, reserved: int, on_hand: int = 0) -> None:
    """Add each line's quantity, times `reserved` and `on_hand`, to its product."""
    tx.execute(
        "UPDATE product SET reserved = reserved + :reserved * line.quantity,"
        " on_hand = on_hand + :on_hand * line.quantity"
        " FROM reservation_line AS line"
        " WHERE line.order_id = :order_id AND product.sku = line.sku",
        {"order_id": order_id, "reserved": reserved, "on_hand": on_hand},
    )


def _refusal(found: Sequence[Precondition]) -> FailedPrecondition:
    text = "; ".join(f"{problem.subject} {problem.description}" for problem in found[:3])
    if len(found) > 3:
        text += f"; and {len(found) - 3} more"
    return FailedPrecondition(found[0].type, text, *found[:NAMED])
