"""What the outside world and the other services say about an order."""

from __future__ import annotations

from dataclasses import dataclass

from accord_runtime.database import Tx
from accord_runtime.events.outbox import of_key
from services.orders import store
from shop.inventory.v1.inventory_pb2 import GetStockRequest
from shop.inventory.v1.inventory_pb2_grpc import InventoryServiceStub
from shop.orders.v1 import orders_pb2 as pb
from shop.orders.v1.orders_pb2 import Order
from shop.sandbox.v1 import sandbox_pb2
from shop.sandbox.v1.sandbox_pb2_grpc import SandboxServiceStub
from tests.support.shop import Shop

ENDED = {
    pb.ORDER_STATUS_CONFIRMED,
    pb.ORDER_STATUS_REJECTED,
    pb.ORDER_STATUS_FAILED,
    pb.ORDER_STATUS_CANCELLED,
}


@dataclass(frozen=True)
class Ledger:
    """What the sandbox's ledger says about one order."""

    captures: int = 0
    money: int = 0
    bookings: int = 0
    units: int = 0


async def ledger(shop: Shop, order_id: str) -> Ledger:
    """Captures, money kept, bookings and units on their way."""
    captures = money = bookings = units = 0
    stub = SandboxServiceStub(shop.channel("sandbox"))
    async for entry in stub.ReadLedger(sandbox_pb2.ReadLedgerRequest(reference=order_id)):
        if entry.kind == sandbox_pb2.ENTRY_KIND_CAPTURED:
            captures, money = captures + 1, money + entry.amount.minor_units
        elif entry.kind == sandbox_pb2.ENTRY_KIND_REVERSED:
            money -= entry.amount.minor_units
        elif entry.kind == sandbox_pb2.ENTRY_KIND_BOOKED:
            bookings, units = bookings + 1, units + entry.units
        else:
            units -= entry.units
    return Ledger(captures, money, bookings, units)


async def stock(shop: Shop, sku: str) -> tuple[int, int]:
    """Units on hand, and units reserved."""
    stub = InventoryServiceStub(shop.channel("inventory"))
    product = (await stub.GetStock(GetStockRequest(sku=sku))).product
    return product.on_hand, product.reserved


async def behave(
    shop: Shop,
    party: sandbox_pb2.Party.ValueType,
    behavior: sandbox_pb2.Behavior.ValueType,
    calls: int = 0,
) -> None:
    """Tell the card processor or the carrier how to behave."""
    stub = SandboxServiceStub(shop.channel("sandbox"))
    request = sandbox_pb2.SetBehaviorRequest(party=party, behavior=behavior, calls=calls)
    await stub.SetBehavior(request)


async def updates(shop: Shop, order_id: str) -> list[pb.StreamOrderUpdatesResponse]:
    """All updates of an order, until it has ended."""
    stream = shop.orders.StreamOrderUpdates(pb.StreamOrderUpdatesRequest(order_id=order_id))
    return [update async for update in stream]


def kinds(seen: list[pb.StreamOrderUpdatesResponse]) -> list[str]:
    """The events of updates, by their short names."""
    return [update.event_type.removeprefix("shop.orders.v1.Order") for update in seen]


def refold(tx: Tx, order_id: str) -> Order:
    """The order as its events alone say it is."""
    order = Order()
    for event in of_key(tx, order_id):
        store.fold(order, event)
    return order
