"""The rules of stock: what may be reserved, and what is said when it may not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from accord.errors import Precondition
from shop.common.v1.money_pb2 import Money
from shop.inventory.v1.inventory_pb2 import Product


@dataclass(frozen=True, slots=True)
class Price:
    """Price of one unit, in the smallest unit of its currency."""

    minor_units: int
    currency_code: str

    @classmethod
    def of(cls, money: Money) -> "Price":
        """The price that a message says."""
        return cls(money.minor_units, money.currency_code)

    def __str__(self) -> str:
        return f"{self.minor_units} minor units of {self.currency_code}"


@dataclass(frozen=True, slots=True, order=True)
class Line:
    """One line of a reservation; `price` is what the customer was shown."""

    sku: str
    quantity: int
    price: Price


class State(StrEnum):
    """Where a reservation stands; the value is its name in the database and in the contract."""

    RESERVED = "RESERVED"
    RELEASED = "RELEASED"
    COMMITTED = "COMMITTED"


_WORST_FIRST: Final = ("UNKNOWN_PRODUCT", "PRICE_CHANGED", "OUT_OF_STOCK")


def problems(lines: Sequence[Line], stock: Mapping[str, Product]) -> list[Precondition]:
    """What keeps `lines` from being reserved, worst first; empty when nothing does.

    A line has one problem at most: it is of no use to know the stock of a product at another price.
    """
    found = filter(None, (_problem(line, stock.get(line.sku)) for line in lines))
    return sorted(found, key=lambda problem: (_WORST_FIRST.index(problem.type), problem.subject))


def _problem(line: Line, product: Product | None) -> Precondition | None:
    if product is None:
        return Precondition("UNKNOWN_PRODUCT", line.sku, "is not sold here")
    price = Price.of(product.price)
    if price != line.price:
        text = f"costs {price}, not {line.price}"
        return Precondition("PRICE_CHANGED", line.sku, text)
    if product.available < line.quantity:
        text = f"has {product.available} left, {line.quantity} are wanted"
        return Precondition("OUT_OF_STOCK", line.sku, text)
    return None
