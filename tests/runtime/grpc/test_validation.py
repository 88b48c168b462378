"""The rules of the contracts, and how their violations are told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord_runtime.grpc import validation
from accord_runtime.grpc.ids import uuid7
from accord_runtime.grpc.validation import MAX_VIOLATIONS, violations
from shop.common.v1.address_pb2 import Address
from shop.common.v1.money_pb2 import Money
from shop.inventory.v1.inventory_pb2 import ReserveStockRequest
from shop.orders.v1.orders_pb2 import CreateOrderRequest, OrderItem


def order(*items: OrderItem) -> CreateOrderRequest:
    """A request of which everything but the items is right."""
    return CreateOrderRequest(
        customer_id=uuid7(),
        items=items,
        card_token="tok_visa",
        ship_to=Address(name="Ada", line1="Main Street 1", city="Town", country_code="DE"),
    )


def item(sku: str, quantity: int = 1, currency: str = "EUR") -> OrderItem:
    price = Money(minor_units=100, currency_code=currency)
    return OrderItem(sku=sku, quantity=quantity, unit_price=price)


def fields(message: CreateOrderRequest) -> list[str]:
    return sorted(violation.field for violation in violations(message))


def test_a_good_request_passes() -> None:
    """Nothing is said about a request that keeps all rules."""
    assert violations(order(item("a"), item("b"))) == []


@pytest.mark.parametrize("place", [0, 3, 99])
def test_a_path_names_the_item_and_the_field(place: int) -> None:
    """Violations inside of lists and messages are told as google.rpc.BadRequest writes paths."""
    items = [item(f"a{n}", quantity=0 if n == place else 1) for n in range(100)]
    assert fields(order(*items)) == [f"items[{place}].quantity"]
    items[place] = item(f"a{place}", currency="euro")
    assert f"items[{place}].unit_price.currency_code" in fields(order(*items))


def test_a_path_names_a_field_and_one_inside_a_message() -> None:
    """Top level fields, fields of messages and missing messages each have their path."""
    bad = order(item("a"))
    bad.customer_id = "nobody"
    bad.ship_to.country_code = "Germany"
    assert fields(bad) == ["customer_id", "ship_to.country_code"]
    bad = order(item("a"))
    bad.ClearField("ship_to")
    assert fields(bad) == ["ship_to"]


def test_rules_over_several_fields_are_told() -> None:
    """A rule over a list is told with its message and the list's name."""
    [found] = violations(order(item("a"), item("a")))
    assert (found.field, found.description) == ("items", "must contain each SKU once")


def test_a_list_that_is_too_long_is_refused_at_once() -> None:
    """Only its length is told, however wrong each of its items is."""
    [found] = violations(order(*(item("", quantity=0) for _ in range(101))))
    assert found.field == "items"
    assert "100" in found.description


def test_only_so_many_violations_are_told() -> None:
    """What would not fit an answer's trailers is left out."""
    found = violations(order(*(item(f"a{n}", quantity=0) for n in range(100))))
    assert len(found) == MAX_VIOLATIONS


@given(data=st.binary(max_size=200))
def test_whatever_can_be_parsed_can_be_checked(data: bytes) -> None:
    """No request makes the rules themselves fail."""
    for message in (CreateOrderRequest(), ReserveStockRequest()):
        try:
            message.ParseFromString(data)
        except Exception:
            continue
        for found in violations(message):
            assert found.description


def test_rules_can_be_compiled_before_the_first_call() -> None:
    """Warming raises nothing for a request whose empty form breaks rules, or that has none."""
    validation.warm(["shop.orders.v1.OrderService"])
