"""The types of the graph, and where each field comes from.

A value of a type is the message of the contract, and a field without a resolver is its field of
the same name. int64 is a string, as in protobuf's JSON: numbers of JavaScript end at 2^53.
"""

from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any, NewType, cast

import strawberry
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from graphql import GraphQLError
from strawberry.federation.schema import FederationAny
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext, get_object_definition

from accord.errors import InvalidArgument
from services.edge.graphql.limits import Limits, OpenLimits
from services.edge.graphql.request import Request
from shop.customers.v1 import customers_pb2 as customers
from shop.inventory.v1 import inventory_pb2 as inventory
from shop.orders.v1 import orders_pb2 as orders
from shop.shipping.v1 import shipping_pb2 as shipping

Info = strawberry.Info[Request, None]
Int64 = NewType("Int64", int)
DateTime = NewType("DateTime", Timestamp)


def _enum(names: Any) -> Any:  # the stubs have no type for a protobuf enum
    """An enum of a contract, without the prefix of its names; its field has the number."""
    name = names.DESCRIPTOR.name
    prefix = names.keys()[0].removesuffix("UNSPECIFIED")
    kind: Any = Enum
    members = {key.removeprefix(prefix): number for key, number in names.items()}
    return strawberry.enum(kind(name, members))


@strawberry.type
class Money:
    """An amount: 1999 minor units of EUR are 19.99 euros."""

    minor_units: Int64
    currency_code: str


@strawberry.type
class Address:
    """A postal address."""

    name: str
    line1: str
    line2: str
    city: str
    postal_code: str
    country_code: str


@strawberry.federation.type(keys=["id"])
class Customer:
    """A customer."""

    id: strawberry.ID = strawberry.field(resolver=lambda root: root.customer_id)
    name: str
    email: str
    address: Address | None
    created_at: DateTime

    @classmethod
    def is_type_of(cls, value: object, _: object) -> bool:
        """Whether a value is one."""
        return isinstance(value, customers.Customer)

    @classmethod
    async def resolve_reference(cls, info: Info, id: str) -> object:  # noqa: A002
        """The customer that another subgraph names."""
        return await info.context.joined_customer(id)


@strawberry.federation.type(keys=["sku"])
class Product:
    """A product with its stock."""

    sku: strawberry.ID
    name: str
    price: Money
    on_hand: Int64
    reserved: Int64
    available: Int64

    @classmethod
    def is_type_of(cls, value: object, _: object) -> bool:
        """Whether a value is one."""
        return isinstance(value, inventory.Product)

    @classmethod
    async def resolve_reference(cls, info: Info, sku: str) -> object:
        """The product that another subgraph names."""
        return await info.context.joined_product(sku)


@strawberry.type
class Shipment:
    """The parcel of an order."""

    id: strawberry.ID = strawberry.field(resolver=lambda root: root.shipment_id)
    state: int = strawberry.field(graphql_type=_enum(shipping.ShipmentState))
    tracking_number: str = strawberry.field(description="Empty until it is booked.")
    units: Int64
    refusal_reason: str = strawberry.field(description="Why no carrier took it, or empty.")
    updated_at: DateTime


@strawberry.type
class OrderItem:
    """What is ordered."""

    sku: strawberry.ID
    quantity: int
    unit_price: Money

    @strawberry.field
    async def product(self, info: Info) -> Product | None:
        """The product as it is now; null if it is not sold any more."""
        return cast("Product | None", await info.context.joined_product(self.sku))


@strawberry.type
class Failure:
    """Why an order did not end well."""

    reason: int = strawberry.field(graphql_type=_enum(orders.FailureReason))
    detail: str


@strawberry.type
class Order:
    """An order."""

    id: strawberry.ID = strawberry.field(resolver=lambda root: root.order_id)
    status: int = strawberry.field(graphql_type=_enum(orders.OrderStatus))
    customer_id: strawberry.ID
    items: list[OrderItem]
    total: Money
    ship_to: Address
    failure: Failure | None
    tracking_number: str = strawberry.field(description="Empty until the parcel is booked.")
    notes: list[str]
    created_at: DateTime
    updated_at: DateTime

    @strawberry.field
    async def customer(self, info: Info) -> Customer | None:
        """Who ordered."""
        return cast("Customer | None", await info.context.joined_customer(self.customer_id))

    @strawberry.field
    async def shipment(self, info: Info) -> Shipment | None:
        """Its parcel; null until it is handed to the carrier."""
        found = await info.context.joined_shipment(cast("orders.Order", self).order_id)
        return cast("Shipment | None", found)


@strawberry.type
class OrderPage:
    """Some orders, newest first."""

    nodes: list[Order] = strawberry.field(resolver=lambda root: root.orders)
    next: str | None = strawberry.field(
        resolver=lambda root: root.next_page_token or None,
        description="`after` of the next page; null on the last.",
    )


@strawberry.type
class Query:
    """What can be asked."""

    @strawberry.field
    async def order(self, info: Info, id: strawberry.ID) -> Order | None:  # noqa: A002
        """An order."""
        return cast("Order", await info.context.order(id))

    @strawberry.field
    async def orders(
        self, info: Info, first: int = 20, after: str | None = None
    ) -> OrderPage | None:
        """Orders, newest first, 1 to 100 at a time."""
        return cast("OrderPage", await info.context.order_page(first, after or ""))

    @strawberry.field
    async def customer(self, info: Info, id: strawberry.ID) -> Customer | None:  # noqa: A002
        """A customer."""
        return cast("Customer", await info.context.customer(id))

    @strawberry.field
    async def product(self, info: Info, sku: strawberry.ID) -> Product | None:
        """A product."""
        return cast("Product", await info.context.product(sku))

    @strawberry.field
    async def products(self, info: Info, skus: list[strawberry.ID]) -> list[Product | None] | None:
        """Products, 1 to 100, each once; null for what there is not."""
        return cast("list[Product | None]", await info.context.products([*skus]))


_TYPES = (Money, Address, Customer, Product, Shipment, OrderItem, Failure, Order, OrderPage, Query)


def _describe() -> None:
    """What is written of types and resolvers is written for callers, too."""
    for kind in _TYPES:
        found = get_object_definition(kind, strict=True)
        found.description = kind.__doc__
        for field in found.fields:
            if field.base_resolver is not None and field.description is None:
                field.description = field.base_resolver.wrapped_func.__doc__


_describe()


def _read(message: Message, name: str) -> object:
    """A field of a message; None for a message that is absent."""
    value = getattr(message, name)
    if isinstance(value, Message) and not message.HasField(name):
        return None
    return value


class Schema(strawberry.federation.Schema):
    """Logs no error: who answers the request knows which of them are expected."""

    def process_errors(
        self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None
    ) -> None:
        """Nothing; see `services.edge.graphql.errors`."""

    def entities_resolver(
        self, info: strawberry.Info, representations: list[FederationAny]
    ) -> list[FederationAny]:
        """What other subgraphs name: of a type that has a key, and by that alone."""
        for each in representations:
            keys = {"Customer": "id", "Product": "sku"}
            named = dict(each) if isinstance(each, Mapping) else {}
            key = keys.get(str(named.pop("__typename", "")), "")
            if [*named] != [key] or not isinstance(named[key], str):
                raise InvalidArgument(("representations", "must have __typename and its key"))
        return super().entities_resolver(info, representations)


@cache
def schema(*, development: bool = False) -> Schema:
    """The schema; in development it may be asked for."""
    return Schema(
        Query,
        extensions=[OpenLimits if development else Limits],
        config=StrawberryConfig(
            default_resolver=cast("Any", _read),
            disable_field_suggestions=not development,
            scalar_map={
                Int64: strawberry.scalar(
                    name="Int64", description="A whole number as a string.", serialize=str
                ),
                DateTime: strawberry.scalar(
                    name="DateTime",
                    description="A time in UTC, as in RFC 3339.",
                    serialize=Timestamp.ToJsonString,
                ),
            },
        ),
    )
