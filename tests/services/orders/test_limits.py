"""What the contracts of the shop say of load: one caller's rate, and who is shed first."""

import asyncio
from pathlib import Path

import grpc
import pytest

from accord.contract import method_policy
from accord.errors import ServiceError
from accord.policies.types import Priority
from shop.orders.v1 import orders_pb2 as pb
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub
from shop.payments.v1 import payments_pb2  # noqa: F401 - its contract is looked at
from shop.shipping.v1 import shipping_pb2  # noqa: F401 - its contract is looked at
from tests.support.shop import running_shop

LIST = "/shop.orders.v1.OrderService/ListOrders"
NOBODY = "0197f000-0000-7000-8000-0000000000ff"


async def test_one_caller_cannot_list_orders_without_end(tmp_path: Path) -> None:
    """Beyond the rate of its contract a caller is told when to come back; other RPCs go on."""
    limit = method_policy(LIST).limit
    assert limit is not None
    assert limit.rate is not None
    longest = limit.rate.burst / limit.rate.per_second
    async with (
        running_shop(tmp_path, "orders") as shop,
        grpc.aio.insecure_channel(shop.settings("orders").address) as channel,
    ):
        stub = OrderServiceStub(channel)
        told: list[ServiceError] = []

        async def pages() -> None:
            while not told:
                try:
                    await stub.ListOrders(pb.ListOrdersRequest(page_size=1), timeout=10)
                except grpc.RpcError as error:
                    told.append(ServiceError.from_rpc(error))

        async with asyncio.timeout(60):
            await asyncio.gather(*(pages() for _ in range(10)))
            assert told[0].code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert told[0].reason == "RATE_LIMITED"
            assert told[0].retry_after is not None
            assert 0 < told[0].retry_after <= longest
            with pytest.raises(grpc.RpcError) as caught:
                await stub.GetOrder(pb.GetOrderRequest(order_id=NOBODY))
            assert ServiceError.from_rpc(caught.value).code is grpc.StatusCode.NOT_FOUND


def test_money_and_parcels_come_first() -> None:
    """What takes an order on its way is CRITICAL; lists are shed before anything else."""
    critical = (
        "/shop.orders.v1.OrderService/CreateOrder",
        "/shop.orders.v1.OrderService/CancelOrder",
        "/shop.payments.v1.PaymentService/Charge",
        "/shop.payments.v1.PaymentService/Refund",
        "/shop.shipping.v1.ShippingService/CreateShipment",
        "/shop.inventory.v1.InventoryService/ReserveStock",
        "/shop.inventory.v1.InventoryService/CommitStock",
    )
    sheddable = (
        LIST,
        "/shop.orders.v1.OrderService/ReadEvents",
        "/shop.customers.v1.CustomerService/ListCustomers",
        "/shop.inventory.v1.InventoryService/ListStock",
    )
    for methods, priority in ((critical, Priority.CRITICAL), (sheddable, Priority.SHEDDABLE)):
        limits = [method_policy(each).limit for each in methods]
        assert [limit and limit.priority for limit in limits] == [priority] * len(methods)
