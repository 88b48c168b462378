"""Payments in the database. Every change names the states it may start from."""

from typing import Final

from accord.errors import InvalidArgument
from accord_runtime.database import Tx
from accord_runtime.events.outbox import Outbox
from accord_runtime.grpc.ids import derived
from accord_runtime.grpc.types import timestamp
from services.fulfilment import OrderTable
from services.payments.domain import Outcome
from shop.common.v1.fulfilment_pb2 import FULFILMENT_ORCHESTRATED, Fulfilment
from shop.common.v1.money_pb2 import Money
from shop.payments.v1 import payments_pb2 as pb
from shop.payments.v1.events_pb2 import PaymentCaptured, PaymentDeclined, PaymentRefunded
from shop.payments.v1.payments_pb2 import Payment, PaymentState

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
    # As `Fulfilment` numbers them.
    "ALTER TABLE payment ADD COLUMN fulfilment BIGINT NOT NULL DEFAULT 0",
]

Published = PaymentCaptured | PaymentDeclined | PaymentRefunded

ORDERS: Final = OrderTable("payment")

_PREFIX: Final = "PAYMENT_STATE_"
"""What the contract sets before the name of a state."""


def open_charge(
    tx: Tx,
    order_id: str,
    amount: Money,
    idempotency_key: str | None,
    now: float,
    fulfilment: "Fulfilment.ValueType" = FULFILMENT_ORCHESTRATED,
) -> Payment:
    """The payment of an order, made PENDING if there was none.

    Raises:
        InvalidArgument: the idempotency key belongs to another order's payment.
    """
    _insert(tx, order_id, "PENDING", now, fulfilment, amount, idempotency_key)
    payment = find(tx, order_id)
    if payment is None:
        raise InvalidArgument(
            "IDEMPOTENCY_KEY_REUSED", ("", "the idempotency key was used for another order")
        )
    return payment


def settle(tx: Tx, outbox: Outbox, payment: Payment, outcome: Outcome, now: float) -> None:
    """Write down the processor's answer, unless the payment has moved on."""
    settled = tx.execute(
        "UPDATE payment SET state = :state, decline_reason = :reason, updated_at = :now"
        " WHERE payment_id = :payment_id AND state = 'PENDING'",
        {
            "payment_id": payment.payment_id,
            "state": PaymentState.Name(outcome.state).removeprefix(_PREFIX),
            "reason": outcome.decline_reason,
            "now": now,
        },
    )
    if settled:
        ORDERS.publish(tx, outbox, _settled(payment, outcome))


def _settled(payment: Payment, outcome: Outcome) -> Published:
    """What has happened when the processor has answered."""
    order_id, payment_id = payment.order_id, payment.payment_id
    if outcome.state == pb.PAYMENT_STATE_CAPTURED:
        return PaymentCaptured(order_id=order_id, payment_id=payment_id, amount=payment.amount)
    if outcome.state == pb.PAYMENT_STATE_REFUNDED:
        return PaymentRefunded(order_id=order_id, payment_id=payment_id)
    return PaymentDeclined(
        order_id=order_id,
        payment_id=payment_id,
        reason="CARD_DECLINED",
        detail=outcome.decline_reason,
    )


def begin_refund(
    tx: Tx,
    order_id: str,
    now: float,
    fulfilment: "Fulfilment.ValueType" = FULFILMENT_ORCHESTRATED,
) -> bool:
    """Decide that an order is refunded, whether or not it is known here that it was charged.

    Returns whether its payment has just become REFUNDING.
    """
    # A charge that is not known here may have been lost with a restored database: the processor
    # knows. The two statements cannot miss each other's case: a payment is never deleted.
    return _insert(tx, order_id, "REFUNDING", now, fulfilment) or bool(
        tx.execute(
            "UPDATE payment SET state = 'REFUNDING', updated_at = :now"
            " WHERE order_id = :order_id AND state IN ('PENDING', 'CAPTURED')",
            {"order_id": order_id, "now": now},
        )
    )


def finish_refund(tx: Tx, outbox: Outbox, order_id: str, amount: Money | None, now: float) -> None:
    """Write down that the processor has undone what there was: `amount`, or nothing."""
    finished = tx.execute(
        "UPDATE payment SET state = 'REFUNDED', updated_at = :now"
        " WHERE order_id = :order_id AND state = 'REFUNDING'",
        {"order_id": order_id, "now": now},
    )
    if not finished:
        return
    payment_id = _payment_id(order_id)
    if amount is not None:
        # Nobody here knew that it had been taken, or this database is older than its events.
        captured = PaymentCaptured(order_id=order_id, payment_id=payment_id, amount=amount)
        captured.fulfilment = ORDERS.fulfilment(tx, order_id)
        outbox.append_once(tx, captured)
    refunded = PaymentRefunded(order_id=order_id, payment_id=payment_id, amount=amount)
    ORDERS.publish(tx, outbox, refunded)


def find(tx: Tx, order_id: str) -> Payment | None:
    """The payment of an order."""
    row = tx.one("SELECT * FROM payment WHERE order_id = :order_id", {"order_id": order_id})
    if row is None:
        return None
    payment = Payment(
        payment_id=row["payment_id"],
        order_id=row["order_id"],
        state=PaymentState.Value(_PREFIX + row["state"]),
        decline_reason=row["decline_reason"],
        updated_at=timestamp(row["updated_at"]),
    )
    if row["currency_code"] is not None:
        payment.amount.minor_units = row["minor_units"]
        payment.amount.currency_code = row["currency_code"]
    return payment


def _payment_id(order_id: str) -> str:
    # Also the key outside: a restored database must find again what it had asked for.
    return derived(order_id, "payment")


def _insert(
    tx: Tx,
    order_id: str,
    state: str,
    now: float,
    fulfilment: "Fulfilment.ValueType",
    amount: Money | None = None,
    idempotency_key: str | None = None,
) -> bool:
    return tx.insert(
        "payment",
        {
            "payment_id": _payment_id(order_id),
            "order_id": order_id,
            "idempotency_key": idempotency_key,
            "minor_units": amount.minor_units if amount else None,
            "currency_code": amount.currency_code if amount else None,
            "state": state,
            "updated_at": now,
            "fulfilment": fulfilment,
        },
        on_conflict="DO NOTHING",
    )
