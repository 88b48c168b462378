"""Shipments in the database. Every change names the states it may start from."""

from collections.abc import Iterable
from typing import Final

from accord.errors import InvalidArgument
from accord_runtime.database import Row, Tx
from accord_runtime.events.outbox import Outbox
from accord_runtime.grpc.ids import derived
from accord_runtime.grpc.types import timestamp
from services.fulfilment import OrderTable
from services.shipping.domain import Outcome
from shop.common.v1.fulfilment_pb2 import FULFILMENT_ORCHESTRATED, Fulfilment
from shop.shipping.v1 import shipping_pb2 as pb
from shop.shipping.v1.events_pb2 import ShipmentBooked, ShipmentCancelled, ShipmentRefused
from shop.shipping.v1.shipping_pb2 import Shipment, ShipmentState

MIGRATIONS: Final = [
    # The key is kept for ever: generic idempotency records go after seven days, sagas may not.
    """
    CREATE TABLE shipment (
        shipment_id TEXT NOT NULL PRIMARY KEY,
        order_id TEXT NOT NULL UNIQUE,
        idempotency_key TEXT UNIQUE,
        units BIGINT NOT NULL,
        state TEXT NOT NULL,
        tracking_number TEXT NOT NULL DEFAULT '',
        refusal_reason TEXT NOT NULL DEFAULT '',
        updated_at DOUBLE PRECISION NOT NULL
    )
    """,
    # As `Fulfilment` numbers them.
    "ALTER TABLE shipment ADD COLUMN fulfilment BIGINT NOT NULL DEFAULT 0",
]

Published = ShipmentBooked | ShipmentRefused | ShipmentCancelled

ORDERS: Final = OrderTable("shipment")

_PREFIX: Final = "SHIPMENT_STATE_"
"""What the contract sets before the name of a state."""


def open_booking(
    tx: Tx,
    order_id: str,
    units: int,
    idempotency_key: str | None,
    now: float,
    fulfilment: "Fulfilment.ValueType" = FULFILMENT_ORCHESTRATED,
) -> Shipment:
    """The shipment of an order, made PENDING if there was none.

    Raises:
        InvalidArgument: the idempotency key belongs to another order's shipment.
    """
    if not _insert(tx, order_id, "PENDING", now, units, idempotency_key, fulfilment):
        # Its cancellation came first, and was refused: what is in the parcel was not known.
        tx.execute(
            "UPDATE shipment SET units = :units"
            " WHERE order_id = :order_id AND state = 'PENDING' AND units = 0",
            {"order_id": order_id, "units": units},
        )
    shipment = find(tx, order_id)
    if shipment is None:
        raise InvalidArgument(
            "IDEMPOTENCY_KEY_REUSED", ("", "the idempotency key was used for another order")
        )
    return shipment


def settle(tx: Tx, outbox: Outbox, shipment: Shipment, outcome: Outcome, now: float) -> None:
    """Write down the carrier's answer, unless the shipment has moved on."""
    answer = {
        "shipment_id": shipment.shipment_id,
        "state": ShipmentState.Name(outcome.state).removeprefix(_PREFIX),
        "tracking_number": outcome.tracking_number,
        "reason": outcome.refusal_reason,
        "now": now,
    }
    settled = tx.execute(
        "UPDATE shipment SET state = :state, tracking_number = :tracking_number,"
        " refusal_reason = :reason, updated_at = :now"
        " WHERE shipment_id = :shipment_id AND state = 'PENDING'",
        answer,
    )
    if settled:
        ORDERS.publish(tx, outbox, _settled(shipment, outcome))
    elif outcome.tracking_number:
        # The carrier may yet refuse to cancel: then this is a booked parcel after all.
        tx.execute(
            "UPDATE shipment SET tracking_number = :tracking_number"
            " WHERE shipment_id = :shipment_id AND state = 'CANCELLING'",
            answer,
        )


def _settled(shipment: Shipment, outcome: Outcome) -> Published:
    """What has happened when the carrier has answered."""
    if outcome.state == pb.SHIPMENT_STATE_BOOKED:
        return ShipmentBooked(
            order_id=shipment.order_id,
            shipment_id=shipment.shipment_id,
            tracking_number=outcome.tracking_number,
        )
    if outcome.state == pb.SHIPMENT_STATE_CANCELLED:
        return ShipmentCancelled(order_id=shipment.order_id)
    return ShipmentRefused(
        order_id=shipment.order_id, reason="NO_CARRIER", detail=outcome.refusal_reason
    )


def begin_cancellation(tx: Tx, order_id: str, now: float) -> bool:
    """Decide that the shipment of an order is cancelled, whether or not it is known here.

    Returns whether it has just become CANCELLING.
    """
    # A booking that is not known here may have been lost with a restored database: the carrier
    # knows. The two statements cannot miss each other's case: a shipment is never deleted.
    return _insert(tx, order_id, "CANCELLING", now) or bool(
        tx.execute(
            "UPDATE shipment SET state = 'CANCELLING', updated_at = :now"
            " WHERE order_id = :order_id AND state IN ('PENDING', 'BOOKED')",
            {"order_id": order_id, "now": now},
        )
    )


def finish_cancellation(
    tx: Tx, outbox: Outbox, order_id: str, now: float, *, cancelled: bool
) -> None:
    """Write down whether the carrier has cancelled; if not, the shipment is what it was."""
    row = tx.one(
        "UPDATE shipment SET updated_at = :now, state = CASE"
        " WHEN :cancelled = 1 THEN 'CANCELLED' WHEN tracking_number = '' THEN 'PENDING'"
        " ELSE 'BOOKED' END WHERE order_id = :order_id AND state = 'CANCELLING'"
        " RETURNING shipment_id, state, tracking_number",
        {"order_id": order_id, "cancelled": int(cancelled), "now": now},
    )
    if row is not None and row.pop("state") == "BOOKED":
        # Its booking may have been answered while it was to be cancelled.
        how = ORDERS.fulfilment(tx, order_id)
        booked = ShipmentBooked(order_id=order_id, fulfilment=how, **row)
        outbox.append_once(tx, booked)
    elif row is not None and cancelled:
        ORDERS.publish(tx, outbox, ShipmentCancelled(order_id=order_id))


def find(tx: Tx, order_id: str) -> Shipment | None:
    """The shipment of an order."""
    return find_all(tx, [order_id]).get(order_id)


def find_all(tx: Tx, order_ids: Iterable[str]) -> dict[str, Shipment]:
    """The shipments of these orders, as far as there are any, by order."""
    rows = tx.all_of(
        "SELECT shipment_id, order_id, units, state, tracking_number, refusal_reason, updated_at"
        " FROM shipment WHERE order_id IN (:values)",
        order_ids,
    )
    return {row["order_id"]: _shipment(row) for row in rows}


def _shipment(row: Row) -> Shipment:
    state = ShipmentState.Value(_PREFIX + row["state"])
    return Shipment(**{**row, "state": state, "updated_at": timestamp(row["updated_at"])})


def _insert(
    tx: Tx,
    order_id: str,
    state: str,
    now: float,
    units: int = 0,
    idempotency_key: str | None = None,
    fulfilment: "Fulfilment.ValueType" = FULFILMENT_ORCHESTRATED,
) -> bool:
    return tx.insert(
        "shipment",
        {
            # Also the key outside: a restored database must find again what it had asked for.
            "shipment_id": derived(order_id, "shipment"),
            "order_id": order_id,
            "idempotency_key": idempotency_key,
            "units": units,
            "state": state,
            "updated_at": now,
            "fulfilment": fulfilment,
        },
        on_conflict="DO NOTHING",
    )
