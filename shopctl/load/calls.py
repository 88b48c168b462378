"""The calls, and what they are about: customers, products and orders that are in the shop.

Calls are made bare: what the contracts let callers do - repeat, hedge, keep answers, hold back -
would make fewer of them, or more.
"""

import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from accord import idempotency_key
from accord.contract import method_policy
from accord_runtime.grpc.ids import uuid7
from shop.common.v1.address_pb2 import Address
from shop.common.v1.money_pb2 import Money
from shop.customers.v1.customers_pb2 import CreateCustomerRequest, Customer, ListCustomersRequest
from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub
from shop.inventory.v1 import inventory_pb2 as inventory
from shop.inventory.v1.inventory_pb2_grpc import InventoryServiceStub
from shop.orders.v1 import orders_pb2 as pb
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub
from shopctl.client import Shop
from shopctl.load.runner import Answered, Call

SHARES: Final[Mapping[str, int]] = {"place": 20, "get": 40, "stock": 30, "watch": 10}
"""Kind of call -> how many of a hundred: place an order, get one, get a product, watch an order."""

FEW: Final = 20
"""Customers, products and orders that are taken from those that are there, at most."""

MADE: Final = 10
"""Customers and products that are made if there are none."""

KEPT: Final = 1000
"""The newest orders, to get and to watch."""

WATCH: Final = 30.0
"""Seconds that an order is watched, at most."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What is in the shop."""

    customers: Sequence[Customer]
    products: Sequence[inventory.Product]
    orders: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=KEPT))
    """The newest ones and their customers, the last of them at the end."""

    def order(self) -> pb.CreateOrderRequest:
        """A new order of one of them for one of the others."""
        buyer, product = random.choice(self.customers), random.choice(self.products)
        item = pb.OrderItem(sku=product.sku, quantity=1, unit_price=product.price)
        return pb.CreateOrderRequest(
            customer_id=buyer.customer_id,
            items=[item],
            card_token="tok_visa",
            ship_to=buyer.address,
        )


async def prepare(shop: Shop) -> Stage:
    """What is in the shop; customers, products and an order are made if there are none.

    Raises:
        CommandError: a service does not serve, or refuses.
    """
    async with shop.calling("inventory") as channel:
        stub = InventoryServiceStub(channel)
        listed = [each.product async for each in stub.ListStock(inventory.ListStockRequest())]
        products = [each for each in listed if each.available][:FEW]
        for number in range(0 if products else MADE):
            made = inventory.UpsertProductRequest(
                sku=f"load-{number}",
                name=f"Load {number}",
                price=Money(minor_units=499, currency_code="EUR"),
                on_hand=10**9,
            )
            products.append((await stub.UpsertProduct(made)).product)
    stage = Stage(await _customers(shop), products)
    newest = pb.ListOrdersRequest()
    async for order in shop.rows("orders", OrderServiceStub, "ListOrders", newest, FEW):
        stage.orders.appendleft((order.order_id, order.customer_id))
    if not stage.orders:
        asked = stage.order()
        placed = await shop.change("orders", OrderServiceStub, "CreateOrder", asked, uuid7())
        stage.orders.append((placed.order.order_id, asked.customer_id))
    return stage


async def _customers(shop: Shop) -> list[Customer]:
    found: list[Customer] = []
    async with shop.calling("customers") as channel:
        stub = CustomerServiceStub(channel)
        async for each in stub.ListCustomers(ListCustomersRequest()):
            if each.customer.HasField("address"):
                found.append(each.customer)
            if len(found) == FEW:
                break
        for number in range(0 if found else MADE):
            name = f"Load {number}"
            made = CreateCustomerRequest(
                name=name,
                email=f"{uuid7()}@load.example",
                address=Address(name=name, line1="Main St 1", city="Town", country_code="DE"),
            )
            answer = await stub.CreateCustomer(made, metadata=idempotency_key(uuid7()))
            found.append(answer.customer)
    return found


def over_grpc(shop: Shop, stage: Stage) -> Mapping[str, Call]:
    """Kind of call -> how it is made by gRPC, within the time that its contract has."""
    order_stub = OrderServiceStub(shop.bare_channel("orders"))
    stock_stub = InventoryServiceStub(shop.bare_channel("inventory"))

    async def place(_: Answered) -> None:
        asked, key = stage.order(), idempotency_key(uuid7())
        answer = await order_stub.CreateOrder(asked, metadata=key, timeout=_timeout("CreateOrder"))
        stage.orders.append((answer.order.order_id, asked.customer_id))

    async def get(_: Answered) -> None:
        asked = pb.GetOrderRequest(order_id=random.choice(stage.orders)[0])
        await order_stub.GetOrder(asked, timeout=_timeout("GetOrder"))

    async def stock(_: Answered) -> None:
        asked = inventory.GetStockRequest(sku=random.choice(stage.products).sku)
        service = "shop.inventory.v1.InventoryService"
        await stock_stub.GetStock(asked, timeout=_timeout("GetStock", service))

    async def watch(answered: Answered) -> None:
        asked = pb.StreamOrderUpdatesRequest(order_id=stage.orders[-1][0])
        async for _ in order_stub.StreamOrderUpdates(asked, timeout=WATCH):
            answered()

    return {"place": place, "get": get, "stock": stock, "watch": watch}


def _timeout(name: str, service: str = "shop.orders.v1.OrderService") -> float | None:
    return method_policy(f"{service}/{name}").timeout
