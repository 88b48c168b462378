"""The way of an order, through all services, on both databases."""

from __future__ import annotations

import asyncio

import grpc
import pytest

import accord
from accord.errors import ServiceError
from accord_runtime.grpc.ids import uuid7
from services.orders import store
from shop.orders.v1 import orders_pb2 as pb
from shop.payments.v1 import payments_pb2
from shop.payments.v1.payments_pb2_grpc import PaymentServiceStub
from shop.sandbox.v1 import sandbox_pb2
from tests.services.orders.books import ENDED, Ledger, behave, kinds, ledger, refold, stock, updates
from tests.support.shop import Shop, order_request

OPEN = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
)
"""Codes that leave the outcome open: repeat with the same key."""

GOOD = ["Placed", "Created", "Paid", "ShippingStarted", "Shipped", "Confirmed"]


async def place(shop: Shop, request: pb.CreateOrderRequest, key: str = "") -> pb.Order:
    """Place an order under a key of its own."""
    metadata = accord.idempotency_key(key or uuid7())
    return (await shop.orders.CreateOrder(request, metadata=metadata)).order


async def cancel(shop: Shop, order_id: str, key: str = "") -> pb.Order:
    """Ask for a cancellation."""
    request = pb.CancelOrderRequest(order_id=order_id, reason="changed my mind")
    metadata = accord.idempotency_key(key or uuid7())
    return (await shop.orders.CancelOrder(request, metadata=metadata)).order


async def test_a_good_order_is_paid_shipped_and_confirmed(shop: Shop) -> None:
    """Money, parcel and stock agree with the order, and the order is the fold of its events."""
    await shop.product("tea", 499, on_hand=10)
    order = await place(shop, order_request(await shop.customer(), {"tea": 2}))
    assert order.status == pb.ORDER_STATUS_CREATED

    seen = await updates(shop, order.order_id)

    assert kinds(seen) == GOOD
    assert [update.sequence for update in seen] == [1, 2, 3, 4, 5, 6]
    assert await ledger(shop, order.order_id) == Ledger(1, 998, 1, 2)
    assert await stock(shop, "tea") == (8, 0)
    database = shop.runtimes["orders"].database
    kept = await database.read(lambda tx: store.get(tx, order.order_id))
    assert await database.read(lambda tx: refold(tx, order.order_id)) == kept
    assert kept.tracking_number
    assert kept.payment_id


async def test_a_declined_card_gives_the_stock_back(shop: Shop) -> None:
    """A decline ends the order as FAILED with its reason; nothing is charged or kept."""
    await shop.product("tea", on_hand=10)
    request = order_request(await shop.customer(), {"tea": 2}, card="tok_declined")
    order = await place(shop, request)

    seen = await updates(shop, order.order_id)

    assert kinds(seen) == ["Placed", "Created", "Undoing", "Failed"]
    assert seen[-1].failure.reason == pb.FAILURE_REASON_CARD_DECLINED
    assert await ledger(shop, order.order_id) == Ledger()
    assert await stock(shop, "tea") == (10, 0)


async def test_too_little_stock_is_answered_at_once(shop: Shop) -> None:
    """An order that cannot be reserved is answered as REJECTED, and has ended."""
    await shop.product("tea", on_hand=1)
    order = await place(shop, order_request(await shop.customer(), {"tea": 2}))

    assert order.status == pb.ORDER_STATUS_REJECTED
    assert order.failure.reason == pb.FAILURE_REASON_OUT_OF_STOCK
    assert kinds(await updates(shop, order.order_id)) == ["Placed", "Rejected"]
    assert await stock(shop, "tea") == (1, 0)


@pytest.mark.parametrize(
    ("sku", "price", "reason"),
    [
        ("coffee", 499, pb.FAILURE_REASON_UNKNOWN_PRODUCT),
        ("tea", 1, pb.FAILURE_REASON_PRICE_CHANGED),
    ],
)
async def test_other_refusals_of_the_reservation(
    shop: Shop, sku: str, price: int, reason: int
) -> None:
    """Unknown products and stale prices reject the order with their own reason."""
    await shop.product("tea", 499)
    order = await place(shop, order_request(await shop.customer(), {sku: 1}, price=price))
    assert order.failure.reason == reason


async def test_no_carrier_gives_money_and_stock_back(shop: Shop) -> None:
    """A refusal of the pivot undoes the charge and the reservation, in that order."""
    await shop.product("tea", on_hand=10)
    order = await place(shop, order_request(await shop.customer(), {"tea": 2}, country="AQ"))

    seen = await updates(shop, order.order_id)

    assert kinds(seen) == ["Placed", "Created", "Paid", "ShippingStarted", "Undoing", "Failed"]
    assert seen[-1].failure.reason == pb.FAILURE_REASON_NO_CARRIER
    assert await ledger(shop, order.order_id) == Ledger(captures=1)
    assert await stock(shop, "tea") == (10, 0)


async def test_a_repeat_gets_the_first_answer(shop: Shop) -> None:
    """The same key and request give the same bytes, even after the order has moved on."""
    await shop.product("tea")
    request = order_request(await shop.customer(), {"tea": 1})
    first = await place(shop, request, "key-1")
    await updates(shop, first.order_id)

    assert await place(shop, request, "key-1") == first
    listed = await shop.orders.ListOrders(pb.ListOrdersRequest(customer_id=request.customer_id))
    assert [order.order_id for order in listed.orders] == [first.order_id]


async def test_a_key_is_good_for_one_request(shop: Shop) -> None:
    """The same key with another request is refused and does nothing."""
    await shop.product("tea")
    customer = await shop.customer()
    await place(shop, order_request(customer, {"tea": 1}), "key-1")

    with pytest.raises(grpc.RpcError) as caught:
        await place(shop, order_request(customer, {"tea": 2}), "key-1")

    error = ServiceError.from_rpc(caught.value)
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.reason == "IDEMPOTENCY_KEY_REUSED"


async def test_concurrent_repeats_place_one_order(shop: Shop) -> None:
    """Twenty calls at once with one key: one order, twenty equal answers."""
    await shop.product("tea")
    request = order_request(await shop.customer(), {"tea": 1})
    answers = await asyncio.gather(*(place(shop, request, "key-1") for _ in range(20)))
    assert len({answer.order_id for answer in answers}) == 1
    assert all(answer == answers[0] for answer in answers)


async def test_an_unknown_customer_is_refused_for_good(shop: Shop) -> None:
    """No order is made, and a repeat gets the same refusal."""
    request = order_request(uuid7(), {"tea": 1})
    for _ in range(2):
        with pytest.raises(grpc.RpcError) as caught:
            await place(shop, request, "key-1")
        error = ServiceError.from_rpc(caught.value)
        assert (error.code, error.reason) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "UNKNOWN_CUSTOMER",
        )
    assert not (await shop.orders.ListOrders(pb.ListOrdersRequest())).orders


@pytest.mark.parametrize(
    "behavior", [sandbox_pb2.BEHAVIOR_HANG, sandbox_pb2.BEHAVIOR_FAIL], ids=["hangs", "fails"]
)
async def test_cancel_while_the_card_processor_is_away(
    shop: Shop, behavior: sandbox_pb2.Behavior.ValueType
) -> None:
    """A charge whose outcome is open is undone as well; nothing is kept of the customer's."""
    await shop.product("tea", on_hand=10)
    await behave(shop, sandbox_pb2.PARTY_CARD_PROCESSOR, behavior)
    order = await place(shop, order_request(await shop.customer(), {"tea": 2}))

    cancelled = await cancel(shop, order.order_id)
    assert cancelled.status == pb.ORDER_STATUS_UNDOING
    await behave(shop, sandbox_pb2.PARTY_CARD_PROCESSOR, sandbox_pb2.BEHAVIOR_NORMAL)

    seen = await updates(shop, order.order_id)
    assert kinds(seen) == ["Placed", "Created", "Undoing", "Cancelled"]
    assert seen[-1].failure.reason == pb.FAILURE_REASON_CANCELLED
    assert (await ledger(shop, order.order_id)).money == 0
    assert await stock(shop, "tea") == (10, 0)


async def test_cancel_after_shipping_began_is_too_late(shop: Shop) -> None:
    """From the pivot on a cancellation is refused, and the order ends well."""
    await shop.product("tea")
    await behave(shop, sandbox_pb2.PARTY_CARRIER, sandbox_pb2.BEHAVIOR_FAIL, calls=1)
    order = await place(shop, order_request(await shop.customer(), {"tea": 1}))
    stream = shop.orders.StreamOrderUpdates(pb.StreamOrderUpdatesRequest(order_id=order.order_id))
    async for update in stream:
        if update.status == pb.ORDER_STATUS_SHIPPING:
            with pytest.raises(grpc.RpcError) as caught:
                await cancel(shop, order.order_id, "cancel-1")
            assert ServiceError.from_rpc(caught.value).reason == "TOO_LATE"
    assert update.status == pb.ORDER_STATUS_CONFIRMED
    # The refusal is the answer to a repeat, whatever has happened since.
    with pytest.raises(grpc.RpcError) as caught:
        await cancel(shop, order.order_id, "cancel-1")
    assert ServiceError.from_rpc(caught.value).reason == "TOO_LATE"


async def test_lost_answers_charge_and_ship_once(shop: Shop) -> None:
    """Work that was done but not answered is found by its key, not done again."""
    await shop.product("tea", on_hand=10)
    for party in (sandbox_pb2.PARTY_CARD_PROCESSOR, sandbox_pb2.PARTY_CARRIER):
        await behave(shop, party, sandbox_pb2.BEHAVIOR_LOSE_ANSWER, calls=1)
    order = await place(shop, order_request(await shop.customer(), {"tea": 2}))

    assert kinds(await updates(shop, order.order_id)) == GOOD
    assert await ledger(shop, order.order_id) == Ledger(1, 998, 1, 2)
    assert await stock(shop, "tea") == (8, 0)


async def test_inventory_away_leaves_the_outcome_open(shop: Shop) -> None:
    """The call says so, the order waits, and a repeat with the key gets the one outcome."""
    await shop.product("tea", on_hand=10)
    request = order_request(await shop.customer(), {"tea": 1})
    await shop.stop("inventory")

    with pytest.raises(grpc.RpcError) as caught:
        await shop.orders.CreateOrder(
            request, timeout=1.0, metadata=accord.idempotency_key("key-1")
        )
    error = ServiceError.from_rpc(caught.value)
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "ORDER_PENDING")

    await shop.start("inventory")
    async with asyncio.timeout(30):
        while True:
            try:
                order = await place(shop, request, "key-1")
                break
            except grpc.RpcError as again:
                if ServiceError.from_rpc(again).code not in OPEN:
                    raise
    assert order.status == pb.ORDER_STATUS_CREATED
    assert kinds(await updates(shop, order.order_id)) == GOOD
    assert await stock(shop, "tea") == (9, 0)


async def test_an_order_survives_a_restart_of_orders(shop: Shop) -> None:
    """A saga that waits for a retry goes on in the next life of the process, by itself."""
    await shop.product("tea", on_hand=10)
    await behave(shop, sandbox_pb2.PARTY_CARD_PROCESSOR, sandbox_pb2.BEHAVIOR_FAIL)
    order = await place(shop, order_request(await shop.customer(), {"tea": 1}))
    await shop.stop("orders")
    await behave(shop, sandbox_pb2.PARTY_CARD_PROCESSOR, sandbox_pb2.BEHAVIOR_NORMAL)
    await shop.start("orders")

    assert kinds(await updates(shop, order.order_id)) == GOOD
    assert await ledger(shop, order.order_id) == Ledger(1, 499, 1, 1)


async def test_cancel_and_pivot_race(shop: Shop) -> None:
    """Forty orders are cancelled at odd moments: whoever wins, the books agree with it."""
    await shop.product("tea", on_hand=1000)
    customer = await shop.customer()
    # Fewer calls at once than orders admits: on a slow machine more would wait, and be shed.
    calling = asyncio.Semaphore(10)

    async def race(number: int) -> tuple[pb.Order, bool]:
        async with calling:
            order = await place(shop, order_request(customer, {"tea": 1}))
        stream = shop.orders.StreamOrderUpdates(
            pb.StreamOrderUpdatesRequest(order_id=order.order_id)
        )
        won = False
        async for update in stream:
            if update.sequence == 2 + number % 3:
                try:
                    async with calling:
                        await cancel(shop, order.order_id)
                    won = True
                except grpc.RpcError as error:
                    if ServiceError.from_rpc(error).reason not in ("TOO_LATE", "ORDER_ENDED"):
                        raise
        async with calling:
            final = await shop.orders.GetOrder(pb.GetOrderRequest(order_id=order.order_id))
        return final.order, won

    ended = await asyncio.gather(*(race(number) for number in range(40)))

    shipped = 0
    for order, won in ended:
        assert order.status in ENDED
        assert (order.status == pb.ORDER_STATUS_CANCELLED) == won
        books = await ledger(shop, order.order_id)
        kept = 0 if won else 1
        assert (books.money, books.units) == (499 * kept, kept)
        assert books.captures <= 1
        shipped += kept
    assert await stock(shop, "tea") == (1000 - shipped, 0)


async def test_our_books_agree_with_the_processor(shop: Shop) -> None:
    """The payment of a failed order is known as refunded here, too."""
    await shop.product("tea")
    order = await place(shop, order_request(await shop.customer(), {"tea": 1}, country="AQ"))
    await updates(shop, order.order_id)
    stub = PaymentServiceStub(shop.channel("payments"))
    request = payments_pb2.GetPaymentRequest(order_id=order.order_id)
    payment = (await stub.GetPayment(request)).payment
    assert payment.state == payments_pb2.PAYMENT_STATE_REFUNDED
