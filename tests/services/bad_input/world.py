"""A running shop with something in it, called from outside with whatever bytes a test likes.

The services run in a thread with an event loop of its own, as they would in other processes: a
service that is busy with a bad request does not hold up the test that sent it.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.message import Message

from accord.ops.v1 import mesh_pb2 as mesh
from accord_runtime.grpc.ids import uuid7
from shop.analytics.v1 import analytics_pb2 as analytics
from shop.common.v1.money_pb2 import Money
from shop.customers.v1 import customers_pb2 as customers
from shop.inventory.v1 import inventory_pb2 as inventory
from shop.orders.v1 import orders_pb2 as orders
from shop.payments.v1 import payments_pb2 as payments
from shop.sandbox.v1 import sandbox_pb2 as sandbox
from shop.shipping.v1 import shipping_pb2 as shipping
from tests.services.bad_input.caller import PATIENCE, Caller
from tests.services.bad_input.contract import METHOD, RPCS
from tests.support.nats import nats_server
from tests.support.shop import Shop, address, euros, order_request, running_shop

T = TypeVar("T")

EMAIL: Final = "ada@example.com"
"""The e-mail address of the customer."""
USED_KEY: Final = "used"
"""An idempotency key under which every RPC that requires one was called."""


class World(Caller):
    """The shop, and the ids of what is in it."""

    def order(self, order_id: str) -> orders.Order:
        """An order as it is now."""
        request = orders.GetOrderRequest(order_id=order_id)
        order: orders.Order = self.do("shop.orders.v1.OrderService/GetOrder", request).order
        return order

    def until(self, order_id: str, status: "orders.OrderStatus.ValueType") -> None:
        """Wait until an order has a status."""
        self._wait(lambda: self.order(order_id).status == status)
        # The last thing that an order changes is the position of its events.
        numbered = "SELECT COUNT(*) FROM events WHERE position IS NULL"
        self._wait(lambda: self.count("orders", numbered) == 0)

    def behave(
        self,
        party: "sandbox.Party.ValueType",
        behavior: "sandbox.Behavior.ValueType",
        calls: int = 0,
    ) -> None:
        """Tell the outside world how to behave."""
        self.do(
            "shop.sandbox.v1.SandboxService/SetBehavior",
            sandbox.SetBehaviorRequest(party=party, behavior=behavior, calls=calls),
        )

    @contextmanager
    def an_order_being_shipped(self) -> Iterator[str]:
        """An order that stays SHIPPING for as long as the block lasts."""
        self.behave(sandbox.PARTY_CARRIER, sandbox.BEHAVIOR_FAIL)
        try:
            order_id = self.place("tea")
            self.until(order_id, orders.ORDER_STATUS_SHIPPING)
            mine = f"SELECT COUNT(*) FROM shipment WHERE order_id = '{order_id}'"
            self._wait(lambda: self.count("shipping", mine) == 1)
            yield order_id
        finally:
            self.behave(sandbox.PARTY_CARRIER, sandbox.BEHAVIOR_NORMAL)

    def calm(self) -> None:
        """Take back what an operator or the outside world was told."""
        service = "accord.ops.v1.MeshService"
        self.do(f"{service}/ClearFault", mesh.ClearFaultRequest(method=METHOD, reason="over"))
        clear = mesh.ClearOverrideRequest(method=METHOD, reason="over")
        self.do(f"{service}/ClearOverride", clear)
        for party in (sandbox.PARTY_CARD_PROCESSOR, sandbox.PARTY_CARRIER):
            self.behave(party, sandbox.BEHAVIOR_NORMAL)

    def place(self, sku: str, key: str = "") -> str:
        """Place an order for one of a product."""
        request = order_request(self.customer, {sku: 1})
        name = "shop.orders.v1.OrderService/CreateOrder"
        return str(self.do(name, request, key).order.order_id)

    def ids(self) -> Sequence[str]:
        """Ids of the customer and of all orders."""
        return (
            *(self.customer, self.confirmed, self.rejected, self.reserved, self.released),
            *(self.committed, self.captured, self.declined, self.refunded, self.booked),
            *(self.not_served, self.cancelled),
        )

    def furnish(self) -> None:
        """Put something of everything into the shop."""
        self._customer_and_stock()
        self._reservations()
        self._payments()
        self._shipments()
        self._outside_world()
        rebuild = analytics.RebuildViewRequest(name="sales")
        self.do("shop.analytics.v1.AnalyticsService/RebuildView", rebuild, USED_KEY)
        self.confirmed = self.place("tea", USED_KEY)
        self.rejected = self.place("unknown")
        self.until(self.confirmed, orders.ORDER_STATUS_CONFIRMED)

    def submit(self, *, broker: bool) -> None:
        """Submit an order, and wait for its end; without a broker it waits in its queue."""
        request = orders.SubmitOrderRequest(order=order_request(self.customer, {"tea": 1}))
        name = "shop.orders.v1.OrderService/SubmitOrder"
        submitted = self.do(name, request, USED_KEY).order_id
        if not broker:
            return
        for left in ("intake", "command"):
            self._wait(lambda table=left: not self.count("orders", f"SELECT COUNT(*) FROM {table}"))  # type: ignore[misc]
        self.until(submitted, orders.ORDER_STATUS_CONFIRMED)

    def _customer_and_stock(self) -> None:
        service = "shop.inventory.v1.InventoryService"
        self.customer = self.do(
            "shop.customers.v1.CustomerService/CreateCustomer",
            customers.CreateCustomerRequest(name="Ada", email=EMAIL, address=address()),
            USED_KEY,
        ).customer.customer_id
        for sku, on_hand in (("tea", 1_000_000), ("rare", 1)):
            product = inventory.UpsertProductRequest(
                sku=sku, name=sku, price=euros(499), on_hand=on_hand
            )
            self.do(f"{service}/UpsertProduct", product)

    def _reservations(self) -> None:
        service = "shop.inventory.v1.InventoryService"
        self.reserved, self.released, self.committed = uuid7(), uuid7(), uuid7()
        for order_id in (self.reserved, self.released, self.committed):
            line = inventory.ReserveLine(sku="tea", quantity=2, unit_price=euros(499))
            request = inventory.ReserveStockRequest(order_id=order_id, lines=[line])
            self.do(
                f"{service}/ReserveStock", request, USED_KEY if order_id == self.reserved else ""
            )
        # A refusal is put on record: it is made here, and repeated later.
        self.short, self.unknown, self.cheap, self.foreign = (uuid7() for _ in range(4))
        for order_id, sku, price in (
            (self.short, "rare", euros(499)),
            (self.unknown, "unknown", euros(499)),
            (self.cheap, "tea", euros(1)),
            (self.foreign, "tea", Money(minor_units=499, currency_code="USD")),
        ):
            line = inventory.ReserveLine(sku=sku, quantity=2, unit_price=price)
            request = inventory.ReserveStockRequest(order_id=order_id, lines=[line])
            self._refused(f"{service}/ReserveStock", request)
        self.do(f"{service}/ReleaseStock", inventory.ReleaseStockRequest(order_id=self.released))
        self.do(f"{service}/CommitStock", inventory.CommitStockRequest(order_id=self.committed))

    def _payments(self) -> None:
        service = "shop.payments.v1.PaymentService"
        self.captured, self.declined, self.refunded = uuid7(), uuid7(), uuid7()
        charge = payments.ChargeRequest(
            order_id=self.captured, amount=euros(499), card_token="tok_visa"
        )
        self.do(f"{service}/Charge", charge, USED_KEY)
        self._refused(
            f"{service}/Charge",
            payments.ChargeRequest(
                order_id=self.declined, amount=euros(499), card_token="tok_declined"
            ),
        )
        self.do(f"{service}/Refund", payments.RefundRequest(order_id=self.refunded))

    def _shipments(self) -> None:
        service = "shop.shipping.v1.ShippingService"
        self.booked, self.not_served, self.cancelled = uuid7(), uuid7(), uuid7()
        line = shipping.ParcelLine(sku="tea", quantity=2)
        booking = shipping.CreateShipmentRequest(
            order_id=self.booked, ship_to=address(), lines=[line]
        )
        self.do(f"{service}/CreateShipment", booking, USED_KEY)
        self._refused(
            f"{service}/CreateShipment",
            shipping.CreateShipmentRequest(
                order_id=self.not_served, ship_to=address("AQ"), lines=[line]
            ),
        )
        self.do(
            f"{service}/CancelShipment", shipping.CancelShipmentRequest(order_id=self.cancelled)
        )

    def _outside_world(self) -> None:
        cards = "shop.sandbox.v1.CardProcessorService"
        carrier = "shop.sandbox.v1.CarrierService"
        self.do(f"{cards}/Capture", capture("taken"))
        self.do(f"{cards}/Capture", capture("reversed"))
        self.do(f"{cards}/Reverse", sandbox.ReverseRequest(key="reversed", reference="r"))
        self._refused(f"{cards}/Capture", capture("declined", card="tok_declined"))
        self.do(f"{carrier}/BookParcel", parcel("booked"))
        self.do(f"{carrier}/BookParcel", parcel("handed over"))
        self._refused(f"{carrier}/BookParcel", parcel("not served", country="AQ"))
        cancel = sandbox.CancelParcelRequest(key="cancelled", reference="r")
        self.do(f"{carrier}/CancelParcel", cancel)
        self.behave(sandbox.PARTY_CARRIER, sandbox.BEHAVIOR_DECLINE, calls=1)
        cancel.key = "handed over"
        self._refused(f"{carrier}/CancelParcel", cancel)

    def _refused(self, name: str, request: Message) -> None:
        rpc = RPCS[name]
        metadata = (("idempotency-key", uuid7()),) if rpc.keyed else ()
        answer = self.call(rpc, request, metadata=metadata)
        assert answer.code is grpc.StatusCode.FAILED_PRECONDITION, answer

    def _wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)


def capture(key: str, cents: int = 499, card: str = "tok_visa") -> sandbox.CaptureRequest:
    """A request to the card processor."""
    return sandbox.CaptureRequest(key=key, reference="r", amount=euros(cents), card_token=card)


def parcel(key: str, units: int = 2, country: str = "DE") -> sandbox.BookParcelRequest:
    """A request to the carrier."""
    return sandbox.BookParcelRequest(key=key, reference="r", ship_to=address(country), units=units)


@contextmanager
def running_world(home: Path, *, broker: bool = False) -> Iterator[World]:
    """Start all services in a thread, with or without a broker, and furnish the shop."""
    with _event_loop() as run:
        stack = AsyncExitStack()

        async def start() -> Shop:
            url = (await stack.enter_async_context(nats_server())).url if broker else ""
            return await stack.enter_async_context(running_shop(home, nats_url=url))

        shop = run(start())
        try:
            with closing(World(shop)) as world:
                world.furnish()
                world.submit(broker=broker)
                yield world
        finally:
            run(stack.aclose())


class _Run:
    """Runs coroutines in another thread's event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __call__(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)


@contextmanager
def _event_loop() -> Iterator[_Run]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="shop")
    thread.start()
    try:
        yield _Run(loop)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
