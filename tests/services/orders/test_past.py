"""An order as it was: folded from its events up to a number or a time."""

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from accord.errors import failure_of
from shop.orders.v1 import orders_pb2 as pb
from tests.services.orders.books import updates
from tests.services.orders.test_flow import place
from tests.support.shop import Shop, order_request


async def confirmed(shop: Shop) -> tuple[str, list[pb.StreamOrderUpdatesResponse]]:
    """A confirmed order, and its updates."""
    await shop.product("tea", on_hand=10)
    placed = await place(shop, order_request(await shop.customer(), {"tea": 1}))
    return placed.order_id, await updates(shop, placed.order_id)


async def refusal(shop: Shop, request: pb.GetOrderRequest) -> tuple[grpc.StatusCode, str]:
    """Code and reason with which a request is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await shop.orders.GetOrder(request)
    failure = failure_of(caught.value)
    assert failure is not None
    return failure.code, failure.reason


async def test_an_order_as_it_was_at_each_of_its_events(shop: Shop) -> None:
    """After each event, by its number and by its time, the order stood where its update says.

    After the last it is the order as it is.
    """
    order_id, seen = await confirmed(shop)
    for update in seen:
        by_number = pb.GetOrderRequest(order_id=order_id, at_sequence=update.sequence)
        by_time = pb.GetOrderRequest(order_id=order_id, at_time=update.occurred_at)
        then = (await shop.orders.GetOrder(by_number)).order
        assert (await shop.orders.GetOrder(by_time)).order == then
        assert (then.sequence, then.status) == (update.sequence, update.status)
        assert then.updated_at == update.occurred_at
    assert (await shop.orders.GetOrder(pb.GetOrderRequest(order_id=order_id))).order == then


async def test_what_never_was_is_refused(shop: Shop) -> None:
    """A microsecond before the first event there is no order; what is to come is out of range.

    An unknown order is not found at any time.
    """
    order_id, seen = await confirmed(shop)
    before = Timestamp()
    before.FromMicroseconds(seen[0].occurred_at.ToMicroseconds() - 1)
    assert await refusal(shop, pb.GetOrderRequest(order_id=order_id, at_time=before)) == (
        grpc.StatusCode.NOT_FOUND,
        "NOT_FOUND",
    )
    beyond = pb.GetOrderRequest(order_id=order_id, at_sequence=seen[-1].sequence + 1)
    assert await refusal(shop, beyond) == (grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_IN_FUTURE")
    later = pb.GetOrderRequest(order_id=order_id, at_time=Timestamp(seconds=10**11))
    assert await refusal(shop, later) == (grpc.StatusCode.OUT_OF_RANGE, "TIME_IN_FUTURE")
    nothing = pb.GetOrderRequest(order_id="00000000-0000-7000-8000-000000000000", at_sequence=1)
    assert await refusal(shop, nothing) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
