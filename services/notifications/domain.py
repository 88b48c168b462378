"""What a customer is told when an order has ended."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from shop.orders.v1 import events_pb2, orders_pb2

_REASONS: Final[Mapping[int, str]] = {
    orders_pb2.FAILURE_REASON_OUT_OF_STOCK: "there is too little stock",
    orders_pb2.FAILURE_REASON_UNKNOWN_PRODUCT: "a product is not sold here",
    orders_pb2.FAILURE_REASON_PRICE_CHANGED: "a price has changed",
    orders_pb2.FAILURE_REASON_CARD_DECLINED: "the card was declined",
    orders_pb2.FAILURE_REASON_NO_CARRIER: "no carrier delivers to the address",
    orders_pb2.FAILURE_REASON_CANCELLED: "it was cancelled",
}

_REFUND: Final = "If your card was charged, the money is on its way back to you."

_DIGITS: Final = {
    **dict.fromkeys(("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF"), 0),
    **dict.fromkeys(("UGX", "VND", "VUV", "XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}
"""Currencies whose minor unit is not a hundredth: ISO 4217, list one, "minor unit"."""


@dataclass(frozen=True, slots=True)
class News:
    """The outcome of an order, before it is known whom to tell."""

    order_id: str
    customer_id: str
    outcome: str
    """CONFIRMED, REJECTED, FAILED or CANCELLED: a customer gets one mail for each."""
    subject: str
    text: str
    event_id: str = ""
    """The event that says so; empty in work of a version that did not note it."""

    def body(self, name: str) -> str:
        """The text of the mail to a customer of this name."""
        return f"Hello {one_line(name)},\n\n{self.text}\n\nYour shop\n"


def confirmed(event: events_pb2.OrderConfirmed) -> News:
    """What to say of an order that was paid and shipped."""
    facts = [f"Paid: {format_amount(event.total.minor_units, event.total.currency_code)}"]
    if event.tracking_number:  # An order that an operator shipped by hand has none.
        facts.append(f"Tracking number: {one_line(event.tracking_number)}")
    return News(
        order_id=event.order_id,
        customer_id=event.customer_id,
        outcome="CONFIRMED",
        subject=f"Your order {event.order_id} is on its way",
        text="\n".join([f"Thank you! Your order {event.order_id} is on its way.\n", *facts]),
    )


def rejected(event: events_pb2.OrderRejected) -> News:
    """What to say of an order whose stock could not be reserved."""
    return News(
        order_id=event.order_id,
        customer_id=event.customer_id,
        outcome="REJECTED",
        subject=f"We could not take your order {event.order_id}",
        text=f"We are sorry: we could not take your order {event.order_id}.\n\n"
        f"Reason: {_reason(event.failure)}\n\n"
        "Your card was not charged.",
    )


def failed(event: events_pb2.OrderFailed) -> News:
    """What to say of an order that could not be paid or shipped."""
    return News(
        order_id=event.order_id,
        customer_id=event.customer_id,
        outcome="FAILED",
        subject=f"We could not complete your order {event.order_id}",
        text=f"We are sorry: we could not complete your order {event.order_id}.\n\n"
        f"Reason: {_reason(event.failure)}\n\n{_REFUND}",
    )


def cancelled(event: events_pb2.OrderCancelled) -> News:
    """What to say of an order that was cancelled."""
    return News(
        order_id=event.order_id,
        customer_id=event.customer_id,
        outcome="CANCELLED",
        subject=f"Your order {event.order_id} is cancelled",
        text=f"Your order {event.order_id} is cancelled.\n\n"
        f"Reason: {_reason(event.failure)}\n\n{_REFUND}",
    )


def format_amount(minor_units: int, currency_code: str) -> str:
    """`format_amount(1999, "EUR")` is `"19.99 EUR"`, `format_amount(1999, "JPY")` `"1999 JPY"`."""
    digits = _DIGITS.get(currency_code, 2)
    if digits == 0:
        return f"{minor_units} {currency_code}"
    whole, part = divmod(minor_units, 10**digits)
    return f"{whole}.{part:0{digits}} {currency_code}"


def one_line(text: str) -> str:
    """The text without line breaks and other characters that cannot be seen."""
    return "".join(char for char in " ".join(text.split()) if char.isprintable())


def _reason(failure: orders_pb2.Failure) -> str:
    reason = _REASONS.get(failure.reason, "something went wrong on our side")
    detail = one_line(failure.detail)
    return f"{reason} ({detail})" if detail else reason
