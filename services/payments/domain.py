"""Where a payment may go, and what it refuses. It is kept as its callers see it.

    unknown   -> PENDING, REFUNDING
    PENDING   -> CAPTURED, DECLINED, REFUNDING; REFUNDED if the processor says that it was reversed
    CAPTURED  -> REFUNDING
    REFUNDING -> REFUNDED

A refund of what is not known here - it comes first, or the charge was lost with a restored
database - is asked for like any other, under the id that follows from the order. It leaves a
payment without an amount, which no charge gets past.
"""

from dataclasses import dataclass
from typing import Protocol

from accord.errors import FailedPrecondition
from shop.common.v1.money_pb2 import Money
from shop.payments.v1 import payments_pb2 as pb


def refusal(payment: pb.Payment, amount: Money) -> FailedPrecondition | None:
    """Why a payment, as it is now, refuses a charge of `amount`; None if it does not."""
    if payment.state in (pb.PAYMENT_STATE_REFUNDING, pb.PAYMENT_STATE_REFUNDED):
        return FailedPrecondition("PAYMENT_REFUNDED", "the order was refunded before")
    if payment.amount != amount:
        text = "the order is being charged with another amount"
        return FailedPrecondition("AMOUNT_CHANGED", text)
    if payment.state == pb.PAYMENT_STATE_DECLINED:
        text = f"the card was declined: {payment.decline_reason}"
        return FailedPrecondition("CARD_DECLINED", text)
    return None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the processor made of a capture: the state that a PENDING payment gets.

    CAPTURED; DECLINED with a reason; REFUNDED when the key had been reversed.
    """

    state: "pb.PaymentState.ValueType"
    decline_reason: str = ""


class CardProcessor(Protocol):
    """Whoever moves the money. Both methods may be repeated with a key without doing more."""

    async def capture(self, key: str, reference: str, amount: Money, card_token: str) -> Outcome:
        """Take money from a card.

        Raises:
            Exception: the outcome is not known; ask again with the same key.
        """

    async def reverse(self, key: str, reference: str) -> Money | None:
        """Give back what was taken under a key, and let nothing be taken under it any more.

        Returns what was given back, now or before; None when nothing had been taken.

        Raises:
            Exception: the outcome is not known; ask again with the same key.
        """
