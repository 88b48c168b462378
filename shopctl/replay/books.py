"""What the services and the outside world say, once every order has ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shop.orders.v1.orders_pb2 import FailureReason, OrderStatus


@dataclass(frozen=True, slots=True)
class OrderBooks:
    """One order, in every book. Money is in US cents.

    Attributes:
        order_id: as the shop calls it.
        status: where it ended.
        reason: why it did not end well.
        total: price of all its lines.
        captured: money that payments says it holds.
        settled: whether payments has no answer outstanding.
        captures: how often the card processor took money.
        processor: money that the card processor holds: captures less reversals.
        shipped: units that shipping says travel.
        bookings: how often the carrier took a parcel.
        carrier: units that the carrier has: booked less cancelled.
        mails: mails that were written about it.
        mails_sent: those that the mail server took.
        misnumbered: updates that came twice, or after a gap.
    """

    order_id: str
    status: OrderStatus.ValueType
    reason: FailureReason.ValueType
    total: int
    captured: int
    settled: bool
    captures: int
    processor: int
    shipped: int
    bookings: int
    carrier: int
    mails: int
    mails_sent: int
    misnumbered: int


@dataclass(frozen=True, slots=True)
class Stock:
    """Units of one product."""

    on_hand: int
    reserved: int


@dataclass(frozen=True, slots=True)
class Books:
    """All books.

    Attributes:
        orders: number in the replay -> order.
        stock: SKU -> units.
        strays: orders on record for our customers that nobody was told of.
    """

    orders: Mapping[int, OrderBooks]
    stock: Mapping[str, Stock]
    strays: Sequence[str]
