"""From an event of payments or orders to the transactions that it calls for."""

import time
from dataclasses import replace
from typing import Any

from google.protobuf.message import Message

from accord_runtime.database import Tx
from accord_runtime.events.audit import Record, reading
from accord_runtime.events.inbox import Received
from accord_runtime.service import Runtime
from accord_runtime.work.table import Effect
from services.accounting import domain, store
from shop.orders.v1.orders_pb2 import ReadEventsRequest as ReadOrders
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub
from shop.payments.v1.payments_pb2 import ReadEventsRequest as ReadPayments
from shop.payments.v1.payments_pb2_grpc import PaymentServiceStub


def subscribe(runtime: Runtime) -> None:
    """Keep the books by the events of payments and orders."""
    payments = PaymentServiceStub(runtime.mesh.channel("payments"))
    orders = OrderServiceStub(runtime.mesh.channel("orders"))
    records: dict[str, Record] = {
        "PAYMENTS": reading(payments.ReadEvents, ReadPayments),
        "ORDERS": reading(orders.ReadEvents, ReadOrders),
    }
    for stream, events in domain.EVENTS.items():
        runtime.subscribe(stream, dict.fromkeys(events, _handle), records[stream], at_once=True)


async def _handle(event: Received[Any]) -> Effect:
    return lambda tx: take(tx, event, time.time())


def take(tx: Tx, event: Received[Message], now: float) -> None:
    """Write what an event calls for; once, however often and in whatever order events come."""
    before = store.known(tx, event.key, lock=True)
    after = domain.learn(before, event.payload)
    for posting in domain.due(after):
        store.post(tx, event.key, posting, event.event_id, event.occurred_at, now)
        after = replace(after, posted=(*after.posted, posting.kind))
    if after != before:
        store.keep(tx, event.key, after)
