"""The way of a choreographed order, through all services and a broker, on both databases."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import grpc
import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

import accord
from accord.errors import ServiceError
from accord_runtime.events import inbox, pull
from accord_runtime.grpc.ids import uuid7
from services.orders import domain, store
from services.orders.choreography import Heard, follows
from shop.common.v1.fulfilment_pb2 import FULFILMENT_CHOREOGRAPHED
from shop.inventory.v1 import events_pb2 as stock_events
from shop.inventory.v1.inventory_pb2 import ReleaseStockRequest
from shop.inventory.v1.inventory_pb2_grpc import InventoryServiceStub
from shop.orders.v1 import orders_pb2 as pb
from shop.orders.v1.events_pb2 import OrderPlaced
from shop.payments.v1 import events_pb2 as payment_events
from shop.payments.v1.payments_pb2 import RefundRequest
from shop.payments.v1.payments_pb2_grpc import PaymentServiceStub
from shop.sandbox.v1 import sandbox_pb2
from shop.shipping.v1 import events_pb2 as shipment_events
from tests.services.orders.books import ENDED, Ledger, behave, kinds, ledger, refold, stock, updates
from tests.services.orders.test_flow import GOOD, cancel, place
from tests.support.nats import NatsServer, nats_server
from tests.support.shop import Shop, order_request, running_shop
from tests.support.wait import until

PARTS: Final = ("sandbox", "customers", "inventory", "payments", "shipping", "orders")
CARDS: Final = sandbox_pb2.PARTY_CARD_PROCESSOR
CARRIER: Final = sandbox_pb2.PARTY_CARRIER


@pytest.fixture
async def broker() -> AsyncIterator[NatsServer]:
    """A broker."""
    async with nats_server() as server:
        yield server


@pytest.fixture
async def shop(tmp_path: Path, shop_database: str, broker: NatsServer) -> AsyncIterator[Shop]:
    """All services but notifications, with tea on the shelves."""
    async with running_shop(
        tmp_path, *PARTS, database_url=shop_database, nats_url=broker.url
    ) as shop:
        await shop.product("tea", 499, on_hand=10)
        yield shop


async def request(
    shop: Shop, quantity: int = 2, card: str = "tok_visa", country: str = "DE"
) -> pb.CreateOrderRequest:
    """A request for a choreographed order of tea."""
    wanted = order_request(await shop.customer(), {"tea": quantity}, card=card, country=country)
    wanted.fulfilment = FULFILMENT_CHOREOGRAPHED
    return wanted


async def parked(shop: Shop, service: str) -> list[tuple[str, str]]:
    """Queue and key of the work of a service that waits for an operator."""
    rows = await shop.runtimes[service].database.read(
        lambda tx: tx.all("SELECT queue, key FROM work WHERE state = 'parked'")
    )
    return [(row["queue"], row["key"]) for row in rows]


async def test_a_good_order_is_paid_shipped_and_confirmed(shop: Shop) -> None:
    """Watchers see what they see of an orchestrated order; no saga runs, and the books agree."""
    order = await place(shop, await request(shop))
    assert (order.status, order.fulfilment) == (pb.ORDER_STATUS_CREATED, FULFILMENT_CHOREOGRAPHED)

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
    assert await database.read(lambda tx: tx.all("SELECT id FROM saga")) == []


@pytest.mark.parametrize(
    ("wanted", "way", "reason", "books"),
    [
        ({"quantity": 11}, ["Rejected"], pb.FAILURE_REASON_OUT_OF_STOCK, Ledger()),
        (
            {"card": "tok_declined"},
            ["Created", "Undoing", "Failed"],
            pb.FAILURE_REASON_CARD_DECLINED,
            Ledger(),
        ),
        (
            {"country": "AQ"},
            ["Created", "Paid", "ShippingStarted", "Undoing", "Failed"],
            pb.FAILURE_REASON_NO_CARRIER,
            Ledger(captures=1),
        ),
    ],
    ids=["out of stock", "declined", "no carrier"],
)
async def test_a_failure_is_undone_by_events(
    shop: Shop,
    wanted: dict[str, str],
    way: list[str],
    reason: "pb.FailureReason.ValueType",
    books: Ledger,
) -> None:
    """Each refusal gives back what was taken before it, and ends the order with its reason."""
    order = await place(shop, await request(shop, **wanted))  # type: ignore[arg-type]
    seen = await updates(shop, order.order_id)

    assert kinds(seen) == ["Placed", *way]
    assert seen[-1].failure.reason == reason
    assert seen[-1].failure.detail
    assert await ledger(shop, order.order_id) == books
    assert await stock(shop, "tea") == (10, 0)


async def test_a_repeat_gets_the_first_answer(shop: Shop) -> None:
    """The same key and request give the same answer after the order has moved on."""
    wanted = await request(shop)
    first = await place(shop, wanted, "key-1")
    await updates(shop, first.order_id)
    assert await place(shop, wanted, "key-1") == first


@pytest.mark.parametrize(
    "behavior", [sandbox_pb2.BEHAVIOR_HANG, sandbox_pb2.BEHAVIOR_FAIL], ids=["hangs", "fails"]
)
async def test_cancel_while_the_card_processor_is_away(
    shop: Shop, behavior: sandbox_pb2.Behavior.ValueType
) -> None:
    """The undo does not wait for the charge, whose outcome is open, and nothing is kept."""
    await behave(shop, CARDS, behavior)
    order = await place(shop, await request(shop))
    assert (await cancel(shop, order.order_id)).status == pb.ORDER_STATUS_UNDOING
    await behave(shop, CARDS, sandbox_pb2.BEHAVIOR_NORMAL)

    assert kinds(await updates(shop, order.order_id)) == [
        *("Placed", "Created", "Undoing", "Cancelled")
    ]
    assert (await ledger(shop, order.order_id)).money == 0
    assert await stock(shop, "tea") == (10, 0)


async def test_inventory_away_and_cancelled(shop: Shop) -> None:
    """Cancelled before its stock was reserved: what comes too late reserves nothing."""
    await shop.stop("inventory")
    wanted = await request(shop)
    with pytest.raises(grpc.RpcError) as caught:
        await shop.orders.CreateOrder(wanted, timeout=1.0, metadata=accord.idempotency_key("key-1"))
    assert ServiceError.from_rpc(caught.value).reason == "ORDER_PENDING"
    [pending] = (await shop.orders.ListOrders(pb.ListOrdersRequest())).orders
    await cancel(shop, pending.order_id)
    await shop.start("inventory")

    assert kinds(await updates(shop, pending.order_id)) == ["Placed", "Undoing", "Cancelled"]
    assert (await place(shop, wanted, "key-1")).order_id == pending.order_id
    assert await ledger(shop, pending.order_id) == Ledger()

    async def untouched() -> bool:
        try:
            return await stock(shop, "tea") == (10, 0)
        except grpc.RpcError:
            return False  # This client has not found it again.

    await until(untouched, "the stock to be as it was")
    assert await parked(shop, "inventory") == []


async def test_cancel_after_shipping_began_is_too_late(shop: Shop) -> None:
    """From the pivot on a cancellation is refused, and the order ends well."""
    await behave(shop, CARRIER, sandbox_pb2.BEHAVIOR_FAIL, calls=1)
    order = await place(shop, await request(shop))
    stream = shop.orders.StreamOrderUpdates(pb.StreamOrderUpdatesRequest(order_id=order.order_id))
    async for update in stream:
        if update.status == pb.ORDER_STATUS_SHIPPING:
            with pytest.raises(grpc.RpcError) as caught:
                await cancel(shop, order.order_id)
            assert ServiceError.from_rpc(caught.value).reason == "TOO_LATE"
    assert update.status == pb.ORDER_STATUS_CONFIRMED


async def test_cancel_and_pivot_race(shop: Shop) -> None:
    """Thirty orders are cancelled at odd moments: whoever wins, the books agree with it."""
    await shop.product("tea", on_hand=1000)
    wanted = await request(shop, quantity=1)
    calling = asyncio.Semaphore(10)

    async def race(number: int) -> tuple[pb.Order, bool]:
        async with calling:
            order = await place(shop, wanted)
        won = False
        stream = shop.orders.StreamOrderUpdates(
            pb.StreamOrderUpdatesRequest(order_id=order.order_id)
        )
        async for update in stream:
            if update.sequence == 1 + number % 3:
                try:
                    async with calling:
                        await cancel(shop, order.order_id)
                    won = True
                except grpc.RpcError as error:
                    if ServiceError.from_rpc(error).reason not in ("TOO_LATE", "ORDER_ENDED"):
                        raise
        async with calling:
            found = await shop.orders.GetOrder(pb.GetOrderRequest(order_id=order.order_id))
        return found.order, won

    shipped = 0
    for order, won in await asyncio.gather(*(race(number) for number in range(30))):
        assert order.status in ENDED
        assert (order.status == pb.ORDER_STATUS_CANCELLED) == won
        books = await ledger(shop, order.order_id)
        kept = 0 if won else 1
        assert (books.money, books.units) == (499 * kept, kept)
        assert books.captures <= 1
        shipped += kept
    assert await stock(shop, "tea") == (1000 - shipped, 0)


async def test_services_and_the_broker_come_and_go(shop: Shop, broker: NatsServer) -> None:
    """Orders that are under way end well, once each, whatever is restarted meanwhile."""
    await shop.product("tea", on_hand=1000)
    wanted = await request(shop, quantity=1)
    orders = [await place(shop, wanted) for _ in range(6)]
    for service in ("payments", "shipping", "inventory"):
        await shop.stop(service)
        await shop.start(service)
    await broker.restart()
    orders.append(await place(shop, wanted))
    await shop.stop("orders")
    await shop.start("orders")

    for order in orders:
        assert kinds(await updates(shop, order.order_id)) == GOOD
        assert await ledger(shop, order.order_id) == Ledger(1, 499, 1, 1)
    assert await stock(shop, "tea") == (1000 - len(orders), 0)


async def test_lost_answers_and_events_that_come_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work that was not answered, and events that are handled twice, charge and ship once."""
    for party in (CARDS, CARRIER):
        await behave(shop, party, sandbox_pb2.BEHAVIOR_LOSE_ANSWER, calls=1)
    order = await place(shop, await request(shop))
    assert kinds(await updates(shop, order.order_id)) == GOOD

    monkeypatch.setattr(pull, "HEARTBEAT", 0.5)
    monkeypatch.setattr(inbox, "AUDIT", 1.0)
    monkeypatch.setattr(inbox, "GRACE", 0.5)
    received = {"inventory": 2, "payments": 1, "shipping": 1, "orders": 4}
    for service in received:
        # As with a restored copy: what was received is not remembered, and read again.
        database = shop.runtimes[service].database
        await database.write(lambda tx: tx.execute("DELETE FROM inbox"))
        await database.write(
            lambda tx: tx.execute("UPDATE consumed SET position = 0, event_id = ''")
        )
        await shop.stop(service)
        await shop.start(service)

    async def again() -> bool:
        for service, events in received.items():
            counts = [
                await shop.runtimes[service].database.read(
                    lambda tx, t=table: tx.value(f"SELECT COUNT(*) FROM {t}")  # type: ignore[misc]
                )
                for table in ("inbox", "work")
            ]
            if counts != [events, 0]:
                return False
        return True

    await until(again, "all events to be handled again", seconds=60)
    assert await ledger(shop, order.order_id) == Ledger(1, 998, 1, 2)
    assert kinds(await updates(shop, order.order_id)) == GOOD
    for service in received:
        assert await parked(shop, service) == []


async def test_without_a_broker_the_records_are_enough(
    tmp_path: Path, shop_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the broker is away, what each service says is read from its record."""
    monkeypatch.setattr(pull, "HEARTBEAT", 0.5)
    monkeypatch.setattr(inbox, "AUDIT", 0.5)
    monkeypatch.setattr(inbox, "GRACE", 0.1)
    monkeypatch.setattr(inbox, "RETRY", 0.5)
    async with running_shop(tmp_path, *PARTS, database_url=shop_database) as shop:
        await shop.product("tea", 499, on_hand=10)
        order = await place(shop, await request(shop))
        assert kinds(await updates(shop, order.order_id)) == GOOD
        assert await ledger(shop, order.order_id) == Ledger(1, 998, 1, 2)
        assert await stock(shop, "tea") == (8, 0)


async def test_what_others_undo_ends_the_order(shop: Shop) -> None:
    """A refund and a release by hand leave no order hanging: it fails, or an operator sees it."""
    await behave(shop, CARDS, sandbox_pb2.BEHAVIOR_FAIL)
    wanted = await request(shop)
    refunded = await place(shop, wanted)
    payments = PaymentServiceStub(shop.channel("payments"))
    await behave(shop, CARDS, sandbox_pb2.BEHAVIOR_NORMAL)
    await payments.Refund(RefundRequest(order_id=refunded.order_id))
    seen = kinds(await updates(shop, refunded.order_id))
    assert seen in (
        ["Placed", "Created", "Undoing", "Failed"],
        GOOD,  # It was charged and shipped before.
    )

    await behave(shop, CARRIER, sandbox_pb2.BEHAVIOR_FAIL)
    stuck = (await place(shop, wanted)).order_id
    inventory = InventoryServiceStub(shop.channel("inventory"))
    await inventory.ReleaseStock(ReleaseStockRequest(order_id=stuck))
    await behave(shop, CARRIER, sandbox_pb2.BEHAVIOR_NORMAL)

    async def is_parked() -> bool:
        return ("inbox:shipping", stuck) in await parked(shop, "inventory")

    await until(is_parked, "the order to be parked", seconds=60)


def _heard(*heard: Message) -> dict[str, bytes]:
    return {each.DESCRIPTOR.full_name: each.SerializeToString() for each in heard}


RESERVED: Final = stock_events.StockReserved()
RELEASED: Final = stock_events.StockReleased()
COMMITTED: Final = stock_events.StockCommitted()
REJECTED: Final = stock_events.StockRejected(reason="OUT_OF_STOCK", detail="none left")
CAPTURED: Final = payment_events.PaymentCaptured(payment_id="p")
DECLINED: Final = payment_events.PaymentDeclined(reason="CARD_DECLINED", detail="no")
REFUNDED: Final = payment_events.PaymentRefunded()
BOOKED: Final = shipment_events.ShipmentBooked(shipment_id="s", tracking_number="t")
REFUSED: Final = shipment_events.ShipmentRefused(reason="NO_CARRIER", detail="too far")

WAYS: Final[list[tuple[Sequence[Message], list[str]]]] = [
    ([RESERVED, CAPTURED, BOOKED, COMMITTED], GOOD),
    ([REJECTED], ["Placed", "Rejected"]),
    ([RESERVED, DECLINED, RELEASED], ["Placed", "Created", "Undoing", "Failed"]),
    (
        [RESERVED, CAPTURED, REFUSED, REFUNDED, RELEASED],
        ["Placed", "Created", "Paid", "ShippingStarted", "Undoing", "Failed"],
    ),
]


@given(
    st.sampled_from(WAYS).flatmap(
        lambda way: st.tuples(
            st.just(way[1]),
            # Anything may come twice, and in any order but that of one service.
            st.permutations([*way[0], *way[0]]),
        )
    )
)
def test_what_comes_in_any_order_ends_alike(way: tuple[list[str], list[Message]]) -> None:
    """The end does not depend on the order in which three services were heard, nor on repeats."""
    expected, arriving = way
    order = pb.Order()
    placed = OrderPlaced(order_id=uuid7(), fulfilment=FULFILMENT_CHOREOGRAPHED)
    domain.apply(order, placed, 1, 1.0)
    seen, heard = ["Placed"], dict[str, bytes]()
    for event in arriving:
        heard |= _heard(event)
        while (follow := follows(order, Heard(heard))) is not None:
            domain.apply(order, follow, order.sequence + 1, 1.0)
            seen.append(follow.DESCRIPTOR.name.removeprefix("Order"))
    # A refund that is heard of before its charge is one of others: nothing is shipped then.
    assert seen == expected or (REFUNDED in arriving and seen[-1] == "Failed")


def test_a_cancelled_order_ends_when_all_is_given_back() -> None:
    """Neither the money nor the stock alone ends it, and nothing that comes late revives it."""
    order = pb.Order(status=pb.ORDER_STATUS_UNDOING, order_id=uuid7())
    order.failure.reason = pb.FAILURE_REASON_CANCELLED
    for part in ([REFUNDED, CAPTURED], [RELEASED, RESERVED], [CAPTURED, BOOKED]):
        assert follows(order, Heard(_heard(*part))) is None
    for money in (REFUNDED, DECLINED):
        for goods in (RELEASED, REJECTED):
            ending = follows(order, Heard(_heard(RESERVED, money, goods)))
            assert type(ending).__name__ == "OrderCancelled"
