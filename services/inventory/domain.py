"""The rules of stock: what may be reserved, and what is said when it may not."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

from accord.errors import Precondition
from shop.common.v1.money_pb2 import Money
from shop.inventory.v1.inventory_pb2 import Product, ReserveLine


class State(StrEnum):
    """Where a reservation stands; the value is its name in the database and in the contract."""

    RESERVED = "RESERVED"
    REJECTED = "REJECTED"
    """It was refused, for good; the contract tells of it by errors."""
    RELEASED = "RELEASED"
    COMMITTED = "COMMITTED"


_WORST_FIRST: Final = ("UNKNOWN_PRODUCT", "PRICE_CHANGED", "OUT_OF_STOCK")


def problems(lines: Sequence[ReserveLine], stock: Mapping[str, Product]) -> list[Precondition]:
    """What keeps `lines` from being reserved, worst first; empty when nothing does.

    A line has one problem at most: it is of no use to know the stock of a product at another price.
    """
    found = filter(None, (_problem(line, stock.get(line.sku)) for line in lines))
    return sorted(found, key=lambda problem: (_WORST_FIRST.index(problem.type), problem.subject))


def _problem(line: ReserveLine, product: Product | None) -> Precondition | None:
    if product is None:
        return Precondition("UNKNOWN_PRODUCT", line.sku, "is not sold here")
    if product.price != line.unit_price:
        text = f"costs {_in_words(product.price)}, not {_in_words(line.unit_price)}"
        return Precondition("PRICE_CHANGED", line.sku, text)
    if product.available < line.quantity:
        text = f"has {product.available} left, {line.quantity} are wanted"
        return Precondition("OUT_OF_STOCK", line.sku, text)
    return None


def _in_words(price: Money) -> str:
    return f"{price.minor_units} minor units of {price.currency_code}"
