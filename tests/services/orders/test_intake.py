"""SubmitOrder: orders that wait in a queue."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

import accord
from accord.errors import ServiceError
from accord_runtime.events import command_sender
from accord_runtime.grpc.ids import uuid7
from accord_runtime.work import table
from services.orders import intake
from shop.orders.v1 import orders_pb2 as pb
from shop.orders.v1.commands_pb2 import ProcessOrder
from tests.runtime.work.support import parked_items
from tests.services.orders.books import updates
from tests.support.nats import NatsServer, nats_server
from tests.support.shop import Shop, order_request, running_shop
from tests.support.wait import until

NAMES = ("sandbox", "customers", "inventory", "payments", "shipping", "orders")


@pytest.fixture
async def broker() -> AsyncIterator[NatsServer]:
    """A broker that does not run yet."""
    async with nats_server(started=False) as server:
        yield server


@pytest.fixture
async def shop(
    tmp_path: Path, shop_database: str, broker: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Shop]:
    """A shop whose queue takes three orders."""
    monkeypatch.setattr(intake, "QUEUE", replace(intake.QUEUE, max_messages=3))
    monkeypatch.setattr(command_sender, "LOOK", 0.05)
    async with running_shop(
        tmp_path, *NAMES, database_url=shop_database, nats_url=broker.url
    ) as shop:
        yield shop


async def submit(shop: Shop, order: pb.CreateOrderRequest, key: str = "") -> str:
    """Submit an order; returns its id."""
    metadata = accord.idempotency_key(key or uuid7())
    request = pb.SubmitOrderRequest(order=order)
    return (await shop.orders.SubmitOrder(request, metadata=metadata)).order_id


async def exists(shop: Shop, order_id: str) -> bool:
    """Whether there is such an order."""
    try:
        await shop.orders.GetOrder(pb.GetOrderRequest(order_id=order_id))
    except grpc.RpcError as error:
        return ServiceError.from_rpc(error).reason != "NOT_FOUND"
    return True


async def test_a_full_queue_refuses_orders_until_some_were_processed(
    shop: Shop, broker: NatsServer
) -> None:
    """What was taken becomes an order, once; what was refused was not taken, and may come again."""
    await shop.product("tea")
    order = order_request(await shop.customer(), {"tea": 1})
    ids = {key: await submit(shop, order, key) for key in ("a", "b", "c")}
    with pytest.raises(grpc.RpcError) as caught:
        await submit(shop, order, "d")
    error = ServiceError.from_rpc(caught.value)
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    assert error.retry_after is not None
    assert error.retry_after >= command_sender.RETRY
    # A repeat is answered all the same, and so are others.
    assert await submit(shop, order, "a") == ids["a"]
    assert not await exists(shop, ids["a"])
    metadata = accord.idempotency_key(uuid7())
    assert (await shop.orders.CreateOrder(order, metadata=metadata)).order.order_id

    await broker.start()

    async def taken() -> bool:
        try:
            ids["d"] = await submit(shop, order, "d")
        except grpc.RpcError:
            return False
        return True

    await until(taken, "the queue to have room")
    for order_id in ids.values():
        await until(lambda one=order_id: exists(shop, one), "the order to be processed")  # type: ignore[misc]
        assert (await updates(shop, order_id))[-1].status == pb.ORDER_STATUS_CONFIRMED
    listed = await shop.orders.ListOrders(pb.ListOrdersRequest())
    assert len(listed.orders) == len(ids) + 1


async def test_an_order_that_cannot_be_processed_is_parked(shop: Shop, broker: NatsServer) -> None:
    """An unknown customer's order waits for the operator, with the reason; others go on."""
    await broker.start()
    await shop.product("tea")
    stranger = await submit(shop, order_request(uuid7(), {"tea": 1}))
    known = await submit(shop, order_request(await shop.customer(), {"tea": 1}))
    await until(lambda: exists(shop, known), "the other order")
    database = shop.runtimes["orders"].database

    async def parked() -> bool:
        return len(await database.read(parked_items)) == 1

    await until(parked, "the order to be parked")
    (item,) = await database.read(parked_items)
    assert (item.queue, item.key) == ("intake:normal", stranger)
    assert "UNKNOWN_CUSTOMER" in item.last_error
    assert not await exists(shop, stranger)


async def test_an_order_is_processed_once(shop: Shop, broker: NatsServer) -> None:
    """A command that comes again, in whatever way, makes no second order."""
    await broker.start()
    await shop.product("tea")
    order_id = await submit(shop, order_request(await shop.customer(), {"tea": 1}))
    await until(lambda: exists(shop, order_id), "the order")
    before = await updates(shop, order_id)
    orders = shop.runtimes["orders"]
    command = ProcessOrder(order_id=order_id).SerializeToString()
    await orders.database.write(
        lambda tx: orders.executor.enqueue(tx, "intake:normal", order_id, command)
    )

    async def done() -> bool:
        return not await orders.database.read(lambda tx: tx.all("SELECT id FROM work"))

    await until(done, "the command to be done")
    assert await updates(shop, order_id) == before


def test_the_numbers_of_the_queue() -> None:
    """Ten thousand orders for a day, ten at a time, three attempts."""
    queue = intake.QUEUE
    assert (queue.max_messages, queue.ttl, queue.prefetch) == (10_000, 24 * 3600, 10)
    assert len(queue.delays) + 1 == 3
    assert table.HISTORY >= 3
