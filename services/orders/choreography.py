"""An order that is choreographed: orders folds what the other services say into its state.

    where it stands   what was heard                       what follows
    PENDING           StockReserved                        OrderCreated: payments charges
                      StockRejected                        OrderRejected
    CREATED           PaymentCaptured                      OrderPaid, OrderShippingStarted
                      PaymentDeclined, PaymentRefunded     OrderUndoing
    SHIPPING          ShipmentBooked                       OrderShipped
                      ShipmentRefused                      OrderUndoing
    SHIPPED           StockCommitted                       OrderConfirmed
    UNDOING           money and stock are settled          OrderFailed, OrderCancelled

What was heard is kept, and looked at again after each event: it comes from three services, in any
order. OrderShippingStarted is the pivot; CancelOrder writes the order under the same lock, so
exactly one of them wins, and shipping acts on nothing else. The other services undo by themselves
what must be undone, by OrderUndoing and by each other's events.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

from accord.errors import FailedPrecondition, NotFound
from accord_runtime.database import Tx
from accord_runtime.events.audit import reading
from accord_runtime.events.inbox import Received
from accord_runtime.grpc import idempotency
from accord_runtime.service import Runtime
from accord_runtime.work.executor import Permanent
from accord_runtime.work.table import Effect
from services.orders import domain, store
from shop.common.v1.fulfilment_pb2 import FULFILMENT_CHOREOGRAPHED
from shop.inventory.v1 import inventory_pb2
from shop.inventory.v1.events_pb2 import (
    StockCommitted,
    StockRejected,
    StockReleased,
    StockReserved,
)
from shop.inventory.v1.inventory_pb2_grpc import InventoryServiceStub
from shop.orders.v1 import events_pb2 as events
from shop.orders.v1 import orders_pb2 as pb
from shop.payments.v1 import payments_pb2
from shop.payments.v1.events_pb2 import PaymentCaptured, PaymentDeclined, PaymentRefunded
from shop.payments.v1.payments_pb2_grpc import PaymentServiceStub
from shop.shipping.v1 import shipping_pb2
from shop.shipping.v1.events_pb2 import ShipmentBooked, ShipmentRefused
from shop.shipping.v1.shipping_pb2_grpc import ShippingServiceStub

M = TypeVar("M", bound=Message)

SOURCES: Final[Mapping[str, tuple[Any, Any, tuple[type[Message], ...]]]] = {
    "inventory": (
        InventoryServiceStub,
        inventory_pb2.ReadEventsRequest,
        (StockReserved, StockRejected, StockReleased, StockCommitted),
    ),
    "payments": (
        PaymentServiceStub,
        payments_pb2.ReadEventsRequest,
        (PaymentCaptured, PaymentDeclined, PaymentRefunded),
    ),
    "shipping": (
        ShippingServiceStub,
        shipping_pb2.ReadEventsRequest,
        (ShipmentBooked, ShipmentRefused),
    ),
}
"""Service -> its stub, how its record is asked for, and its events that decide about an order."""


class Heard:
    """What the other services have said of an order: full name of the event -> its bytes."""

    def __init__(self, raw: Mapping[str, bytes]) -> None:
        self._raw = raw

    def first(self, *kinds: type[M]) -> M | None:
        """The event of the first of these types that was heard; None if none was."""
        for kind in kinds:
            if (raw := self._raw.get(kind.DESCRIPTOR.full_name)) is not None:
                return kind.FromString(raw)
        return None


def follows(order: pb.Order, heard: Heard) -> Message | None:
    """What happens next to an order, given what was heard; None if it waits for more. Pure."""
    match order.status:
        case pb.ORDER_STATUS_PENDING:
            if rejected := heard.first(StockRejected):
                return events.OrderRejected(
                    order_id=order.order_id,
                    customer_id=order.customer_id,
                    failure=_failure(rejected.reason, rejected.detail),
                )
            if heard.first(StockReserved):
                return events.OrderCreated(
                    order_id=order.order_id,
                    customer_id=order.customer_id,
                    items=order.items,
                    total=order.total,
                    fulfilment=order.fulfilment,
                )
        case pb.ORDER_STATUS_CREATED:
            if declined := heard.first(PaymentDeclined):
                return _undoing(order, declined.reason, declined.detail)
            if heard.first(PaymentRefunded):
                return _undoing(order, "PAYMENT_REFUNDED", "the order was refunded before")
            if captured := heard.first(PaymentCaptured):
                return events.OrderPaid(
                    order_id=order.order_id, payment_id=captured.payment_id, amount=captured.amount
                )
        case pb.ORDER_STATUS_PAID:
            return events.OrderShippingStarted(
                order_id=order.order_id,
                ship_to=order.ship_to,
                items=order.items,
                fulfilment=order.fulfilment,
            )
        case pb.ORDER_STATUS_SHIPPING:
            if refused := heard.first(ShipmentRefused):
                return _undoing(order, refused.reason, refused.detail)
            if booked := heard.first(ShipmentBooked):
                return events.OrderShipped(
                    order_id=order.order_id,
                    shipment_id=booked.shipment_id,
                    tracking_number=booked.tracking_number,
                )
        case pb.ORDER_STATUS_SHIPPED if heard.first(StockCommitted):
            return events.OrderConfirmed(
                order_id=order.order_id,
                customer_id=order.customer_id,
                total=order.total,
                tracking_number=order.tracking_number,
            )
        case pb.ORDER_STATUS_UNDOING:
            given_back = heard.first(PaymentRefunded) or heard.first(PaymentDeclined)
            if given_back and (heard.first(StockReleased) or heard.first(StockRejected)):
                return domain.ending(order)
    return None


def _undoing(order: pb.Order, reason: str, detail: str) -> events.OrderUndoing:
    return events.OrderUndoing(
        order_id=order.order_id, failure=_failure(reason, detail), fulfilment=order.fulfilment
    )


def _failure(reason: str, detail: str) -> pb.Failure:
    return domain.failure(FailedPrecondition(reason, detail))


class Choreography:
    """Receives what the other services say."""

    def __init__(self, runtime: Runtime) -> None:
        self._outbox = runtime.outbox
        for service, (stub, request, kinds) in SOURCES.items():
            runtime.subscribe(
                service.upper(),
                dict.fromkeys(kinds, self._hear),
                record=reading(stub(runtime.mesh.channel(service)).ReadEvents, request),
                wanted=lambda event: event.fulfilment == FULFILMENT_CHOREOGRAPHED,
                at_once=True,
            )

    async def _hear(self, event: Received[Any]) -> Effect:
        def write(tx: Tx) -> None:
            try:
                order = store.get(tx, event.key, lock=True)
            except NotFound as error:
                # This database was restored; what the others hold for the order is for an operator.
                raise Permanent(f"there is no order {event.key}") from error
            heard = Heard(store.hear(tx, event.key, event.payload))
            while (next_event := follows(order, heard)) is not None:
                store.happened(tx, self._outbox, order, next_event)
                # The first outcome is what CreateOrder answers, now and to every repeat.
                idempotency.settle(tx, order.order_id, pb.CreateOrderResponse(order=order))

        return write
