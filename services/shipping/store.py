"""Shipments in the database. Every change names the states it may start from."""

from typing import Final

from accord_runtime.database import Tx
from accord_runtime.grpc.ids import uuid7
from services.shipping.domain import Outcome, Shipment, ShipmentState

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
]


def open_booking(
    tx: Tx, order_id: str, units: int, idempotency_key: str | None, now: float
) -> Shipment | None:
    """The shipment of an order, made PENDING if there was none.

    None if the idempotency key belongs to another order's shipment.
    """
    _insert(tx, order_id, ShipmentState.PENDING, now, units, idempotency_key)
    return find(tx, order_id)


def settle(tx: Tx, shipment: Shipment, outcome: Outcome, now: float) -> Shipment:
    """Write down the carrier's answer, unless the shipment has moved on; return it as it is."""
    answer = {
        "shipment_id": shipment.shipment_id,
        "state": outcome.state.value,
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
    if not settled and outcome.tracking_number:
        # The carrier may yet refuse to cancel: then this is a booked parcel after all.
        tx.execute(
            "UPDATE shipment SET tracking_number = :tracking_number"
            " WHERE shipment_id = :shipment_id AND state = 'CANCELLING'",
            answer,
        )
    return _get(tx, shipment.order_id)


def begin_cancellation(tx: Tx, order_id: str, now: float) -> tuple[Shipment, bool]:
    """Decide that the shipment of an order is cancelled, whether or not it was booked.

    Returns the shipment, and whether it has just become CANCELLING.
    """
    # The two statements cannot miss each other's case: a shipment is never deleted.
    moved = not _insert(tx, order_id, ShipmentState.CANCELLED, now) and tx.execute(
        "UPDATE shipment SET state = 'CANCELLING', updated_at = :now"
        " WHERE order_id = :order_id AND state IN ('PENDING', 'BOOKED')",
        {"order_id": order_id, "now": now},
    )
    return _get(tx, order_id), bool(moved)


def finish_cancellation(tx: Tx, order_id: str, now: float, *, cancelled: bool) -> None:
    """Write down whether the carrier has cancelled; if not, the shipment is what it was."""
    tx.execute(
        "UPDATE shipment SET updated_at = :now, state = CASE"
        " WHEN :cancelled = 1 THEN 'CANCELLED' WHEN tracking_number = '' THEN 'PENDING'"
        " ELSE 'BOOKED' END WHERE order_id = :order_id AND state = 'CANCELLING'",
        {"order_id": order_id, "cancelled": int(cancelled), "now": now},
    )


def find(tx: Tx, order_id: str) -> Shipment | None:
    """The shipment of an order."""
    row = tx.one(
        "SELECT shipment_id, order_id, units, state, tracking_number, refusal_reason, updated_at"
        " FROM shipment WHERE order_id = :order_id",
        {"order_id": order_id},
    )
    return None if row is None else Shipment(**{**row, "state": ShipmentState(row["state"])})


def cancelling(tx: Tx, order_id: str) -> Shipment | None:
    """The shipment of an order, if it is to be cancelled and the carrier has not answered."""
    shipment = find(tx, order_id)
    return shipment if shipment and shipment.state is ShipmentState.CANCELLING else None


def _insert(
    tx: Tx,
    order_id: str,
    state: ShipmentState,
    now: float,
    units: int = 0,
    idempotency_key: str | None = None,
) -> bool:
    return bool(
        tx.insert(
            "shipment",
            {
                "shipment_id": uuid7(),
                "order_id": order_id,
                "idempotency_key": idempotency_key,
                "units": units,
                "state": state.value,
                "updated_at": now,
            },
            on_conflict="DO NOTHING",
        )
    )


def _get(tx: Tx, order_id: str) -> Shipment:
    shipment = find(tx, order_id)
    assert shipment is not None
    return shipment
