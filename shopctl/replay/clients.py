"""The shop as its customers and operators reach it: the public RPCs, through generated clients."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc

import accord
from services import topology
from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub
from shop.inventory.v1.inventory_pb2_grpc import InventoryServiceStub
from shop.notifications.v1.notifications_pb2_grpc import NotificationServiceStub
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub
from shop.payments.v1.payments_pb2_grpc import PaymentServiceStub
from shop.sandbox.v1.sandbox_pb2_grpc import SandboxServiceStub
from shop.shipping.v1.shipping_pb2_grpc import ShippingServiceStub


@dataclass(frozen=True, slots=True)
class Clients:
    """One client per service."""

    customers: CustomerServiceStub
    inventory: InventoryServiceStub
    orders: OrderServiceStub
    payments: PaymentServiceStub
    shipping: ShippingServiceStub
    notifications: NotificationServiceStub
    sandbox: SandboxServiceStub


@asynccontextmanager
async def connect(
    offset: int, on_resume: Callable[[str, int, grpc.RpcError], None]
) -> AsyncIterator[Clients]:
    """Clients of the shop with this port offset; policies come from its contracts.

    Args:
        offset: port offset.
        on_resume: told (method, number of the attempt, error) when a broken stream is resumed.
    """
    targets = topology.targets(offset, os.environ.get("MESH_TARGETS", ""))
    mesh = accord.Mesh("shopctl", targets=targets, on_resume=on_resume)
    try:
        yield Clients(
            customers=CustomerServiceStub(mesh.channel("customers")),
            inventory=InventoryServiceStub(mesh.channel("inventory")),
            orders=OrderServiceStub(mesh.channel("orders")),
            payments=PaymentServiceStub(mesh.channel("payments")),
            shipping=ShippingServiceStub(mesh.channel("shipping")),
            notifications=NotificationServiceStub(mesh.channel("notifications")),
            sandbox=SandboxServiceStub(mesh.channel("sandbox")),
        )
    finally:
        await mesh.close()
