"""What shipping does for an order that is choreographed.

    OrderShippingStarted   books the parcel: ShipmentBooked, or ShipmentRefused

That event is the pivot: orders publishes it under the lock under which an order is cancelled, so
what it asks for never has to be undone.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from accord.errors import ServiceError
from accord_runtime.events.audit import reading
from accord_runtime.events.inbox import Received
from accord_runtime.saga.orchestrator import DELAYS, TIMEOUT
from accord_runtime.service import Runtime
from accord_runtime.work.executor import Queue
from accord_runtime.work.table import Effect, Work
from services.shipping import store
from shop.common.v1.fulfilment_pb2 import FULFILMENT_CHOREOGRAPHED, Fulfilment
from shop.orders.v1.events_pb2 import OrderShippingStarted
from shop.orders.v1.orders_pb2 import ReadEventsRequest
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub
from shop.shipping.v1 import shipping_pb2 as pb
from shop.shipping.v1.events_pb2 import ShipmentBooked, ShipmentRefused

BOOKINGS: Final = "bookings"
"""Queue of the bookings for choreographed orders; key: the order."""

Book = Callable[
    [pb.CreateShipmentRequest, str | None, "Fulfilment.ValueType"],
    Awaitable[pb.CreateShipmentResponse],
]
"""Books a parcel under a key."""


class Choreography:
    """Books parcels on the events of orders."""

    def __init__(self, runtime: Runtime, book: Book) -> None:
        self._executor = runtime.executor
        self._outbox = runtime.outbox
        self._book = book
        self._executor.register(Queue(BOOKINGS, self._booking, delays=DELAYS, timeout=TIMEOUT))
        orders = OrderServiceStub(runtime.mesh.channel("orders"))
        runtime.subscribe(
            "ORDERS",
            {OrderShippingStarted: self._started},
            record=reading(orders.ReadEvents, ReadEventsRequest),
            wanted=lambda event: event.fulfilment == FULFILMENT_CHOREOGRAPHED,
            at_once=True,
        )

    async def _started(self, event: Received[OrderShippingStarted]) -> Effect:
        items = event.payload.items
        request = pb.CreateShipmentRequest(
            order_id=event.key,
            ship_to=event.payload.ship_to,
            lines=[pb.ParcelLine(sku=item.sku, quantity=item.quantity) for item in items],
        )
        payload = request.SerializeToString()
        return lambda tx: self._executor.enqueue(tx, BOOKINGS, event.key, payload)

    async def _booking(self, work: Work) -> Effect:
        request, order_id = pb.CreateShipmentRequest.FromString(work.payload), work.key
        said: store.Published
        try:
            key = f"{order_id}/ship/do"
            shipment = (await self._book(request, key, FULFILMENT_CHOREOGRAPHED)).shipment
        except ServiceError as error:
            if not error.refusal:
                raise
            said = ShipmentRefused(order_id=order_id, reason=error.reason, detail=error.message)
        else:
            said = ShipmentBooked(
                order_id=order_id,
                shipment_id=shipment.shipment_id,
                tracking_number=shipment.tracking_number,
            )
        return lambda tx: store.ORDERS.say(tx, self._outbox, said)
