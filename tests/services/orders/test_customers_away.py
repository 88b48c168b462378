"""Orders while the customers service is away or too slow: from the cache, or by the fallback."""

from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

import accord
from accord.client.method_state import RouteSnapshot
from accord.errors import ServiceError
from accord.ops.v1 import mesh_pb2
from accord.ops.v1.mesh_pb2_grpc import MeshServiceStub
from accord.policies.breaker import BreakerPolicy, State
from accord_runtime.grpc.ids import uuid7
from services.orders.servicer import GET_CUSTOMER
from shop.orders.v1 import orders_pb2 as pb
from tests.services.orders.books import kinds, updates
from tests.support.shop import Shop, order_request, running_shop

NEEDED = ("sandbox", "customers", "inventory", "payments", "shipping", "orders")


async def place(shop: Shop, customer_id: str, key: str = "") -> pb.Order:
    metadata = accord.idempotency_key(key or uuid7())
    request = order_request(customer_id, {"tea": 1})
    return (await shop.orders.CreateOrder(request, metadata=metadata)).order


def route(shop: Shop) -> RouteSnapshot:
    """What the orders process knows of its calls of GetCustomer."""
    routes = shop.runtimes["orders"].mesh.snapshot().routes
    return next(each for each in routes if each.method == f"/{GET_CUSTOMER}")


async def restart_orders(shop: Shop) -> None:
    """A new process: nothing is kept in its memory."""
    await shop.stop("orders")
    await shop.start("orders")
    await shop.channel("orders").channel_ready()


async def test_a_customer_who_was_just_looked_up_is_not_asked_for_again(tmp_path: Path) -> None:
    """Within 30 s the answer comes from the cache, also when the service has gone."""
    async with running_shop(tmp_path, *NEEDED) as shop:
        await shop.product("tea")
        customer = await shop.customer()
        await place(shop, customer)
        await shop.stop("customers")

        order = await place(shop, customer)

        assert order.status == pb.ORDER_STATUS_CREATED
        assert kinds(await updates(shop, order.order_id))[-1] == "Confirmed"
        assert (route(shop).cache_hits, route(shop).fallbacks) == (1, 0)


async def test_a_known_customer_orders_while_the_service_is_away(shop: Shop) -> None:
    """Who has ordered before may order again; once the circuit is open, at once."""
    await shop.product("tea")
    customer = await shop.customer()
    await place(shop, customer)
    await shop.stop("customers")
    await restart_orders(shop)

    failures = BreakerPolicy().consecutive_failures
    for number in range(1, failures + 2):
        order = await place(shop, customer)
        assert order.status == pb.ORDER_STATUS_CREATED
        assert route(shop).fallbacks == number
    assert kinds(await updates(shop, order.order_id))[-1] == "Confirmed"
    breaker = route(shop).breaker
    assert breaker is not None
    assert breaker.state is State.OPEN
    operator = MeshServiceStub(shop.channel("orders"))
    state = await operator.GetState(mesh_pb2.GetStateRequest(method_prefix=GET_CUSTOMER))
    assert state.methods[0].counts["fallback"] == failures + 1


async def test_a_customer_nobody_knows_waits_until_the_service_is_back(tmp_path: Path) -> None:
    """Without an order of theirs nothing is taken on trust: the call may be repeated later."""
    async with running_shop(tmp_path, *NEEDED) as shop:
        await shop.product("tea")
        customer = await shop.customer()
        await shop.stop("customers")

        with pytest.raises(grpc.RpcError) as caught:
            await place(shop, customer, "key-1")

        assert ServiceError.from_rpc(caught.value).code is grpc.StatusCode.UNAVAILABLE
        listed = await shop.orders.ListOrders(pb.ListOrdersRequest(customer_id=customer))
        assert not listed.orders
        await shop.start("customers")
        await restart_orders(shop)
        assert (await place(shop, customer, "key-1")).status == pb.ORDER_STATUS_CREATED


async def test_a_slow_customers_service_does_not_hold_up_an_order(tmp_path: Path) -> None:
    """After the second that its contract allows, the order goes on without the answer."""
    async with running_shop(tmp_path, *NEEDED) as shop:
        await shop.product("tea")
        customer = await shop.customer()
        await place(shop, customer)
        await restart_orders(shop)
        fault = mesh_pb2.InjectFaultRequest(
            method=GET_CUSTOMER,
            fault=mesh_pb2.Fault(delay=Duration(seconds=60), delay_percent=100),
            lasting=Duration(seconds=60),
            reason="a test",
        )
        await MeshServiceStub(shop.channel("customers")).InjectFault(fault)

        order = await place(shop, customer)

        assert order.status == pb.ORDER_STATUS_CREATED
        assert route(shop).fallbacks == 1
