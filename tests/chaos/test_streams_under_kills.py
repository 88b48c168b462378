"""A stream that is resumed by the client's interceptor has no gap and no duplicate."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import accord
from accord_runtime.grpc.ids import uuid7
from services import topology
from shop.orders.v1 import orders_pb2 as pb
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub
from shop.sandbox.v1 import sandbox_pb2
from tests.chaos.scale import FULL
from tests.services.orders.books import behave
from tests.support.process import ServiceProcess
from tests.support.shop import Shop, order_request, running_shop

ORDERS = 1000 if FULL else 100
KILLS = 20 if FULL else 4


@asynccontextmanager
async def killable_orders(home: Path) -> AsyncIterator[tuple[Shop, ServiceProcess]]:
    """The shop in this process, and orders beside it as a process that can be killed."""
    names = ("sandbox", "customers", "inventory", "payments", "shipping")
    async with running_shop(home, *names) as shop:
        process = ServiceProcess(shop.settings("orders"), home / "orders.log")
        await asyncio.to_thread(process.start)
        try:
            yield shop, process
        finally:
            process.kill()


async def life_after_death(process: ServiceProcess) -> None:
    """`kill -9`, and the next life."""
    await asyncio.to_thread(process.kill)
    await asyncio.to_thread(process.start)


async def place(shop: Shop, request: pb.CreateOrderRequest) -> str:
    """Place an order; the same key again whenever the outcome is open."""
    key = uuid7()
    while True:
        try:
            metadata = accord.idempotency_key(key)
            return (await shop.orders.CreateOrder(request, metadata=metadata)).order.order_id
        except Exception as error:
            failure = accord.failure_of(error)
            if failure is None or failure.refusal:
                raise
            await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_the_record_of_many_orders_under_kills(tmp_path: Path) -> None:
    """Every event of every order arrives once, in order, through all kills of the server."""
    async with killable_orders(tmp_path) as (shop, process):
        await shop.product("tea", on_hand=10 * ORDERS)
        customer = await shop.customer()
        places = asyncio.Semaphore(32)

        async def one() -> str:
            async with places:
                return await place(shop, order_request(customer, {"tea": 1}))

        resumed = 0

        def count(*_: object) -> None:
            nonlocal resumed
            resumed += 1

        reader = accord.Mesh("reader", targets=topology.targets(shop.offset), on_resume=count)
        stub = OrderServiceStub(reader.channel("orders"))
        placing = asyncio.gather(*(one() for _ in range(ORDERS)))
        positions: list[int] = []
        story: dict[str, list[int]] = {}
        ended = kills = 0
        async with asyncio.timeout(60 + ORDERS):
            async for each in stub.ReadEvents(pb.ReadEventsRequest(follow=True)):
                positions.append(each.position)
                story.setdefault(each.event.key, []).append(each.event.sequence)
                ended += each.event.type.endswith(".OrderConfirmed")
                if kills < KILLS and len(positions) >= (kills + 1) * 6 * ORDERS // (KILLS + 1):
                    kills += 1
                    await life_after_death(process)
                if ended == ORDERS:
                    break
        placed = await placing
        await reader.close()

    assert positions == list(range(1, 6 * ORDERS + 1))
    assert story == {order_id: [1, 2, 3, 4, 5, 6] for order_id in placed}
    assert kills == KILLS
    assert resumed >= KILLS


async def test_a_watcher_whose_server_dies_at_each_event(tmp_path: Path) -> None:
    """The server is killed at every update of the order that is watched: all six arrive, once."""
    async with killable_orders(tmp_path) as (shop, process):
        await shop.product("tea")
        # Two failures of each party spread the order over several lives of its service.
        for party in (sandbox_pb2.PARTY_CARD_PROCESSOR, sandbox_pb2.PARTY_CARRIER):
            await behave(shop, party, sandbox_pb2.BEHAVIOR_LOSE_ANSWER, calls=1)
        order_id = await place(shop, order_request(await shop.customer(), {"tea": 1}))
        request = pb.StreamOrderUpdatesRequest(order_id=order_id)
        seen = []
        async with asyncio.timeout(90):
            async for update in shop.orders.StreamOrderUpdates(request):
                seen.append(update.sequence)
                await life_after_death(process)
    assert seen == [1, 2, 3, 4, 5, 6]
