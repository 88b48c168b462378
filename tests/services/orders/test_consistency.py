"""What has been seen of an order is never taken back, whatever caches and replicas hold."""

import asyncio

import grpc
import pytest

import accord
from accord.errors import failure_of
from accord.policies.consistency import CONSISTENCY_KEY
from accord_runtime.grpc.ids import uuid7
from shop.orders.v1 import orders_pb2 as pb
from tests.services.orders.books import updates
from tests.services.orders.test_flow import place
from tests.support.shop import Shop, order_request


async def _confirmed(shop: Shop) -> pb.Order:
    """An order as it was shown when it was open, which has been confirmed since."""
    await shop.product("tea", on_hand=10)
    placed = await place(shop, order_request(await shop.customer(), {"tea": 1}))
    request = pb.GetOrderRequest(order_id=placed.order_id)
    shown = (await shop.orders.GetOrder(request)).order
    await updates(shop, placed.order_id)
    return shown


async def test_a_finished_order_is_not_shown_as_open(shop: Shop) -> None:
    """An order that was read while it was open is read anew; one that has ended is kept."""
    shown = await _confirmed(shop)
    request = pb.GetOrderRequest(order_id=shown.order_id)
    for _ in range(2):
        now = (await shop.orders.GetOrder(request)).order
        assert now.status == pb.ORDER_STATUS_CONFIRMED
    method = "/shop.orders.v1.OrderService/GetOrder"
    [route] = [each for each in shop.mesh.snapshot().routes if each.method == method]
    assert route.cache_hits == 1


async def test_a_state_that_is_yet_to_come_is_waited_for(shop: Shop) -> None:
    """Who has seen a state that this process does not have yet gets it when it is there.

    When it does not come the answer says so before the deadline, and not NOT_FOUND or an old order.
    """
    order_id = (await _confirmed(shop)).order_id
    request = pb.GetOrderRequest(order_id=order_id)
    head = (await shop.orders.GetOrder(request)).order.sequence
    seen = ((CONSISTENCY_KEY, f"orders/{order_id}={head + 1}"),)

    waiting = asyncio.ensure_future(shop.orders.GetOrder(request, metadata=seen))
    note = pb.BulkUpdateOrdersRequest(order_id=order_id, add_note="call back")
    key = accord.idempotency_key(uuid7())
    assert (await shop.orders.BulkUpdateOrders(iter([note]), metadata=key)).applied == 1
    assert (await waiting).order.sequence == head + 1

    beyond = ((CONSISTENCY_KEY, f"orders/{order_id}={head + 2}"),)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await shop.orders.GetOrder(request, metadata=beyond)
    failure = failure_of(caught.value)
    assert failure is not None
    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_CAUGHT_UP")
    assert f"is at {head + 1} here, and its caller has seen {head + 2}" in failure.message
