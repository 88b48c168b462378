"""TrackOrders with a caller that changes its mind faster than it can be told anything."""

import asyncio
from collections.abc import AsyncIterator

from accord_runtime.events.notifier import Watch
from accord_runtime.grpc.ids import uuid7
from services.orders import watching
from services.orders.watching import Tracking
from shop.orders.v1 import orders_pb2 as pb
from shop.sandbox.v1 import sandbox_pb2
from tests.services.orders.books import behave
from tests.services.orders.test_flow import place
from tests.support.shop import Shop, order_request


def add(order_id: str) -> pb.TrackOrdersRequest:
    return pb.TrackOrdersRequest(add=pb.StreamOrderUpdatesRequest(order_id=order_id))


def remove(order_id: str) -> pb.TrackOrdersRequest:
    return pb.TrackOrdersRequest(remove=order_id)


async def stream(*requests: pb.TrackOrdersRequest) -> AsyncIterator[pb.TrackOrdersRequest]:
    for request in requests:
        yield request


def tracking(shop: Shop, watch: Watch) -> Tracking:
    runtime = shop.runtimes["orders"]
    return Tracking(runtime.database, runtime.notifier, watch)


async def held(shop: Shop) -> str:
    """An order whose payment fails for the time being."""
    await shop.product("tea")
    await behave(shop, sandbox_pb2.PARTY_CARD_PROCESSOR, sandbox_pb2.BEHAVIOR_FAIL)
    order = await place(shop, order_request(await shop.customer(), {"tea": 1}))
    return order.order_id


async def test_a_caller_that_does_not_read_is_not_read(shop: Shop) -> None:
    """What is left to be said is bounded, however much a caller asks for."""
    asked = 0

    async def endless() -> AsyncIterator[pb.TrackOrdersRequest]:
        nonlocal asked
        while asked < 10 * watching.MAX_TRACKED:
            asked += 1
            order_id = uuid7()
            yield add(order_id)
            yield remove(order_id)

    with shop.runtimes["orders"].notifier.watching() as watch:
        orders = tracking(shop, watch)
        reader = asyncio.create_task(orders.read_all(endless()))
        await watch.wait()
        assert asked <= watching.MAX_TRACKED + 1
        assert len(await orders.news(set())) <= watching.MAX_TRACKED
        await watch.wait()
        assert watching.MAX_TRACKED < asked <= 2 * watching.MAX_TRACKED + 2
        reader.cancel()


async def test_removed_before_it_was_looked_at(shop: Shop) -> None:
    """An order that is added, removed and added again is told of once."""
    order_id = await held(shop)
    with shop.runtimes["orders"].notifier.watching() as watch:
        orders = tracking(shop, watch)
        await orders.read_all(stream(add(order_id), remove(order_id), add(order_id)))
        said = await orders.news(set())
    assert [each.update.sequence or each.untracked.cause for each in said] == [
        pb.Untracked.CAUSE_REMOVED,
        1,
        2,
    ]


async def test_removed_while_it_is_looked_at(shop: Shop) -> None:
    """Orders that are removed while their events are read are not told of, and break nothing."""
    ids = {await held(shop), await held(shop)}
    with shop.runtimes["orders"].notifier.watching() as watch:
        orders = tracking(shop, watch)
        await orders.read_all(stream(*map(add, ids)))
        first = asyncio.create_task(orders.news(set()))
        await asyncio.sleep(0)  # The first of them is being read.
        await orders.read_all(stream(*map(remove, ids)))
        said = await first
        assert {each.order_id for each in said} == ids
        assert {each.untracked.cause for each in said} == {pb.Untracked.CAUSE_REMOVED}

        await orders.read_all(stream(*map(add, ids)))
        await orders.news(set())
        second = asyncio.create_task(orders.news(ids))
        await asyncio.sleep(0)
        await orders.read_all(stream(*map(remove, ids)))
        assert {each.untracked.cause for each in await second} == {pb.Untracked.CAUSE_REMOVED}
        assert orders.idle
