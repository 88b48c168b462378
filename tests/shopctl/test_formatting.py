"""How money, addresses and items are written and read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.common.v1.money_pb2 import Money
from shopctl import formatting
from shopctl.errors import CommandError, ExitCode


@pytest.mark.parametrize(
    ("text", "sku", "quantity", "price"),
    [("tea", "tea", 1, None), ("tea:2", "tea", 2, None), ("tea:2:4.50", "tea", 2, "4.50")],
)
def test_items(text: str, sku: str, quantity: int, price: str | None) -> None:
    """Quantity and price may be left out."""
    assert formatting.parse_item(text) == formatting.WantedItem(sku, quantity, price)


@pytest.mark.parametrize("text", ["", ":2", "tea:0", "tea:-1", "tea:two", "tea:1:2:3", "tea:"])
def test_items_that_make_no_sense(text: str) -> None:
    """Anything else is a usage error that shows the form."""
    with pytest.raises(CommandError, match="SKU:QTY") as caught:
        formatting.parse_item(text)
    assert caught.value.code is ExitCode.USAGE


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [
        ("19.99", "EUR", 1999),
        ("19.9", "EUR", 1990),
        ("19", "EUR", 1900),
        ("19", "JPY", 19),
        ("1.234", "KWD", 1234),
        ("1e2", "EUR", 10000),
    ],
)
def test_money(text: str, currency: str, minor: int) -> None:
    """Amounts are exact, with the decimals of their currency."""
    assert formatting.parse_money(text, currency) == Money(
        minor_units=minor, currency_code=currency
    )


@pytest.mark.parametrize(
    ("text", "currency"),
    [
        ("", "EUR"),
        ("x", "EUR"),
        ("0", "EUR"),
        ("-1", "EUR"),
        ("NaN", "EUR"),
        ("Infinity", "EUR"),
        ("1.999", "EUR"),
        ("1.5", "JPY"),
    ],
)
def test_money_that_makes_no_sense(text: str, currency: str) -> None:
    """Nothing is rounded and nothing is guessed."""
    with pytest.raises(CommandError, match="not a price"):
        formatting.parse_money(text, currency)


@given(st.integers(1, 10**11), st.sampled_from(["EUR", "JPY", "KWD"]))
def test_money_round_trip(minor: int, currency: str) -> None:
    """What is shown can be read again."""
    amount = Money(minor_units=minor, currency_code=currency)
    text, _, code = formatting.format_money(amount).partition(" ")
    assert formatting.parse_money(text, code) == amount


def test_address() -> None:
    """All of an address or none of it."""
    nothing = {"name": "Ada", "street": "", "city": "", "postal_code": "", "country": ""}
    assert formatting.build_address(**nothing) is None
    with pytest.raises(CommandError, match="needs --street and --country"):
        formatting.build_address(**{**nothing, "city": "Berlin"})
    built = formatting.build_address(
        **{**nothing, "street": "Weg 1", "city": "Berlin", "postal_code": "1", "country": "de"}
    )
    assert built is not None
    assert formatting.format_address(built) == "Ada, Weg 1, 1 Berlin, DE"
