"""BulkUpdateOrders and the lists."""

from collections.abc import Iterator, Sequence

import grpc
import pytest

import accord
from accord.errors import ServiceError
from accord_runtime.grpc.ids import uuid7
from shop.orders.v1 import orders_pb2 as pb
from shop.sandbox.v1 import sandbox_pb2
from tests.services.orders.books import behave, updates
from tests.services.orders.test_flow import place
from tests.support.shop import Shop, order_request


async def bulk(
    shop: Shop, requests: Sequence[pb.BulkUpdateOrdersRequest], key: str
) -> pb.BulkUpdateOrdersResponse:
    """Send updates under a key."""

    def each() -> Iterator[pb.BulkUpdateOrdersRequest]:
        yield from requests

    metadata = accord.idempotency_key(key)
    return await shop.orders.BulkUpdateOrders(each(), metadata=metadata)


async def test_updates_are_applied_one_by_one_and_once(shop: Shop) -> None:
    """Good ones are applied, bad ones are named, and a repeat does nothing again."""
    await shop.product("tea")
    await behave(shop, sandbox_pb2.PARTY_CARD_PROCESSOR, sandbox_pb2.BEHAVIOR_FAIL)
    customer = await shop.customer()
    first = await place(shop, order_request(customer, {"tea": 1}))
    second = await place(shop, order_request(customer, {"tea": 1}))
    requests = [
        pb.BulkUpdateOrdersRequest(order_id=first.order_id, add_note="call before delivery"),
        pb.BulkUpdateOrdersRequest(order_id=uuid7(), add_note="nobody"),
        pb.BulkUpdateOrdersRequest(order_id=second.order_id, cancel_reason="fraud"),
        pb.BulkUpdateOrdersRequest(order_id=second.order_id, cancel_reason="fraud again"),
    ]

    summary = await bulk(shop, requests, "bulk-1")

    assert (summary.applied, summary.refused) == (2, 2)
    assert [(refusal.index, refusal.reason) for refusal in summary.refusals] == [
        (1, "NOT_FOUND"),
        (3, "ORDER_ENDED"),
    ]
    assert await bulk(shop, requests, "bulk-1") == summary
    noted = await shop.orders.GetOrder(pb.GetOrderRequest(order_id=first.order_id))
    assert list(noted.order.notes) == ["call before delivery"]
    await behave(shop, sandbox_pb2.PARTY_CARD_PROCESSOR, sandbox_pb2.BEHAVIOR_NORMAL)
    assert (await updates(shop, second.order_id))[-1].status == pb.ORDER_STATUS_CANCELLED


async def test_a_broken_stream_is_continued_by_its_repeat(shop: Shop) -> None:
    """Updates before a malformed one stay applied; the repeat applies the rest, and only that."""
    await shop.product("tea")
    order = await place(shop, order_request(await shop.customer(), {"tea": 1}))
    good = [
        pb.BulkUpdateOrdersRequest(order_id=order.order_id, add_note=f"note {number}")
        for number in range(3)
    ]
    with pytest.raises(grpc.RpcError) as caught:
        await bulk(shop, [good[0], pb.BulkUpdateOrdersRequest(order_id="no id")], "bulk-1")
    error = ServiceError.from_rpc(caught.value)
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert {violation.field for violation in error.violations} >= {"order_id"}

    assert (await bulk(shop, good, "bulk-1")).applied == 3
    final = await shop.orders.GetOrder(pb.GetOrderRequest(order_id=order.order_id))
    assert list(final.order.notes) == ["note 0", "note 1", "note 2"]


async def test_pages_hold_every_order_once(shop: Shop) -> None:
    """Newest first, no gap and no repeat, whatever the page size; tokens are bound to filters."""
    await shop.product("tea")
    customer, other = await shop.customer(), await shop.customer()
    placed = [(await place(shop, order_request(customer, {"tea": 1}))).order_id for _ in range(7)]
    await place(shop, order_request(other, {"tea": 1}))
    for size in (1, 2, 3, 7, 8):
        found: list[str] = []
        token = ""
        while True:
            page = await shop.orders.ListOrders(
                pb.ListOrdersRequest(page_size=size, page_token=token, customer_id=customer)
            )
            found += [order.order_id for order in page.orders]
            token = page.next_page_token
            if not token:
                break
        assert found == placed[::-1]
    page = await shop.orders.ListOrders(pb.ListOrdersRequest(page_size=1, customer_id=customer))
    with pytest.raises(grpc.RpcError) as caught:
        await shop.orders.ListOrders(
            pb.ListOrdersRequest(page_token=page.next_page_token, customer_id=other)
        )
    assert ServiceError.from_rpc(caught.value).violations[0].field == "page_token"
