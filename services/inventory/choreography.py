"""What inventory does for an order that is choreographed.

    OrderPlaced       reserves: StockReserved, or StockRejected
    ShipmentBooked    takes the stock out of the warehouse: StockCommitted
    PaymentDeclined   gives it back: StockReleased
    PaymentRefunded   gives it back: StockReleased

What is given back before it was reserved is not reserved any more.
"""

from typing import Any

from accord.errors import ServiceError
from accord_runtime.database import Tx
from accord_runtime.events.audit import reading
from accord_runtime.events.inbox import Received
from accord_runtime.service import Runtime
from accord_runtime.work.table import Effect
from services.inventory import reservations
from shop.common.v1.fulfilment_pb2 import FULFILMENT_CHOREOGRAPHED
from shop.inventory.v1.events_pb2 import (
    StockCommitted,
    StockRejected,
    StockReleased,
    StockReserved,
)
from shop.inventory.v1.inventory_pb2 import ReserveLine
from shop.orders.v1 import orders_pb2
from shop.orders.v1.events_pb2 import OrderPlaced
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub
from shop.payments.v1 import payments_pb2
from shop.payments.v1.events_pb2 import PaymentDeclined, PaymentRefunded
from shop.payments.v1.payments_pb2_grpc import PaymentServiceStub
from shop.shipping.v1 import shipping_pb2
from shop.shipping.v1.events_pb2 import ShipmentBooked
from shop.shipping.v1.shipping_pb2_grpc import ShippingServiceStub


class Choreography:
    """Reserves, commits and releases on the events of others."""

    def __init__(self, runtime: Runtime) -> None:
        self._outbox = runtime.outbox
        channel = runtime.mesh.channel
        wanted = lambda event: event.fulfilment == FULFILMENT_CHOREOGRAPHED  # noqa: E731
        runtime.subscribe(
            "ORDERS",
            {OrderPlaced: self._placed},
            record=reading(
                OrderServiceStub(channel("orders")).ReadEvents, orders_pb2.ReadEventsRequest
            ),
            wanted=wanted,
            at_once=True,
        )
        runtime.subscribe(
            "PAYMENTS",
            {PaymentDeclined: self._not_paid, PaymentRefunded: self._not_paid},
            record=reading(
                PaymentServiceStub(channel("payments")).ReadEvents, payments_pb2.ReadEventsRequest
            ),
            wanted=wanted,
            at_once=True,
        )
        runtime.subscribe(
            "SHIPPING",
            {ShipmentBooked: self._booked},
            record=reading(
                ShippingServiceStub(channel("shipping")).ReadEvents, shipping_pb2.ReadEventsRequest
            ),
            wanted=wanted,
            at_once=True,
        )

    async def _placed(self, event: Received[OrderPlaced]) -> Effect:
        order_id = event.key
        lines = [
            ReserveLine(sku=item.sku, quantity=item.quantity, unit_price=item.unit_price)
            for item in event.payload.items
        ]

        def reserve(tx: Tx) -> None:
            refusal: object
            try:
                key = f"{order_id}/reserve/do"
                refusal = reservations.reserve(
                    tx, self._outbox, order_id, lines, key, FULFILMENT_CHOREOGRAPHED
                )
            except ServiceError as error:
                if not error.refusal:
                    raise
                refusal = error
            said: StockReserved | StockRejected = StockReserved(order_id=order_id, lines=lines)
            if isinstance(refusal, ServiceError):
                said = StockRejected(
                    order_id=order_id, reason=refusal.reason, detail=refusal.message
                )
            reservations.ORDERS.say(tx, self._outbox, said)

        return reserve

    async def _not_paid(self, event: Received[Any]) -> Effect:
        def release(tx: Tx) -> None:
            reservations.release(tx, self._outbox, event.key, FULFILMENT_CHOREOGRAPHED)
            reservations.ORDERS.say(tx, self._outbox, StockReleased(order_id=event.key))

        return release

    async def _booked(self, event: Received[ShipmentBooked]) -> Effect:
        def commit(tx: Tx) -> None:
            reservations.commit(tx, self._outbox, event.key)
            reservations.ORDERS.say(tx, self._outbox, StockCommitted(order_id=event.key))

        return commit
