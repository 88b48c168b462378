"""What a replay will do: data only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Fate(StrEnum):
    """How an order is meant to end."""

    GOOD = "good"
    """It is confirmed."""
    DECLINED = "declined"
    """Its card is declined, and the order fails."""
    SHORT = "short"
    """One of its products is short, and the order is rejected."""


@dataclass(frozen=True, slots=True)
class Buyer:
    """A customer to be created.

    Attributes:
        custkey: key in TPC-H.
        name: full name.
        email: unique to the run.
        street: first line of the address.
        nation: in TPC-H's spelling, e.g. "SAUDI ARABIA".
    """

    custkey: int
    name: str
    email: str
    street: str
    nation: str


@dataclass(frozen=True, slots=True)
class Ware:
    """A product to be stocked. `price` is in US cents, `on_hand` in units."""

    sku: str
    name: str
    price: int
    on_hand: int


@dataclass(frozen=True, slots=True)
class Line:
    """A line of an order: so many units at so many US cents each."""

    sku: str
    quantity: int
    price: int


@dataclass(frozen=True, slots=True)
class PlannedOrder:
    """An order to be placed.

    Attributes:
        number: place in the replay, from 1.
        orderkey: key in TPC-H.
        custkey: who orders.
        fate: how it is meant to end.
        lines: what is ordered, each SKU once.
    """

    number: int
    orderkey: int
    custkey: int
    fate: Fate
    lines: Sequence[Line]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a replay does.

    Attributes:
        run: part of every SKU, e-mail address and idempotency key, so that a shop with a past
            can be used again.
        buyers: customer key -> who.
        wares: products, ordered by SKU.
        orders: in the order in which they are placed.
    """

    run: str
    buyers: Mapping[int, Buyer]
    wares: Sequence[Ware]
    orders: Sequence[PlannedOrder]
