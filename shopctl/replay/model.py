"""What a replay does, what the books must say then, and what they say: data only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from shop.customers.v1.customers_pb2 import CreateCustomerRequest
from shop.inventory.v1.inventory_pb2 import UpsertProductRequest
from shop.orders.v1.orders_pb2 import FailureReason, OrderItem, OrderStatus


class Fate(StrEnum):
    """How an order is meant to end."""

    GOOD = "good"
    """It is confirmed."""
    DECLINED = "declined"
    """Its card is declined, and the order fails."""
    SHORT = "short"
    """One of its products is short, and the order is rejected."""


@dataclass(frozen=True, slots=True)
class PlannedOrder:
    """An order to be placed.

    Attributes:
        number: place in the replay, from 1.
        custkey: who orders: key in TPC-H.
        fate: how it is meant to end.
        lines: what is ordered, each SKU once.
    """

    number: int
    custkey: int
    fate: Fate
    lines: Sequence[OrderItem]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a replay does.

    Attributes:
        run: part of every SKU, e-mail address and idempotency key, so that a shop with a past
            can be used again.
        buyers: customer key -> who; the e-mail address is unique to the run.
        products: what is stocked, ordered by SKU. All prices are in US cents.
        orders: in the order in which they are placed.
    """

    run: str
    buyers: Mapping[int, CreateCustomerRequest]
    products: Sequence[UpsertProductRequest]
    orders: Sequence[PlannedOrder]


@dataclass(frozen=True, slots=True)
class ExpectedOrder:
    """One order.

    Attributes:
        fate: how it ends.
        total: price of all its lines, in US cents.
        captured: money that stays taken, in US cents: the total, or 0.
        shipped: units that travel: all of them, or 0.
    """

    fate: Fate
    total: int
    captured: int
    shipped: int


@dataclass(frozen=True, slots=True)
class Expected:
    """All of it, as SQL over the source tables says.

    Attributes:
        orders: number in the replay -> order.
        ending: fate -> how many orders.
        total: price of all orders, in US cents.
        captured: sum over the orders that end well, in US cents.
        shipped: sum over the orders that end well, in units.
        remaining: SKU -> units left in the warehouse.
    """

    orders: Mapping[int, ExpectedOrder]
    ending: Mapping[Fate, int]
    total: int
    captured: int
    shipped: int
    remaining: Mapping[str, int]


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
        receivable: money that the ledger says the card processor holds.
        deposits: money that the ledger says is owed to the customer.
        income: money that the ledger says was earned, less what was given back of it.
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
    receivable: int
    deposits: int
    income: int
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
        unbalanced: debits less credits of the whole ledger, summed up over currencies.
    """

    orders: Mapping[int, OrderBooks]
    stock: Mapping[str, Stock]
    strays: Sequence[str]
    unbalanced: int = 0
