"""Reservations on each database."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from accord.errors import FailedPrecondition, InvalidArgument, Precondition, ServiceError
from accord_runtime.database import Database, open_database
from services.inventory.domain import State
from shop.common.v1.fulfilment_pb2 import FULFILMENT_ORCHESTRATED as SAGA
from shop.inventory.v1.events_pb2 import (
    StockCommitted,
    StockRejected,
    StockReleased,
    StockReserved,
)
from tests.services.inventory.support import (
    commit,
    lines,
    money,
    open_store,
    release,
    reserve,
    stock,
    upsert,
)
from tests.support.events import events_of


async def _reason(attempt: Coroutine[Any, Any, object]) -> str:
    with pytest.raises(ServiceError) as caught:
        await attempt
    return caught.value.reason


@pytest.fixture
async def replicas(database: Database, database_url: str, service: str) -> AsyncIterator[Any]:
    """Two processes' views of the database, where it can have two; else the same twice."""
    if database_url.startswith("sqlite"):
        yield [database, database]
        return
    other = await open_database(database_url, service)
    yield [database, other]
    await other.close()


async def test_reserve_release_commit(database: Database) -> None:
    """Stock is held, given back, held again for another order, and leaves for good."""
    await open_store(database, {"a": 10, "b": 10})

    assert await reserve(database, "o1", lines({"a": 3, "b": 4})) is State.RESERVED
    assert await stock(database) == {"a": (10, 3), "b": (10, 4)}
    assert await release(database, "o1") is State.RELEASED
    assert await stock(database) == {"a": (10, 0), "b": (10, 0)}
    assert await reserve(database, "o2", lines({"a": 10})) is State.RESERVED
    assert await commit(database, "o2") is State.COMMITTED
    assert await stock(database) == {"a": (0, 0), "b": (10, 0)}
    held = StockReserved(order_id="o1", lines=lines({"a": 3, "b": 4}), fulfilment=SAGA)
    released = StockReleased(order_id="o1", fulfilment=SAGA)
    assert await events_of(database, "o1") == [held, released]
    committed = StockCommitted(order_id="o2", fulfilment=SAGA)
    assert (await events_of(database, "o2"))[1:] == [committed]


async def test_all_or_nothing(database: Database) -> None:
    """One line that cannot be reserved keeps all others from being reserved, with the details."""
    await open_store(database, {"a": 10, "b": 1})

    with pytest.raises(FailedPrecondition) as caught:
        await reserve(database, "o1", lines({"a": 3, "b": 2, "c": 1}))

    assert caught.value.reason == "UNKNOWN_PRODUCT"
    assert caught.value.message == "c is not sold here; b has 1 left, 2 are wanted"
    assert caught.value.preconditions == (
        Precondition("UNKNOWN_PRODUCT", "c", "is not sold here"),
        Precondition("OUT_OF_STOCK", "b", "has 1 left, 2 are wanted"),
    )
    assert await stock(database) == {"a": (10, 0), "b": (1, 0)}


async def test_a_refusal_is_for_good(database: Database) -> None:
    """What was published as rejected stays so, with new stock, under another key, and undone."""
    await open_store(database, {"a": 1})

    assert await _reason(reserve(database, "o1", lines({"a": 2}), "key")) == "OUT_OF_STOCK"
    await upsert(database, "a", 2)
    assert await _reason(reserve(database, "o1", lines({"a": 1}), "other")) == "OUT_OF_STOCK"
    assert await _reason(commit(database, "o1")) == "NOT_RESERVED"
    assert await release(database, "o1") is State.RELEASED
    assert await _reason(reserve(database, "o1", lines({"a": 2}))) == "RESERVATION_CLOSED"
    assert await stock(database) == {"a": (2, 0)}
    rejected, released = await events_of(database, "o1")
    assert rejected == StockRejected(
        order_id="o1",
        reason="OUT_OF_STOCK",
        detail="a has 1 left, 2 are wanted",
        fulfilment=SAGA,
    )
    assert released == StockReleased(order_id="o1", fulfilment=SAGA)


async def test_repeat_returns_the_first(database: Database) -> None:
    """A repeated request holds no more stock, whatever the order of its lines or its key."""
    await open_store(database, {"a": 10, "b": 10})

    await reserve(database, "o1", lines({"a": 3, "b": 4}), "key")
    assert await reserve(database, "o1", lines({"b": 4, "a": 3}), "other") is State.RESERVED

    assert await stock(database) == {"a": (10, 3), "b": (10, 4)}


async def test_repeat_after_sell_out_and_price_change(database: Database) -> None:
    """A repeat is answered as the first time though the first would be refused by now."""
    await open_store(database, {"a": 3})

    await reserve(database, "o1", lines({"a": 3}))
    await upsert(database, "a", 3, money(1, "EUR"))

    assert await reserve(database, "o1", lines({"a": 3})) is State.RESERVED


@pytest.mark.parametrize(
    "other", [lines({"a": 4}), lines({"a": 3, "b": 1}), lines({"a": 3}, money(1, "EUR"))]
)
async def test_repeat_with_other_lines(database: Database, other: Any) -> None:
    """An order that asks for something else the second time is told so."""
    await open_store(database, {"a": 10, "b": 10})
    await reserve(database, "o1", lines({"a": 3}))

    with pytest.raises(InvalidArgument, match="the order has reserved"):
        await reserve(database, "o1", other)

    assert await stock(database) == {"a": (10, 3), "b": (10, 0)}


async def test_key_of_another_order(database: Database) -> None:
    """A key is remembered for ever: it cannot reserve for a second order."""
    await open_store(database, {"a": 10})
    await reserve(database, "o1", lines({"a": 1}), "key")
    await commit(database, "o1")

    assert (
        await _reason(reserve(database, "o2", lines({"a": 1}), "key")) == "IDEMPOTENCY_KEY_REUSED"
    )


async def test_release_before_reserve(database: Database) -> None:
    """An undo that overtakes its request wins: the late request is refused."""
    await open_store(database, {"a": 10})

    assert await release(database, "o1") is State.RELEASED
    assert await release(database, "o1") is State.RELEASED
    assert await _reason(reserve(database, "o1", lines({"a": 1}))) == "RESERVATION_CLOSED"
    assert await _reason(commit(database, "o1")) == "NOT_RESERVED"
    assert await stock(database) == {"a": (10, 0)}


async def test_commit_twice_and_release_after(database: Database) -> None:
    """Goods leave once, and what has left can neither be given back nor reserved a second time."""
    await open_store(database, {"a": 10})
    await reserve(database, "o1", lines({"a": 4}))

    assert await commit(database, "o1") is State.COMMITTED
    assert await commit(database, "o1") is State.COMMITTED
    assert await _reason(release(database, "o1")) == "RESERVATION_COMMITTED"
    assert await reserve(database, "o1", lines({"a": 4})) is State.COMMITTED
    with pytest.raises(InvalidArgument, match="the order has reserved"):
        await reserve(database, "o1", lines({"a": 3}))
    assert await stock(database) == {"a": (6, 0)}


async def test_commit_of_unknown_order(database: Database) -> None:
    """There is nothing to take out for an order that never reserved."""
    await open_store(database, {})

    assert await _reason(commit(database, "o1")) == "NOT_RESERVED"


async def test_upsert_below_reserved(database: Database) -> None:
    """Stock that orders hold cannot be counted away."""
    await open_store(database, {"a": 10})
    await reserve(database, "o1", lines({"a": 4}))

    assert await _reason(upsert(database, "a", 3)) == "STOCK_IS_RESERVED"
    assert (await upsert(database, "a", 4)).available == 0


async def test_upsert_changes_no_currency(database: Database) -> None:
    """A product keeps its currency; its price, name and stock may change."""
    await open_store(database, {"a": 10})

    assert await _reason(upsert(database, "a", 10, money(1999, "USD"))) == "CURRENCY_CHANGED"
    changed = await upsert(database, "a", 7, money(5, "EUR"))
    assert (changed.price, changed.on_hand) == (money(5, "EUR"), 7)


async def test_no_overselling(replicas: list[Database]) -> None:
    """Of 200 orders that want one of 100 units at once, exactly 100 get one."""
    await open_store(replicas[0], {"a": 100})

    answers = await asyncio.gather(
        *(reserve(replicas[n % 2], f"o{n}", lines({"a": 1}), f"k{n}") for n in range(200)),
        return_exceptions=True,
    )

    reserved = [answer for answer in answers if answer is State.RESERVED]
    refused = [answer for answer in answers if isinstance(answer, FailedPrecondition)]
    assert (len(reserved), len(refused)) == (100, 100)
    assert {error.reason for error in refused} == {"OUT_OF_STOCK"}
    assert await stock(replicas[0]) == {"a": (100, 100)}


async def test_no_deadlock(replicas: list[Database]) -> None:
    """Orders that name the same products in opposite orders do not stand in each other's way."""
    await open_store(replicas[0], {"a": 1000, "b": 1000, "c": 1000})
    forth, back = lines({"a": 1, "b": 2, "c": 3}), lines({"c": 3, "b": 2, "a": 1})

    async def order(number: int) -> None:
        database = replicas[number % 2]
        await reserve(database, f"o{number}", forth if number % 4 < 2 else back)
        await (release if number % 3 else commit)(database, f"o{number}")

    await asyncio.gather(*(order(number) for number in range(60)))

    shipped = 20
    assert await stock(replicas[0]) == {
        "a": (1000 - shipped, 0),
        "b": (1000 - 2 * shipped, 0),
        "c": (1000 - 3 * shipped, 0),
    }


async def test_same_order_at_once(replicas: list[Database]) -> None:
    """Of many equal requests for one order that arrive together, one takes stock."""
    await open_store(replicas[0], {"a": 10})

    answers = await asyncio.gather(
        *(reserve(replicas[n % 2], "o1", lines({"a": 3}), "key") for n in range(20))
    )

    assert set(answers) == {State.RESERVED}
    assert await stock(replicas[0]) == {"a": (10, 3)}


async def test_ends_compete(replicas: list[Database]) -> None:
    """Of release and commit that arrive together one wins, and the stock moves once."""
    first, second = replicas
    await open_store(first, {"a": 1000})
    orders = [f"o{number}" for number in range(50)]
    for order in orders:
        await reserve(first, order, lines({"a": 2}))

    for order in orders:
        await asyncio.gather(
            commit(first, order),
            release(second, order),
            commit(second, order),
            release(first, order),
            return_exceptions=True,
        )

    states = await _states(first)
    assert len(states) == len(orders)
    assert "RESERVED" not in states
    assert await stock(first) == {"a": (1000 - 2 * states.count("COMMITTED"), 0)}


async def test_undo_competes_with_request(replicas: list[Database]) -> None:
    """A release that arrives with its request leaves no stock behind, whichever is first."""
    first, second = replicas
    await open_store(first, {"a": 1000})

    for number in range(50):
        await asyncio.gather(
            reserve(first, f"o{number}", lines({"a": 2})),
            release(second, f"o{number}"),
            return_exceptions=True,
        )

    assert await _states(first) == ["RELEASED"] * 50
    assert await stock(first) == {"a": (1000, 0)}


async def _states(database: Database) -> list[str]:
    rows = await database.read(lambda tx: tx.all("SELECT state FROM reservation"))
    return [row["state"] for row in rows]
