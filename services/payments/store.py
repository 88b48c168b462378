"""Payments in the database. Every change names the states it may start from."""

from typing import Final

from accord_runtime.database import Row, Tx
from accord_runtime.grpc.ids import uuid7
from services.payments.domain import Outcome, Payment, PaymentState
from shop.common.v1.money_pb2 import Money

MIGRATIONS: Final = [
    # The key is kept for ever: generic idempotency records go after seven days, sagas may not.
    """
    CREATE TABLE payment (
        payment_id TEXT NOT NULL PRIMARY KEY,
        order_id TEXT NOT NULL UNIQUE,
        idempotency_key TEXT UNIQUE,
        minor_units BIGINT,
        currency_code TEXT,
        state TEXT NOT NULL,
        decline_reason TEXT NOT NULL DEFAULT '',
        updated_at DOUBLE PRECISION NOT NULL
    )
    """,
]


def open_charge(
    tx: Tx, order_id: str, amount: Money, idempotency_key: str | None, now: float
) -> Payment | None:
    """The payment of an order, made PENDING if there was none.

    None if the idempotency key belongs to another order's payment.
    """
    _insert(tx, order_id, PaymentState.PENDING, now, amount, idempotency_key)
    return find(tx, order_id)


def settle(tx: Tx, payment: Payment, outcome: Outcome, now: float) -> Payment:
    """Write down the processor's answer, unless the payment has moved on; return it as it is."""
    tx.execute(
        "UPDATE payment SET state = :state, decline_reason = :reason, updated_at = :now"
        " WHERE payment_id = :payment_id AND state = 'PENDING'",
        {
            "payment_id": payment.payment_id,
            "state": outcome.state.value,
            "reason": outcome.decline_reason,
            "now": now,
        },
    )
    return _get(tx, payment.order_id)


def begin_refund(tx: Tx, order_id: str, now: float) -> tuple[Payment, bool]:
    """Decide that an order is refunded, whether or not it was charged.

    Returns the payment, and whether it has just become REFUNDING.
    """
    # The two statements cannot miss each other's case: a payment is never deleted.
    moved = not _insert(tx, order_id, PaymentState.REFUNDED, now) and tx.execute(
        "UPDATE payment SET state = 'REFUNDING', updated_at = :now"
        " WHERE order_id = :order_id AND state IN ('PENDING', 'CAPTURED')",
        {"order_id": order_id, "now": now},
    )
    return _get(tx, order_id), bool(moved)


def finish_refund(tx: Tx, order_id: str, now: float) -> None:
    """Write down that the processor has undone what there was."""
    tx.execute(
        "UPDATE payment SET state = 'REFUNDED', updated_at = :now"
        " WHERE order_id = :order_id AND state = 'REFUNDING'",
        {"order_id": order_id, "now": now},
    )


def find(tx: Tx, order_id: str) -> Payment | None:
    """The payment of an order."""
    row = tx.one("SELECT * FROM payment WHERE order_id = :order_id", {"order_id": order_id})
    return None if row is None else _payment(row)


def refunding(tx: Tx, order_id: str) -> Payment | None:
    """The payment of an order, if it is to be refunded and the processor has not confirmed it."""
    payment = find(tx, order_id)
    return payment if payment and payment.state is PaymentState.REFUNDING else None


def _insert(
    tx: Tx,
    order_id: str,
    state: PaymentState,
    now: float,
    amount: Money | None = None,
    idempotency_key: str | None = None,
) -> bool:
    return bool(
        tx.insert(
            "payment",
            {
                "payment_id": uuid7(),
                "order_id": order_id,
                "idempotency_key": idempotency_key,
                "minor_units": amount.minor_units if amount else None,
                "currency_code": amount.currency_code if amount else None,
                "state": state.value,
                "updated_at": now,
            },
            on_conflict="DO NOTHING",
        )
    )


def _get(tx: Tx, order_id: str) -> Payment:
    payment = find(tx, order_id)
    assert payment is not None
    return payment


def _payment(row: Row) -> Payment:
    amount = None
    if row["currency_code"] is not None:
        amount = Money(minor_units=row["minor_units"], currency_code=row["currency_code"])
    return Payment(
        payment_id=row["payment_id"],
        order_id=row["order_id"],
        amount=amount,
        state=PaymentState(row["state"]),
        decline_reason=row["decline_reason"],
        updated_at=row["updated_at"],
    )
