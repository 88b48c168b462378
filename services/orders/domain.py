"""What an order is: the fold of its events, and what may happen to it next. Pure."""

from collections.abc import Callable, Iterable
from typing import Any, Final

from google.protobuf.message import Message

from accord.errors import FailedPrecondition, InvalidArgument, ServiceError
from accord_runtime.events.outbox import event_time
from accord_runtime.events.versions import Upcasters
from shop.common.v1.fulfilment_pb2 import FULFILMENT_ORCHESTRATED
from shop.common.v1.money_pb2 import Money
from shop.orders.v1 import events_pb2 as events
from shop.orders.v1 import orders_pb2 as pb
from shop.orders.v1.orders_pb2 import Order

UPCASTERS: Final = Upcasters()
"""How older versions of the events are read: each has had one version so far."""

MAX_NOTES: Final = 20
"""Notes that an order shows: the newest ones."""

MAX_EVENTS: Final = 1000
"""Events of one order; a note beyond them is refused."""

TERMINAL: Final = frozenset(
    {
        pb.ORDER_STATUS_CONFIRMED,
        pb.ORDER_STATUS_REJECTED,
        pb.ORDER_STATUS_FAILED,
        pb.ORDER_STATUS_CANCELLED,
    }
)
"""An order in one of these has ended."""

CANCELLABLE: Final = frozenset(
    {pb.ORDER_STATUS_PENDING, pb.ORDER_STATUS_CREATED, pb.ORDER_STATUS_PAID}
)
"""An order in one of these can still be cancelled: its pivot has not begun."""

REASONS: Final = {
    "OUT_OF_STOCK": pb.FAILURE_REASON_OUT_OF_STOCK,
    "UNKNOWN_PRODUCT": pb.FAILURE_REASON_UNKNOWN_PRODUCT,
    "PRICE_CHANGED": pb.FAILURE_REASON_PRICE_CHANGED,
    "CARD_DECLINED": pb.FAILURE_REASON_CARD_DECLINED,
    "NO_CARRIER": pb.FAILURE_REASON_NO_CARRIER,
}
"""ErrorInfo reason of another service -> reason of an order's failure."""


def total(items: Iterable[pb.OrderItem]) -> Money:
    """The sum of all items; they are in one currency, which the contract sees to.

    Raises:
        InvalidArgument: the sum is more than a Money can hold.
    """
    items = list(items)
    amount = sum(item.unit_price.minor_units * item.quantity for item in items)
    if amount > 10**17:
        raise InvalidArgument(("items", "the total is more than 100000000000000000 minor units"))
    return Money(minor_units=amount, currency_code=items[0].unit_price.currency_code)


def placed(order_id: str, request: pb.CreateOrderRequest) -> events.OrderPlaced:
    """The first event of an order.

    Raises:
        InvalidArgument: its total is more than a Money can hold.
    """
    return events.OrderPlaced(
        order_id=order_id,
        customer_id=request.customer_id,
        items=request.items,
        total=total(request.items),
        ship_to=request.ship_to,
        fulfilment=request.fulfilment or FULFILMENT_ORCHESTRATED,
    )


def _placed(order: Order, event: events.OrderPlaced) -> None:
    order.order_id = event.order_id
    order.customer_id = event.customer_id
    order.items.extend(event.items)
    order.total.CopyFrom(event.total)
    order.ship_to.CopyFrom(event.ship_to)
    order.fulfilment = event.fulfilment
    order.status = pb.ORDER_STATUS_PENDING


def _to(status: "pb.OrderStatus.ValueType") -> Callable[[Order, Any], None]:
    def apply(order: Order, event: Any) -> None:
        order.status = status
        if "failure" in event.DESCRIPTOR.fields_by_name:
            order.failure.CopyFrom(event.failure)

    return apply


def _paid(order: Order, event: events.OrderPaid) -> None:
    order.status = pb.ORDER_STATUS_PAID
    order.payment_id = event.payment_id


def _shipped(order: Order, event: events.OrderShipped) -> None:
    order.status = pb.ORDER_STATUS_SHIPPED
    order.shipment_id = event.shipment_id
    order.tracking_number = event.tracking_number


def _noted(order: Order, event: events.OrderNoteAdded) -> None:
    notes = [*order.notes, event.note][-MAX_NOTES:]
    del order.notes[:]
    order.notes.extend(notes)


_FOLD: Final[dict[type[Message], Callable[[Order, Any], None]]] = {
    events.OrderPlaced: _placed,
    events.OrderCreated: _to(pb.ORDER_STATUS_CREATED),
    events.OrderRejected: _to(pb.ORDER_STATUS_REJECTED),
    events.OrderPaid: _paid,
    events.OrderShippingStarted: _to(pb.ORDER_STATUS_SHIPPING),
    events.OrderShipped: _shipped,
    events.OrderConfirmed: _to(pb.ORDER_STATUS_CONFIRMED),
    events.OrderUndoing: _to(pb.ORDER_STATUS_UNDOING),
    events.OrderFailed: _to(pb.ORDER_STATUS_FAILED),
    events.OrderCancelled: _to(pb.ORDER_STATUS_CANCELLED),
    events.OrderNoteAdded: _noted,
}


def apply(order: Order, event: Message, sequence: int, at: float) -> None:
    """Fold one event, committed `at` Unix seconds, into an order; empty before the first event.

    Raises:
        ValueError: the event does not follow the order's last one.
    """
    if sequence != order.sequence + 1:
        raise ValueError(f"event {sequence} does not follow {order.sequence}")
    _FOLD[type(event)](order, event)
    order.sequence = sequence
    order.updated_at.CopyFrom(event_time(at))
    if sequence == 1:
        order.created_at.CopyFrom(order.updated_at)


def cancel(order: Order, reason: str) -> events.OrderUndoing:
    """Decide on a cancellation.

    Raises:
        FailedPrecondition: it is too late (TOO_LATE), or the order has ended or
            is being undone already (ORDER_ENDED).
    """
    if order.status in CANCELLABLE:
        failure = pb.Failure(reason=pb.FAILURE_REASON_CANCELLED, detail=reason or "on request")
        return events.OrderUndoing(
            order_id=order.order_id, failure=failure, fulfilment=order.fulfilment
        )
    status = pb.OrderStatus.Name(order.status).removeprefix("ORDER_STATUS_")
    if order.status in (pb.ORDER_STATUS_SHIPPING, pb.ORDER_STATUS_SHIPPED):
        raise FailedPrecondition("TOO_LATE", f"order {order.order_id} is {status}")
    raise FailedPrecondition("ORDER_ENDED", f"order {order.order_id} is {status}")


def note(order: Order, text: str) -> events.OrderNoteAdded:
    """Decide on a note.

    Raises:
        FailedPrecondition: the order has too many events (TOO_MANY_NOTES).
    """
    if order.sequence >= MAX_EVENTS:
        raise FailedPrecondition("TOO_MANY_NOTES", f"order {order.order_id} has too many notes")
    return events.OrderNoteAdded(order_id=order.order_id, note=text)


def failure(error: ServiceError) -> pb.Failure:
    """Another service's refusal, as the reason why an order fails."""
    reason = REASONS.get(error.reason, pb.FAILURE_REASON_OTHER)
    return pb.Failure(reason=reason, detail=error.message[:500])


def ending(order: Order) -> Message:
    """The last event of an order that was undone."""
    kind = (
        events.OrderCancelled
        if order.failure.reason == pb.FAILURE_REASON_CANCELLED
        else events.OrderFailed
    )
    return kind(order_id=order.order_id, customer_id=order.customer_id, failure=order.failure)
