"""Histories of orders, of every kind, and what they must add up to."""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Final

from google.protobuf.message import Message

from accord_runtime.events.inbox import Received
from accord_runtime.grpc.ids import uuid7
from shop.common.v1.money_pb2 import Money
from shop.orders.v1 import events_pb2 as events
from shop.orders.v1.orders_pb2 import OrderItem
from tests.support.shop import address

HOUR: Final = 3600.0
NOON: Final = 1_800_000_000.0

WAYS: Final[Mapping[str, Sequence[type[Message]]]] = {
    "CONFIRMED": (
        *(events.OrderCreated, events.OrderPaid, events.OrderShippingStarted),
        *(events.OrderShipped, events.OrderNoteAdded, events.OrderConfirmed),
    ),
    "REJECTED": (events.OrderRejected,),
    "FAILED": (events.OrderCreated, events.OrderPaid, events.OrderUndoing, events.OrderFailed),
    "CANCELLED": (events.OrderCreated, events.OrderUndoing, events.OrderCancelled),
    "PAID": (events.OrderCreated, events.OrderPaid),
}
"""Status -> the events that lead there, behind OrderPlaced."""


def placed(order_id: str, price: int = 499, currency: str = "EUR", **items: int) -> Message:
    """An order is placed: SKU -> units."""
    money = Money(minor_units=price, currency_code=currency)
    return events.OrderPlaced(
        order_id=order_id,
        items=[OrderItem(sku=sku, quantity=n, unit_price=money) for sku, n in items.items()],
        total=Money(minor_units=min(price * sum(items.values()), 10**17), currency_code=currency),
        ship_to=address(),
    )


def history(way: str, order_id: str, first: Message) -> list[Message]:
    """The events of an order."""
    return [first, *(kind(order_id=order_id) for kind in WAYS[way])]


def some(random: Random, orders: int) -> list[list[Received[Message]]]:
    """Orders that take any way, at any time, in two currencies."""
    found = []
    for way in itertools.islice(itertools.cycle(WAYS), orders):
        order_id, at = uuid7(), NOON + random.randrange(50) * HOUR
        currency = random.choice(["EUR", "USD"])
        items = {sku: random.randint(1, 3) for sku in random.sample(["tea", "pot", "cup"], 2)}
        messages = history(way, order_id, placed(order_id, 100, currency, **items))
        found.append(
            [
                Received(uuid7(), order_id, number, message, at)
                for number, message in enumerate(messages, start=1)
            ]
        )
    return found


def mixed(random: Random, *queues: Sequence[Received[Message]]) -> Iterator[Received[Message]]:
    """All events in any order that respects every key."""
    waiting = [list(queue) for queue in queues]
    while waiting:
        queue = random.choice(waiting)
        yield queue.pop(0)
        waiting = [each for each in waiting if each]


def by_status(orders: Sequence[Sequence[Received[Message]]]) -> Counter[tuple[str, str]]:
    """(Status, currency) -> how many orders of all are there."""
    ways = {tuple(kinds): way for way, kinds in WAYS.items()}
    return Counter(
        (
            ways[tuple(type(each.payload) for each in events[1:])],
            events[0].payload.total.currency_code,  # type: ignore[attr-defined]
        )
        for events in orders
    )
