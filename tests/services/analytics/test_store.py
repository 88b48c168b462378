"""The view of sales on each database: whatever comes twice, late or while it is rebuilt."""

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from accord_runtime import views
from accord_runtime.database import Database, Tx
from accord_runtime.database.migrations import migrate
from accord_runtime.events.inbox import Received
from accord_runtime.views import Change
from accord_runtime.views import store as generations
from services.analytics import store
from services.analytics.store import SALES
from shop.analytics.v1 import analytics_pb2 as pb
from tests.services.analytics.histories import by_status, mixed, some

Events = Sequence[Received[Any]]


@pytest.fixture
async def view(database: Database) -> Database:
    """A database with the view, of which no generation has been built."""
    await migrate(database, "analytics", [*views.MIGRATIONS, *store.MIGRATIONS])
    await database.write(lambda tx: generations.begin(tx, SALES.name, 0.0))
    await database.write(lambda tx: generations.give_up(tx, SALES.name, ""))
    return database


def take(tx: Tx, event: Received[Any]) -> None:
    """What comes by the inbox: only what the view handles."""
    if type(event.payload) in SALES.apply:
        generations.take(tx, SALES, event)


def read_record(tx: Tx, events: Events) -> None:
    """Apply what the record says to the generation that is being built."""
    state = generations.change(tx, SALES.name)
    for event in events:
        if type(event.payload) in SALES.apply:
            generations.apply(tx, SALES, Change(state.building, state.revision, event))


def metrics(tx: Tx, dimension: "pb.Dimension.ValueType") -> list[pb.Metric]:
    """All metrics of a dimension."""
    state = generations.read(tx, SALES.name)
    query = pb.QueryMetricsRequest(dimension=dimension)
    return store.changed(tx, query, state.generation, 0, 1000)


async def contents(database: Database) -> list[list[pb.Metric]]:
    """The metrics of every dimension."""
    return [
        await database.read(lambda tx: metrics(tx, dimension))  # noqa: B023
        for dimension in pb.Dimension.values()
        if dimension
    ]


def counted(found: Sequence[pb.Metric]) -> Counter[tuple[str, str]]:
    """(Value, currency) -> orders placed."""
    return Counter({(each.value, each.currency_code): each.orders.placed for each in found})


@pytest.mark.parametrize("seed", range(3))
async def test_twice_and_in_any_order(view: Database, seed: int) -> None:
    """Every event twice, those of different orders in any order: the same as once, one by one."""
    random = Random(seed)
    orders = some(random, 20)
    for events in orders:
        for event in events:
            await view.write(lambda tx: take(tx, event))  # noqa: B023
    once = await contents(view)
    assert counted(once[-1]) == by_status(orders)

    await view.write(lambda tx: generations.begin(tx, SALES.name, 0.0))
    twice = [event for event in mixed(random, *orders) for _ in range(2)]
    # Again, from the first on: what a broker does that has lost what was acknowledged.
    await view.write(lambda tx: read_record(tx, [*twice, *twice]))
    assert await view.write(lambda tx: generations.swap(tx, SALES, 1.0))

    assert await contents(view) == once


@pytest.mark.parametrize("seed", range(6))
async def test_rebuilt_while_events_come(view: Database, seed: int) -> None:
    """Nothing is lost or counted twice, whenever a rebuild begins, reads, and takes over."""
    random = Random(seed)
    orders = some(random, 15)
    record = list(mixed(random, *orders))
    live = list(record)
    began = random.randrange(len(record))
    for event in live[:began]:
        await view.write(lambda tx: take(tx, event))  # noqa: B023
    await view.write(lambda tx: generations.begin(tx, SALES.name, 0.0))
    # The record is ahead of what has come: it is read up to a later point.
    reached, read = random.randrange(began, len(record) + 1), 0
    waiting = live[began:]
    while read < reached:
        step = random.randint(1, 10)
        batch = record[read : min(read + step, reached)]
        await view.write(lambda tx: read_record(tx, batch))  # noqa: B023
        read += len(batch)
        for _ in range(random.randint(0, 10)):
            if waiting:
                event = waiting.pop(0)
                await view.write(lambda tx: take(tx, event))  # noqa: B023
    while not await view.write(lambda tx: generations.swap(tx, SALES, 1.0)):
        pass
    for event in waiting:
        await view.write(lambda tx: take(tx, event))  # noqa: B023
    while await view.write(lambda tx: generations.sweep(tx, SALES)):
        pass

    found = await contents(view)
    assert counted(found[-1]) == by_status(orders)
    left = await view.read(
        lambda tx: [
            tx.value(f"SELECT COUNT(DISTINCT generation) FROM {table}")
            for table in ("sale", "metric", "view_key")
        ]
    )
    assert left == [1, 1, 1]
    assert await view.read(lambda tx: tx.value("SELECT COUNT(*) FROM view_tail")) == 0


async def test_money_is_earned_when_an_order_is_confirmed(view: Database) -> None:
    """Amounts of rejected orders count nowhere, of failed ones as ordered, of good ones as both."""
    orders = some(Random(1), 5)
    for event in mixed(Random(1), *orders):
        await view.write(lambda tx: take(tx, event))  # noqa: B023
    found = await view.read(lambda tx: metrics(tx, pb.DIMENSION_STATUS))
    amounts = {each.value: (each.ordered > 0, each.revenue > 0) for each in found}
    assert amounts == {
        "CONFIRMED": (True, True),
        "REJECTED": (False, False),
        "FAILED": (True, False),
        "CANCELLED": (True, False),
        "PAID": (True, False),
    }
    for each in found:
        assert each.revenue in (0, each.ordered)
    (failed,) = (each for each in found if each.value == "FAILED")
    assert (failed.orders.paid, failed.orders.failed, failed.orders.confirmed) == (1, 1, 0)


async def test_only_what_has_changed_is_told_again(view: Database) -> None:
    """After a revision, the metrics of later events and no others; one that is empty now is 0."""
    first, second = some(Random(2), 2)
    for event in first:
        await view.write(lambda tx: take(tx, event))  # noqa: B023
    await view.write(lambda tx: take(tx, second[0]))
    seen = (await view.read(lambda tx: generations.read(tx, SALES.name))).revision
    await view.write(lambda tx: take(tx, second[1]))

    query = pb.WatchMetricsRequest(dimension=pb.DIMENSION_STATUS)
    news = await view.read(lambda tx: store.changed(tx, query, 0, seen, 10))
    assert {each.value: each.orders.placed for each in news} == {"PENDING": 0, "REJECTED": 1}


async def test_an_event_of_an_order_that_is_not_known(view: Database) -> None:
    """What follows an order's first event that never came changes nothing, and nothing fails."""
    (order,) = some(Random(3), 1)
    await view.write(lambda tx: take(tx, order[2]))
    assert await view.read(lambda tx: metrics(tx, pb.DIMENSION_STATUS)) == []
