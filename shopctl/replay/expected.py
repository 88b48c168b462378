"""What the books must say once every order has ended."""

from collections.abc import Mapping
from dataclasses import dataclass

from shopctl.replay.plan import Fate


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
