"""Conditions: what they may say, and what they cost."""

import time

import pytest

from services.notifications.webhooks.conditions import EVENTS, holds, problem
from shop.common.v1.money_pb2 import Money
from shop.orders.v1 import events_pb2, orders_pb2
from tests.services.notifications.webhooks.bench import CONFIRMED, confirmed

CREATED = "shop.orders.v1.OrderCreated"


@pytest.mark.parametrize(
    ("condition", "what"),
    [
        ("event.total", "gives no boolean but shop.common.v1.Money"),
        ("dyn(event.order_id)", "gives no boolean but DYN"),
        ("event.nothing == 1", "undefined field 'nothing'"),
        ("event.total.minor_units == '1'", "no matching overload"),
        ("1 +", "Syntax error"),
        ("x == 1", "undeclared reference to 'x'"),
        ("(" * 40 + "true" + ")" * 40, "recursion limit exceeded"),
        (
            "event.items.all(a, event.items.all(b, event.items.all(c, true)))",
            "may have 2 loops (all, exists, exists_one, map, filter)",
        ),
        (
            "event.items.all(a, a.sku.matches(a.sku))",
            "may have loops or regular expressions, not both",
        ),
    ],
)
def test_refused(condition: str, what: str) -> None:
    """A condition that is wrong, or might cost too much, is refused, and why is said."""
    assert what in problem(condition, CREATED)


def test_of_another_event() -> None:
    """A condition is checked against each event: not all have the same fields."""
    condition = "event.tracking_number != ''"
    assert problem(condition, CONFIRMED) == ""
    assert f"does not compile for {CREATED}" in problem(condition, CREATED)


def test_holds() -> None:
    """A condition holds or not; one that cannot be evaluated does not, and none always does."""
    event = confirmed(cents=1999)
    assert holds("", event)
    assert holds("event.total.minor_units == 1999 && event.tracking_number.matches('^TR')", event)
    assert not holds("event.total.minor_units > 1999", event)
    assert not holds("1 / (event.total.minor_units - 1999) == 1", event)
    assert not holds("dyn(event).nothing == 1", event)


@pytest.mark.parametrize("items", [95, 100])
def test_the_costliest(items: int) -> None:
    """Loops within loops over the largest order end, by themselves or by the library's bound."""
    event = events_pb2.OrderCreated(
        order_id="x",
        items=[
            orders_pb2.OrderItem(
                sku="x" * 64, quantity=1, unit_price=Money(minor_units=1, currency_code="EUR")
            )
            for _ in range(items)
        ],
    )
    inner = " && ".join(["a.sku + b.sku == b.sku + a.sku"] * 12)
    condition = f"event.items.all(a, event.items.all(b, {inner}))"
    assert len(condition) <= 500
    assert problem(condition, CREATED) == ""
    began = time.process_time()
    assert holds(condition, event) == (items == 95)
    assert time.process_time() - began < 5


def test_events() -> None:
    """Outsiders are told of the outcomes of an order and of the steps to it, by known events."""
    assert {CONFIRMED, CREATED} < set(EVENTS)
    assert "shop.orders.v1.OrderNoteAdded" not in EVENTS
