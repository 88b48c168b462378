"""What payments, inventory and shipping publish about the orders that they serve."""

from collections import defaultdict
from collections.abc import AsyncIterable
from pathlib import Path
from typing import Any, Final

from shop.inventory.v1 import inventory_pb2
from shop.inventory.v1.inventory_pb2_grpc import InventoryServiceStub
from shop.orders.v1 import orders_pb2 as pb
from shop.payments.v1 import payments_pb2
from shop.payments.v1.events_pb2 import PaymentCaptured
from shop.payments.v1.payments_pb2_grpc import PaymentServiceStub
from shop.shipping.v1 import shipping_pb2
from shop.shipping.v1.shipping_pb2_grpc import ShippingServiceStub
from tests.services.orders.books import updates
from tests.services.orders.conftest import shop_database as shop_database
from tests.services.orders.test_flow import place
from tests.support.nats import NatsServer, nats_server
from tests.support.shop import Shop, order_request, running_shop
from tests.support.wait import until

READERS: Final[dict[str, tuple[Any, Any]]] = {
    "inventory": (InventoryServiceStub, inventory_pb2.ReadEventsRequest),
    "payments": (PaymentServiceStub, payments_pb2.ReadEventsRequest),
    "shipping": (ShippingServiceStub, shipping_pb2.ReadEventsRequest),
}


async def record(shop: Shop, service: str, **asked: Any) -> list[Any]:
    """The record of a service, as its callers read it."""
    stub, request = READERS[service]
    found: AsyncIterable[Any] = stub(shop.channel(service)).ReadEvents(request(**asked))
    return [each async for each in found]


async def on_broker(server: NatsServer, service: str, wanted: int) -> None:
    """Wait until so many events of a service are published, and no more."""
    async with server.jetstream() as jetstream:

        async def published() -> bool:
            return (await jetstream.stream_info(service.upper())).state.messages == wanted

        await until(published, f"the events of {service} to be published")


async def test_each_service_publishes_what_it_does(tmp_path: Path, shop_database: str) -> None:
    """Whatever becomes of an order, its way can be read from three records, and from the broker."""
    names = ("sandbox", "customers", *READERS, "orders")
    async with (
        nats_server() as server,
        running_shop(tmp_path, *names, database_url=shop_database, nats_url=server.url) as shop,
    ):
        await shop.product("tea", 499, on_hand=10)
        customer = await shop.customer()
        ways = {
            "good": order_request(customer, {"tea": 2}),
            "short": order_request(customer, {"tea": 11}),
            "declined": order_request(customer, {"tea": 1}, card="tok_declined"),
            "refused": order_request(customer, {"tea": 1}, country="AQ"),
        }
        orders = {way: (await place(shop, request)).order_id for way, request in ways.items()}
        for order_id in orders.values():
            await updates(shop, order_id)
        cancel = shipping_pb2.CancelShipmentRequest(order_id=orders["declined"])
        await ShippingServiceStub(shop.channel("shipping")).CancelShipment(cancel)

        told: dict[str, list[str]] = defaultdict(list)
        for service in READERS:
            events = await record(shop, service)
            assert [each.position for each in events] == list(range(1, len(events) + 1))
            assert await record(shop, service, after_position=1) == events[1:]
            for way, order_id in orders.items():
                mine = [each.event for each in events if each.event.key == order_id]
                assert [event.sequence for event in mine] == list(range(1, len(mine) + 1))
                told[way] += [event.type.rpartition(".")[2] for event in mine]
            await on_broker(server, service, len(events))

        assert dict(told) == {
            "good": ["StockReserved", "StockCommitted", "PaymentCaptured", "ShipmentBooked"],
            "short": ["StockRejected"],
            "declined": ["StockReserved", "StockReleased", "PaymentDeclined", "ShipmentCancelled"],
            "refused": [
                *("StockReserved", "StockReleased"),
                *("PaymentCaptured", "PaymentRefunded", "ShipmentRefused"),
            ],
        }
        good = (await shop.orders.GetOrder(pb.GetOrderRequest(order_id=orders["good"]))).order
        first = (await record(shop, "payments"))[0].event
        captured = PaymentCaptured.FromString(first.payload.value)
        assert (captured.payment_id, captured.amount) == (good.payment_id, good.total)
