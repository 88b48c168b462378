"""The rules of stock, without a database."""

from accord.errors import Precondition
from services.inventory.domain import problems
from shop.common.v1.money_pb2 import Money
from shop.inventory.v1.inventory_pb2 import Product
from tests.services.inventory.support import line, money

EUR_2 = money(200, "EUR")
EUR_3 = money(300, "EUR")


def _product(sku: str, price: Money, on_hand: int, reserved: int) -> Product:
    return Product(
        sku=sku, price=price, on_hand=on_hand, reserved=reserved, available=on_hand - reserved
    )


def _stock(*products: Product) -> dict[str, Product]:
    return {product.sku: product for product in products}


def test_no_problem() -> None:
    """Exactly what is available can be reserved."""
    product = _product("a", EUR_2, 5, 3)

    assert problems([line("a", 2, EUR_2)], _stock(product)) == []


def test_every_line_is_named_worst_first() -> None:
    """Each faulty line has one violation: unknown before price before stock, then by SKU."""
    lines = [
        line("b-low", 4, EUR_2),
        line("a-low", 9, EUR_2),
        line("ok", 1, EUR_2),
        line("dear", 1, EUR_2),
        line("none", 1, EUR_2),
    ]
    stock = _stock(
        _product("a-low", EUR_2, 5, 0),
        _product("b-low", EUR_2, 5, 3),
        _product("ok", EUR_2, 5, 0),
        _product("dear", EUR_3, 5, 0),
    )

    assert problems(lines, stock) == [
        Precondition("UNKNOWN_PRODUCT", "none", "is not sold here"),
        Precondition(
            "PRICE_CHANGED", "dear", "costs 300 minor units of EUR, not 200 minor units of EUR"
        ),
        Precondition("OUT_OF_STOCK", "a-low", "has 5 left, 9 are wanted"),
        Precondition("OUT_OF_STOCK", "b-low", "has 2 left, 4 are wanted"),
    ]


def test_price_before_stock_on_one_line() -> None:
    """A line with two faults is told the one that makes the other pointless."""
    product = _product("a", EUR_3, 0, 0)

    found = problems([line("a", 1, EUR_2)], _stock(product))

    assert [problem.type for problem in found] == ["PRICE_CHANGED"]


def test_currency_is_part_of_the_price() -> None:
    """The same number in another currency is another price."""
    product = _product("a", money(200, "USD"), 9, 0)

    found = problems([line("a", 1, EUR_2)], _stock(product))

    assert [problem.type for problem in found] == ["PRICE_CHANGED"]
