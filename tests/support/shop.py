"""The real shop for tests: every service in this process, on free ports."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc

import accord
from accord_runtime.grpc.ids import uuid7
from accord_runtime.process import running
from accord_runtime.program import CHANNEL_OPTIONS
from accord_runtime.service import Runtime, Service
from accord_runtime.settings import Settings
from services import topology
from shop.common.v1.address_pb2 import Address
from shop.common.v1.fulfilment_pb2 import FULFILMENT_UNSPECIFIED, Fulfilment
from shop.common.v1.money_pb2 import Money
from shop.customers.v1.customers_pb2 import CreateCustomerRequest
from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub
from shop.inventory.v1.inventory_pb2 import Product, UpsertProductRequest
from shop.inventory.v1.inventory_pb2_grpc import InventoryServiceStub
from shop.orders.v1 import orders_pb2
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub
from tests.support.ports import free_offset

ALL = (
    *("sandbox", "customers", "inventory", "payments", "shipping", "notifications", "orders"),
    *("analytics", "accounting"),
)


class Shop:
    """Running services, and what a test needs to use them."""

    def __init__(
        self, home: Path, offset: int, database_url: str, nats_url: str, **settings: Any
    ) -> None:
        self.home = home
        self.offset = offset
        self.runtimes: dict[str, Runtime] = {}
        self._database_url = database_url
        self._nats_url = nats_url
        self._settings = settings
        self._stacks: dict[str, AsyncExitStack] = {}
        self.mesh = accord.Mesh(
            "test", targets=topology.targets(offset), channel_options=CHANNEL_OPTIONS
        )

    def settings(self, name: str) -> Settings:
        """The settings of one of its services."""
        return Settings(
            name=name,
            addresses=topology.addresses(self.offset),
            home=self.home,
            port_offset=self.offset,
            database_url=self._database_url,
            nats_url=self._nats_url,
            **self._settings,
        )

    async def start(self, name: str) -> Runtime:
        """Start a service."""
        service: Service = import_module(f"services.{name}.servicer").SERVICE
        stack = AsyncExitStack()
        self.runtimes[name] = await stack.enter_async_context(running(service, self.settings(name)))
        self._stacks[name] = stack
        return self.runtimes[name]

    async def stop(self, name: str) -> None:
        """Stop a service, gracefully."""
        await self._stacks.pop(name).aclose()

    async def close(self) -> None:
        """Stop everything."""
        await self.mesh.close()
        await asyncio.gather(*(self.stop(name) for name in list(self._stacks)))

    def channel(self, name: str) -> grpc.aio.Channel:
        """A channel with accord's client interceptors."""
        return self.mesh.channel(name)

    @property
    def orders(self) -> OrderServiceStub:
        """The orders service."""
        return OrderServiceStub(self.channel("orders"))

    async def customer(self) -> str:
        """A new customer's id."""
        request = CreateCustomerRequest(name="Ada", email=f"{uuid7()}@example.com")
        stub = CustomerServiceStub(self.channel("customers"))
        response = await stub.CreateCustomer(request, metadata=accord.idempotency_key(uuid7()))
        return response.customer.customer_id

    async def product(self, sku: str, price: int = 499, on_hand: int = 1000) -> Product:
        """A product, priced in euro cents."""
        request = UpsertProductRequest(sku=sku, name=sku, price=euros(price), on_hand=on_hand)
        stub = InventoryServiceStub(self.channel("inventory"))
        return (await stub.UpsertProduct(request)).product


def euros(cents: int) -> Money:
    """An amount in euros."""
    return Money(minor_units=cents, currency_code="EUR")


def address(country: str = "DE") -> Address:
    """An address; the carrier does not go to "AQ"."""
    return Address(name="Ada", line1="Main Street 1", city="Town", country_code=country)


def order_request(
    customer_id: str,
    items: Mapping[str, int],
    *,
    price: int = 499,
    card: str = "tok_visa",
    country: str = "DE",
    fulfilment: "Fulfilment.ValueType" = FULFILMENT_UNSPECIFIED,
) -> orders_pb2.CreateOrderRequest:
    """A request for an order of some products that cost the same."""
    return orders_pb2.CreateOrderRequest(
        customer_id=customer_id,
        items=[
            orders_pb2.OrderItem(sku=sku, quantity=quantity, unit_price=euros(price))
            for sku, quantity in items.items()
        ],
        card_token=card,
        ship_to=address(country),
        fulfilment=fulfilment,
    )


@asynccontextmanager
async def running_shop(
    home: Path,
    *names: str,
    database_url: str = "",
    nats_url: str = "",
    offset: int | None = None,
    **settings: Any,
) -> AsyncIterator[Shop]:
    """Start services (all of them by default); without `nats_url` there is no broker.

    Args:
        home: folder for their state.
        names: which services, in the order to start them.
        database_url: a PostgreSQL server; SQLite files in `home` by default.
        nats_url: a broker.
        offset: port offset; a free one by default.
        settings: further ones of every service.
    """
    offset = free_offset() if offset is None else offset
    shop = Shop(home, offset, database_url, nats_url, **settings)
    try:
        await asyncio.gather(*(shop.start(name) for name in names or ALL))
        yield shop
    finally:
        await shop.close()
