"""What payments does for an order that is choreographed.

    OrderCreated      charges: PaymentCaptured, or PaymentDeclined
    OrderUndoing      refunds: PaymentRefunded, unless the card was declined
    ShipmentRefused   refunds: PaymentRefunded

The amount comes with OrderCreated, which orders publishes under its lock and not of an order that
is cancelled. A refund does not wait for a charge that is tried again and again: it is work of its
own, and whichever comes first, `ExternalEffect` leaves nothing taken.
"""

from collections.abc import Awaitable
from typing import Any, Final, Protocol

from accord.errors import ServiceError
from accord_runtime.database import Tx
from accord_runtime.events.audit import reading
from accord_runtime.events.inbox import Received
from accord_runtime.saga.orchestrator import DELAYS, TIMEOUT
from accord_runtime.service import Runtime
from accord_runtime.work.executor import Queue
from accord_runtime.work.table import Effect, Work
from services.payments import store
from shop.common.v1.fulfilment_pb2 import FULFILMENT_CHOREOGRAPHED, Fulfilment
from shop.orders.v1 import orders_pb2
from shop.orders.v1.events_pb2 import OrderCreated, OrderUndoing
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub
from shop.payments.v1 import payments_pb2 as pb
from shop.payments.v1.events_pb2 import PaymentCaptured, PaymentDeclined, PaymentRefunded
from shop.shipping.v1 import shipping_pb2
from shop.shipping.v1.events_pb2 import ShipmentRefused
from shop.shipping.v1.shipping_pb2_grpc import ShippingServiceStub

CHARGES: Final = "charges"
"""Queue of the charges of choreographed orders; key: the order."""


class Charging(Protocol):
    """What does it."""

    def charge(
        self, request: pb.ChargeRequest, key: str | None, fulfilment: "Fulfilment.ValueType"
    ) -> Awaitable[pb.ChargeResponse]:
        """Charge an order."""

    def refund_later(self, tx: Tx, order_id: str) -> None:
        """Have an order refunded."""


class Choreography:
    """Charges and refunds on the events of others."""

    def __init__(self, runtime: Runtime, payments: Charging) -> None:
        self._executor = runtime.executor
        self._outbox = runtime.outbox
        self._payments = payments
        self._executor.register(Queue(CHARGES, self._charge, delays=DELAYS, timeout=TIMEOUT))
        wanted = lambda event: event.fulfilment == FULFILMENT_CHOREOGRAPHED  # noqa: E731
        orders = OrderServiceStub(runtime.mesh.channel("orders"))
        runtime.subscribe(
            "ORDERS",
            {OrderCreated: self._created, OrderUndoing: self._undoing},
            record=reading(orders.ReadEvents, orders_pb2.ReadEventsRequest),
            wanted=wanted,
            at_once=True,
        )
        shipping = ShippingServiceStub(runtime.mesh.channel("shipping"))
        runtime.subscribe(
            "SHIPPING",
            {ShipmentRefused: self._undoing},
            record=reading(shipping.ReadEvents, shipping_pb2.ReadEventsRequest),
            wanted=wanted,
            at_once=True,
        )

    async def _created(self, event: Received[OrderCreated]) -> Effect:
        request = pb.ChargeRequest(order_id=event.key, amount=event.payload.total)
        payload = request.SerializeToString()
        return lambda tx: self._executor.enqueue(tx, CHARGES, event.key, payload)

    async def _charge(self, work: Work) -> Effect:
        request, order_id = pb.ChargeRequest.FromString(work.payload), work.key
        said: store.Published
        try:
            key = f"{order_id}/charge/do"
            payment = (await self._payments.charge(request, key, FULFILMENT_CHOREOGRAPHED)).payment
        except ServiceError as error:
            if not error.refusal:
                raise
            said = PaymentDeclined(order_id=order_id, reason=error.reason, detail=error.message)
        else:
            said = PaymentCaptured(
                order_id=order_id, payment_id=payment.payment_id, amount=payment.amount
            )
        return lambda tx: store.ORDERS.say(tx, self._outbox, said)

    async def _undoing(self, event: Received[Any]) -> Effect:
        def undo(tx: Tx) -> None:
            self._payments.refund_later(tx, event.key)
            refunded = store.find(tx, event.key)
            if refunded is not None and refunded.state == pb.PAYMENT_STATE_REFUNDED:
                said = PaymentRefunded(order_id=event.key, payment_id=refunded.payment_id)
                store.ORDERS.say(tx, self._outbox, said)
            # A charge that waits for its next attempt, or for an operator, finds nothing to do.
            self._executor.expedite(tx, CHARGES, event.key)

        return undo
