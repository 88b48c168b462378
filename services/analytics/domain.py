"""What an order counts for, and in which metrics. Pure."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from google.protobuf.message import Message

from shop.orders.v1 import events_pb2 as events

STAGES: Final[Mapping[type[Message], str]] = {
    events.OrderPlaced: "placed",
    events.OrderCreated: "created",
    events.OrderPaid: "paid",
    events.OrderShipped: "shipped",
    events.OrderConfirmed: "confirmed",
    events.OrderRejected: "rejected",
    events.OrderFailed: "failed",
    events.OrderCancelled: "cancelled",
}
"""Event -> how far the order has come by it, whatever happens later."""

STATUS: Final[Mapping[type[Message], str]] = {
    **{event: stage.upper() for event, stage in STAGES.items()},
    events.OrderPlaced: "PENDING",
    events.OrderShippingStarted: "SHIPPING",
    events.OrderUndoing: "UNDOING",
}
"""Event -> where the order stands after it."""

COLUMNS: Final = (*STAGES.values(), "units", "ordered", "revenue")
"""The numbers of a metric. `ordered` is the price of orders that got their stock: that of others
is whatever their customers wrote."""

Cell = tuple[str, str, str, str]
"""Hour of placing, dimension, value, currency: where numbers are added up."""


@dataclass(frozen=True, slots=True)
class Sale:
    """What analytics knows of an order."""

    hour: str
    """When it was placed, UTC: "2026-11-29T20"."""
    country: str
    currency: str
    items: tuple[tuple[str, int, int], ...]
    """SKU, units, price of all of them."""
    stages: tuple[str, ...]
    status: str


def hour(seconds: float) -> str:
    """The hour of a time, Unix seconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H")


def after(sale: Sale | None, event: Any, occurred_at: float) -> Sale | None:
    """What an order is after an event; None of an order that is not known to have been placed."""
    kind = type(event)
    if sale is None and isinstance(event, events.OrderPlaced):
        items = ((i.sku, i.quantity, i.unit_price.minor_units * i.quantity) for i in event.items)
        country = event.ship_to.country_code or "-"
        currency = event.total.currency_code
        sale = Sale(hour(occurred_at), country, currency, tuple(items), (), "")
    if sale is None:
        return None
    stages = {*sale.stages, *([STAGES[kind]] if kind in STAGES else [])}
    return replace(sale, stages=tuple(sorted(stages)), status=STATUS[kind])


def cells(sale: Sale | None) -> Counter[tuple[Cell, str]]:
    """What an order adds to which numbers: (cell, column) -> number."""
    found = Counter[tuple[Cell, str]]()
    if sale is None:
        return found

    def add(dimension: str, value: str, units: int, price: int) -> None:
        cell = (sale.hour, dimension, value, sale.currency)
        numbers = dict.fromkeys(sale.stages, 1)
        if "created" in sale.stages:
            numbers |= {"units": units, "ordered": price}
        if "confirmed" in sale.stages:
            numbers["revenue"] = price
        found.update({(cell, column): number for column, number in numbers.items()})

    units, total = sum(item[1] for item in sale.items), sum(item[2] for item in sale.items)
    for dimension, value in (("TIME", ""), ("COUNTRY", sale.country), ("STATUS", sale.status)):
        add(dimension, value, units, total)
    for sku, quantity, price in sale.items:
        add("PRODUCT", sku, quantity, price)
    return found
