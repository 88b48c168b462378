"""What a payment is and where it may go.

    PENDING   -> CAPTURED, DECLINED, REFUNDING; REFUNDED if the processor says that it was reversed
    CAPTURED  -> REFUNDING
    REFUNDING -> REFUNDED

A refund that comes first leaves a REFUNDED payment without an amount, which no charge gets past.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Protocol

from shop.common.v1.money_pb2 import Money


class PaymentState(StrEnum):
    """Where a payment stands."""

    PENDING = "PENDING"
    CAPTURED = "CAPTURED"
    DECLINED = "DECLINED"
    REFUNDING = "REFUNDING"
    REFUNDED = "REFUNDED"


@dataclass(frozen=True, slots=True)
class Payment:
    """The payment of an order. Its id is the key under which the processor is asked."""

    payment_id: str
    order_id: str
    amount: Money | None
    """None if the order was refunded before anybody asked for money."""
    state: PaymentState
    decline_reason: str
    updated_at: float
    """Unix seconds."""


class Refusal(Enum):
    """Why an order is not charged: reason and explanation."""

    CARD_DECLINED = "the card was declined"
    PAYMENT_REFUNDED = "the order was refunded before"
    AMOUNT_CHANGED = "the order is being charged with another amount"


def refusal(payment: Payment, amount: Money) -> Refusal | None:
    """Why a payment, as it is now, refuses a charge of `amount`; None if it does not."""
    if payment.state in (PaymentState.REFUNDING, PaymentState.REFUNDED):
        return Refusal.PAYMENT_REFUNDED
    if payment.amount != amount:
        return Refusal.AMOUNT_CHANGED
    if payment.state is PaymentState.DECLINED:
        return Refusal.CARD_DECLINED
    return None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the processor made of a capture: the state that a PENDING payment gets.

    CAPTURED; DECLINED with a reason; REFUNDED when the key had been reversed.
    """

    state: PaymentState
    decline_reason: str = ""


class CardProcessor(Protocol):
    """Whoever moves the money. Both methods may be repeated with a key without doing more."""

    async def capture(self, key: str, reference: str, amount: Money, card_token: str) -> Outcome:
        """Take money from a card.

        Raises:
            Exception: the outcome is not known; ask again with the same key.
        """

    async def reverse(self, key: str, reference: str) -> None:
        """Give back what was taken under a key, and let nothing be taken under it any more.

        Raises:
            Exception: the outcome is not known; ask again with the same key.
        """
