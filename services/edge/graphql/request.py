"""One request: for whom it is, what that one may see, and what has been loaded for it."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol, TypeVar

from strawberry.dataloader import DataLoader

import accord
from accord.errors import InvalidArgument, ServiceError
from shop.customers.v1 import customers_pb2 as customers
from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub
from shop.inventory.v1 import inventory_pb2 as inventory
from shop.inventory.v1.inventory_pb2_grpc import InventoryServiceStub
from shop.orders.v1 import orders_pb2 as orders
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub
from shop.shipping.v1 import shipping_pb2 as shipping
from shop.shipping.v1.shipping_pb2_grpc import ShippingServiceStub

MOST: Final = 100
"""Of a list that a caller asks for, and ids of one batch, as the contracts have it."""

GET_ORDER: Final = "shop.orders.v1.OrderService/GetOrder"
LIST_ORDERS: Final = "shop.orders.v1.OrderService/ListOrders"
GET_CUSTOMER: Final = "shop.customers.v1.CustomerService/GetCustomer"
GET_STOCK: Final = "shop.inventory.v1.InventoryService/GetStock"

Metadata = tuple[tuple[str, str], ...]
V = TypeVar("V")


class Access(Protocol):
    """Who sends a request, and what that one may do: an `accord.edge.Edge`."""

    @property
    def routes(self) -> Mapping[str, Any]:
        """What is reached from outside, by method: "/pkg.Service/Method"."""

    async def caller(self, scope: Any) -> Any:
        """Who sends a request; None: nobody says so. Raises ServiceError: the token is invalid."""

    def permit(self, scope: Any, caller: Any, route: Any) -> None:
        """That a caller may call an RPC now, by its scopes and rate. Raises ServiceError."""

    def metadata(self, scope: Any, caller: Any) -> Metadata:
        """What goes with calls that are made for a request."""


class Services:
    """The services that are asked."""

    def __init__(self, mesh: accord.Mesh) -> None:
        self.orders = OrderServiceStub(mesh.channel("orders"))
        self.customers = CustomerServiceStub(mesh.channel("customers"))
        self.inventory = InventoryServiceStub(mesh.channel("inventory"))
        self.shipping = ShippingServiceStub(mesh.channel("shipping"))


class Request:
    """What resolvers ask. What is reached by a join is loaded by a batch for all who ask."""

    def __init__(self, services: Services, access: Access, scope: Any, caller: Any) -> None:
        """`scope` is the one of ASGI; `caller` as `Access.caller` has it."""
        self._services = services
        self._access = access
        self._scope = scope
        self._caller = caller
        self._metadata = access.metadata(scope, caller)
        self._permitted: dict[str, ServiceError | None] = {}
        self._customers = DataLoader(self._load_customers, MOST)
        self._products = DataLoader(self._load_products, MOST)
        self._shipments = DataLoader(self._load_shipments, MOST)

    async def order(self, order_id: str) -> orders.Order:
        """An order."""
        self._allow(GET_ORDER)
        asked = orders.GetOrderRequest(order_id=order_id)
        return (await self._services.orders.GetOrder(asked, metadata=self._metadata)).order

    async def order_page(self, first: int, after: str) -> orders.ListOrdersResponse:
        """A page of orders, newest first."""
        self._allow(LIST_ORDERS)
        if not 1 <= first <= MOST:
            raise InvalidArgument(("first", f"must be 1 to {MOST}"))
        asked = orders.ListOrdersRequest(page_size=first, page_token=after)
        return await self._services.orders.ListOrders(asked, metadata=self._metadata)

    async def customer(self, customer_id: str) -> customers.Customer:
        """A customer."""
        self._allow(GET_CUSTOMER)
        asked = customers.GetCustomerRequest(customer_id=customer_id)
        answer = await self._services.customers.GetCustomer(asked, metadata=self._metadata)
        return answer.customer

    async def product(self, sku: str) -> inventory.Product:
        """A product."""
        self._allow(GET_STOCK)
        asked = inventory.GetStockRequest(sku=sku)
        return (await self._services.inventory.GetStock(asked, metadata=self._metadata)).product

    async def products(self, skus: list[str]) -> list[inventory.Product | None]:
        """Products in the order of their SKUs; None for what there is not."""
        self._allow(GET_STOCK)
        return await self._load_products(skus)

    async def joined_customer(self, customer_id: str) -> customers.Customer | None:
        """The customer that something names."""
        self._allow_joins(GET_CUSTOMER)
        return await self._customers.load(customer_id)

    async def joined_product(self, sku: str) -> inventory.Product | None:
        """The product that something names."""
        self._allow_joins(GET_STOCK)
        return await self._products.load(sku)

    async def joined_shipment(self, order_id: str) -> shipping.Shipment | None:
        """The shipment of an order that this caller was shown."""
        self._allow_joins(GET_ORDER)
        return await self._shipments.load(order_id)

    def _allow(self, method: str) -> None:
        """Refuse who may not call an RPC, or not now; a method of no route is nobody's."""
        self._access.permit(self._scope, self._caller, self._access.routes[f"/{method}"])

    def _allow_joins(self, method: str) -> None:
        """The same, once for all that is reached by joins: it is one call."""
        if method not in self._permitted:
            self._permitted[method] = None
            try:
                self._allow(method)
            except ServiceError as refused:
                self._permitted[method] = refused
        if (failed := self._permitted[method]) is not None:
            raise failed

    async def _load_customers(self, ids: list[str]) -> list[customers.Customer | None]:
        asked = customers.BatchGetCustomersRequest(customer_ids=ids)
        answer = await self._services.customers.BatchGetCustomers(asked, metadata=self._metadata)
        return _each(ids, {each.customer_id: each for each in answer.customers})

    async def _load_products(self, skus: list[str]) -> list[inventory.Product | None]:
        asked = inventory.BatchGetStockRequest(skus=skus)
        answer = await self._services.inventory.BatchGetStock(asked, metadata=self._metadata)
        return _each(skus, {each.sku: each for each in answer.products})

    async def _load_shipments(self, ids: list[str]) -> list[shipping.Shipment | None]:
        # In the edge's own name: shipping does not know whose they are, and orders has said it.
        asked = shipping.BatchGetShipmentsRequest(order_ids=ids)
        answer = await self._services.shipping.BatchGetShipments(asked)
        return _each(ids, {each.order_id: each for each in answer.shipments})


def _each(keys: Iterable[str], found: Mapping[str, V]) -> list[V | None]:
    return [found.get(key) for key in keys]
