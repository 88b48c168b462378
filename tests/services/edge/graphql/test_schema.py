"""Queries over real services: what they cost, what they show, and what is left when one is away."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import accord
import shop as clients
from accord_runtime.grpc.ids import uuid7
from services.edge.graphql import graphql_app
from services.edge.graphql.request import Request
from services.orders import domain, store
from services.shipping import store as shipments
from shop.common.v1.address_pb2 import Address
from shop.customers.v1.customers_pb2 import CreateCustomerRequest
from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub
from shop.orders.v1 import orders_pb2 as pb
from tests.services.edge.graphql.kit import SHOP, Client, Door, codes
from tests.support.shop import Shop, order_request, running_shop
from tests.support.wait import until

ORDERS = """
query ($first: Int!, $after: String) {
  orders(first: $first, after: $after) {
    nodes {
      id status createdAt
      customer { id name address { city } }
      items { sku quantity unitPrice { minorUnits currencyCode } product { name available } }
      shipment { id state trackingNumber units }
    }
    next
  }
}
"""


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with running_shop(tmp_path, *SHOP) as shop:
        yield shop


def client(shop: Shop, **options: Any) -> Client:
    return Client(graphql_app(shop.mesh, Door(), **options))


async def ada(shop: Shop, name: str = "Ada") -> str:
    """A customer with an address."""
    request = CreateCustomerRequest(
        name=name,
        email=f"{uuid7()}@example.com",
        address=Address(name=name, line1="Main St 1", city="Town", country_code="DE"),
    )
    stub = CustomerServiceStub(shop.channel("customers"))
    made = await stub.CreateCustomer(request, metadata=accord.idempotency_key(uuid7()))
    return made.customer.customer_id


async def place(shop: Shop, customer_id: str, sku: str = "tea") -> str:
    key = accord.idempotency_key(uuid7())
    request = order_request(customer_id, {sku: 2})
    return (await shop.orders.CreateOrder(request, metadata=key)).order.order_id


async def put(shop: Shop, customer_id: str, sku: str) -> str:
    """An order and its shipment, written into the databases: nobody sees it through."""
    placed = domain.placed(uuid7(), order_request(customer_id, {sku: 2}))
    orders, shipping = shop.runtimes["orders"], shop.runtimes["shipping"]
    await orders.database.write(lambda tx: store.place(tx, orders.outbox, placed, "card"))
    await shipping.database.write(
        lambda tx: shipments.open_booking(tx, placed.order_id, 2, None, time.time())
    )
    return placed.order_id


async def confirmed(shop: Shop, order_id: str) -> None:
    async def ended() -> bool:
        answer = await shop.orders.GetOrder(pb.GetOrderRequest(order_id=order_id))
        return answer.order.status == pb.ORDER_STATUS_CONFIRMED

    await until(ended, "the order to be confirmed")


def served(shop: Shop) -> Counter[str]:
    """Method -> how often the services were asked."""
    counts: Counter[str] = Counter()
    for runtime in shop.runtimes.values():
        for method, decided in runtime.mesh.snapshot().served.items():
            counts[method.rpartition("/")[2]] += decided.get("calls", 0)
    return counts


async def test_fifty_orders_cost_four_calls(shop: Shop) -> None:
    """Fifty orders of ten customers, with stock and shipment, are four calls at the services."""
    people = [await ada(shop, f"Ada {number}") for number in range(10)]
    for number in range(5):
        await shop.product(f"tea-{number}")
    placed = [await put(shop, people[n % 10], f"tea-{n % 5}") for n in range(50)]
    before = served(shop)

    answer = await client(shop).ask(ORDERS, first=50)

    made = served(shop) - before
    asked = ("ListOrders", "BatchGetCustomers", "BatchGetStock", "BatchGetShipments")
    assert {name: count for name, count in made.items() if "Get" in name or "List" in name} == (
        dict.fromkeys(asked, 1)
    )
    assert "errors" not in answer
    nodes = answer["data"]["orders"]["nodes"]
    assert [each["id"] for each in nodes] == placed[::-1]
    assert [each["customer"]["id"] for each in nodes] == [people[n % 10] for n in range(50)][::-1]
    assert {each["shipment"]["state"] for each in nodes} == {"PENDING"}
    assert nodes[0]["items"] == [
        {
            "sku": "tea-4",
            "quantity": 2,
            "unitPrice": {"minorUnits": "499", "currencyCode": "EUR"},
            "product": {"name": "tea-4", "available": "1000"},
        }
    ]
    assert answer["data"]["orders"]["next"] is None


async def test_pages_and_single_things(shop: Shop) -> None:
    """Pages follow each other without gap; orders, customers, products are found by their ids."""
    customer = await ada(shop)
    await shop.product("tea")
    placed = [await place(shop, customer) for _ in range(3)]
    asking = client(shop)

    first = (await asking.ask(ORDERS, first=2))["data"]["orders"]
    rest = (await asking.ask(ORDERS, first=2, after=first["next"]))["data"]["orders"]
    listed = [each["id"] for each in first["nodes"] + rest["nodes"]]
    assert (listed, rest["next"]) == (placed[::-1], None)

    query = """query ($order: ID!, $customer: ID!) {
      order(id: $order) { id customerId failure { reason } total { minorUnits } shipTo { city } }
      customer(id: $customer) { name email createdAt }
      product(sku: "tea") { sku price { minorUnits } }
      products(skus: ["none", "tea"]) { name }
    }"""
    answer = await asking.ask(query, order=placed[0], customer=customer)
    assert "errors" not in answer
    data = answer["data"]
    assert data["order"] == {
        "id": placed[0],
        "customerId": customer,
        "failure": None,
        "total": {"minorUnits": "998"},
        "shipTo": {"city": "Town"},
    }
    assert data["customer"]["createdAt"].endswith("Z")
    assert data["products"] == [None, {"name": "tea"}]


async def test_what_is_away_is_null(shop: Shop) -> None:
    """Without customers and shipping an order comes all the same; errors say what is missing."""
    await shop.product("tea")
    order_id = await place(shop, await ada(shop))
    await confirmed(shop, order_id)
    await shop.stop("customers")
    await shop.stop("shipping")

    answer = await client(shop, seconds=3.0).ask(ORDERS, first=1)

    (node,) = answer["data"]["orders"]["nodes"]
    assert (node["status"], node["customer"], node["shipment"]) == ("CONFIRMED", None, None)
    assert node["items"][0]["product"]["name"] == "tea"
    assert sorted(codes(answer)) == [
        ("orders.nodes.0.customer", "UNAVAILABLE"),
        ("orders.nodes.0.shipment", "UNAVAILABLE"),
    ]
    assert str(shop.offset) not in str(answer["errors"])
    assert "127.0.0.1" not in str(answer["errors"])


async def test_one_deadline_for_all_calls(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that follow each other share the time: the second gets what the first has left."""
    left: list[float] = []
    loaded = Request._load_products

    async def load(self: Request, skus: list[str]) -> Any:
        from accord.context import scope_left

        remaining = scope_left()
        assert remaining is not None
        left.append(remaining)
        return await loaded(self, skus)

    monkeypatch.setattr(Request, "_load_products", load)
    await shop.product("tea")
    await place(shop, await ada(shop))
    answer = await client(shop, seconds=4.0).ask(ORDERS, first=1)
    assert "errors" not in answer
    assert 0 < left[0] < 4.0

    answer = await client(shop, seconds=0.0).ask('{ product(sku: "tea") { name } }')
    assert codes(answer) == [("product", "DEADLINE_EXCEEDED")]
    hurried = client(shop)
    hurried.http.headers["request-timeout"] = "0.000001"
    answer = await hurried.ask('{ product(sku: "tea") { name } }')
    assert codes(answer) == [("product", "DEADLINE_EXCEEDED")]


async def test_what_a_service_refuses(shop: Shop) -> None:
    """Errors of services come with reason, domain and details; what is not there is an error."""
    query = """{ unknown: order(id: "01a1fd97-2452-71fd-bada-e5c976259c7d") { id }
                 wrong: order(id: "1") { id }
                 twice: products(skus: ["a", "a"]) { name }
                 far: orders(first: 0) { next }
                 page: orders(after: "x") { next } }"""
    answer = await client(shop).ask(query)
    assert set(answer["data"].values()) == {None}
    found = {each["path"][0]: each for each in answer["errors"]}
    assert {name: each["extensions"]["code"] for name, each in found.items()} == {
        "unknown": "NOT_FOUND",
        "wrong": "INVALID_ARGUMENT",
        "twice": "INVALID_ARGUMENT",
        "far": "INVALID_ARGUMENT",
        "page": "INVALID_ARGUMENT",
    }
    wrong = found["wrong"]["extensions"]
    assert (wrong["reason"], wrong["domain"]) == ("INVALID_ARGUMENT", "orders")
    bad = next(each for each in wrong["details"] if each["@type"].endswith("BadRequest"))
    assert bad["fieldViolations"][0]["field"] == "order_id"


SCOPED = {
    'order(id: "01a1fd97-2452-71fd-bada-e5c976259c7d") { id }': "orders:read",
    "orders { next }": "orders:read",
    'customer(id: "01a1fd97-2452-71fd-bada-e5c976259c7d") { id }': "customers:read",
}


@pytest.mark.parametrize("asked", SCOPED)
async def test_fields_ask_for_the_scope_of_their_rpc(shop: Shop, asked: str) -> None:
    """Without a token, or with others' scopes, a field is null, and no service is asked."""
    others = " ".join({*SCOPED.values()} - {SCOPED[asked]})
    before = served(shop)
    for scopes, code in (("", "UNAUTHENTICATED"), (others, "PERMISSION_DENIED")):
        answer = await Client(graphql_app(shop.mesh, Door()), scopes).ask(f"{{ {asked} }}")
        assert [each for _, each in codes(answer)] == [code]
    assert not served(shop) - before
    answer = await Client(graphql_app(shop.mesh, Door()), SCOPED[asked]).ask(f"{{ {asked} }}")
    assert all(each == "NOT_FOUND" for _, each in codes(answer))


async def test_a_join_asks_for_its_own_scope(shop: Shop) -> None:
    """Who may see orders and not customers gets orders without; stock is everybody's."""
    await shop.product("tea")
    await place(shop, await ada(shop))
    door = Door()
    answer = await Client(graphql_app(shop.mesh, door), "orders:read").ask(ORDERS, first=1)
    assert codes(answer) == [("orders.nodes.0.customer", "PERMISSION_DENIED")]
    assert answer["data"]["orders"]["nodes"][0]["items"][0]["product"]["name"] == "tea"
    assert len(door.permitted) == len({*door.permitted}) == 4  # joins are one call of each
    door = Door()
    query = '{ product(sku: "tea") { sku } again: product(sku: "tea") { sku } }'
    answer = await Client(graphql_app(shop.mesh, door), "").ask(query)
    assert answer["data"] == {"product": {"sku": "tea"}, "again": {"sku": "tea"}}
    assert len(door.permitted) == 2  # and what is asked for by itself counts by itself


async def test_what_has_no_route_is_nobodys(shop: Shop) -> None:
    """A field whose RPC has no route any more is an error, and no service is asked."""
    door = Door()
    door.routes = {}
    before = served(shop)
    answer = await Client(graphql_app(shop.mesh, door)).ask('{ product(sku: "tea") { sku } }')
    assert codes(answer) == [("product", "INTERNAL")]
    assert not served(shop) - before


async def test_other_subgraphs_name_entities(shop: Shop) -> None:
    """`_entities` finds customers and products by their keys, under the same scopes."""
    await shop.product("tea")
    customer = await ada(shop)
    query = """query ($of: [_Any!]!) { _entities(representations: $of) {
      ... on Customer { name } ... on Product { available } } }"""
    of = [
        {"__typename": "Product", "sku": "tea"},
        {"__typename": "Customer", "id": customer},
        {"__typename": "Product", "sku": "none"},
    ]
    answer = await client(shop).ask(query, of=of)
    assert answer == {"data": {"_entities": [{"available": "1000"}, {"name": "Ada"}, None]}}
    answer = await Client(graphql_app(shop.mesh, Door()), "").ask(query, of=of[:2])
    assert codes(answer) == [("_entities.1", "UNAUTHENTICATED")]
    for wrong in (1, {}, {"__typename": "Order", "id": "1"}, {**of[0], "more": 1}):
        await client(shop).refused(query, of=[wrong])


def test_the_schema_is_exported() -> None:
    """`generated/shop/schema.graphql` is what the command prints today."""
    printed = subprocess.run(
        [sys.executable, "-m", "services.edge.graphql"], capture_output=True, text=True, check=True
    )
    assert Path(clients.__path__[0], "schema.graphql").read_text() == printed.stdout
