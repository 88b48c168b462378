"""What the order commands make of their arguments; no service is needed for these."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.common.v1.money_pb2 import Money
from shop.orders.v1.orders_pb2 import Order, OrderStatus
from shopctl import address, hints, items, money, ordering
from shopctl.errors import CommandError
from shopctl.exit_codes import ExitCode
from shopctl.order import Status


@pytest.mark.parametrize(
    ("text", "sku", "quantity", "price"),
    [("tea", "tea", 1, None), ("tea:2", "tea", 2, None), ("tea:2:4.50", "tea", 2, "4.50")],
)
def test_items(text: str, sku: str, quantity: int, price: str | None) -> None:
    """Quantity and price may be left out."""
    assert items.parse(text) == items.WantedItem(sku, quantity, price)


@pytest.mark.parametrize("text", ["", ":2", "tea:0", "tea:-1", "tea:two", "tea:1:2:3", "tea:"])
def test_items_that_make_no_sense(text: str) -> None:
    """Anything else is a usage error that shows the form."""
    with pytest.raises(CommandError, match="SKU:QTY") as caught:
        items.parse(text)
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
    assert money.parse(text, currency) == Money(minor_units=minor, currency_code=currency)


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
        money.parse(text, currency)


@given(st.integers(1, 10**11), st.sampled_from(["EUR", "JPY", "KWD"]))
def test_money_round_trip(minor: int, currency: str) -> None:
    """What is shown can be read again."""
    amount = Money(minor_units=minor, currency_code=currency)
    text, _, code = money.show(amount).partition(" ")
    assert money.parse(text, code) == amount


def test_address() -> None:
    """All of an address or none of it."""
    nothing = {"name": "Ada", "street": "", "city": "", "postal_code": "", "country": ""}
    assert address.build(**nothing) is None
    with pytest.raises(CommandError, match="needs --street and --country"):
        address.build(**{**nothing, "city": "Berlin"})
    built = address.build(
        **{**nothing, "street": "Weg 1", "city": "Berlin", "postal_code": "1", "country": "de"}
    )
    assert built is not None
    assert address.show(built) == "Ada, Weg 1, 1 Berlin, DE"


def test_every_status_of_the_contract_can_be_asked_for() -> None:
    """`order list --status` knows the states of the contract, all of them and no other."""
    known = {
        name.removeprefix("ORDER_STATUS_").lower() for name in OrderStatus.DESCRIPTOR.values_by_name
    }
    assert {status.value for status in Status} == known - {"unspecified"}


def test_outcome() -> None:
    """An order that ended badly ends the command with 5; one that stands does not."""
    ordering.check_outcome(Order(status=OrderStatus.ORDER_STATUS_CONFIRMED))
    ordering.check_outcome(Order(status=OrderStatus.ORDER_STATUS_CREATED))
    for status in ordering.ENDED_BADLY:
        with pytest.raises(CommandError) as caught:
            ordering.check_outcome(Order(order_id="o", status=status))
        assert caught.value.code is ExitCode.REFUSED


def test_a_status_of_a_newer_version_is_shown() -> None:
    """A number that this version does not know is printed, not refused."""
    order = Order.FromString(b"\x18\x63")  # field 3, value 99
    assert ordering.status_name(order.status) == "99"


def test_hints_use_the_right_ports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The commands name the ports of this shop, and its folder unless it is the usual one."""
    monkeypatch.chdir(tmp_path)
    assert "MESH_HOME" not in hints.text(tmp_path / ".mesh", 0)
    text = hints.text(tmp_path / "other place", 100)
    assert f"export MESH_HOME='{tmp_path}/other place'" in text
    assert "127.0.0.1:50151" in text
    assert "127.0.0.1:50051" not in text
    assert "-m services" not in text
    assert "-m services.orders" in hints.text(tmp_path, 0, ["orders", "broker"])
