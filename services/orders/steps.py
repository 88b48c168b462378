"""The saga of an order: reserve, charge, ship, commit the stock, confirm.

Which steps there are, in which order, at which of them the way back ends and how each is undone is
in the contract of CreateOrder and of the RPCs that it names. Here is how their requests are filled
and how their answers are kept, and two steps that call nobody: `start_shipping` writes that there
is no way back from now on, `confirm` that the order has ended.

CancelOrder and `start_shipping` both write the order under its lock, so exactly
one of them wins.
"""

from collections.abc import Callable
from typing import Final

from google.protobuf.message import Message

from accord.errors import ServiceError
from accord_runtime.database import Tx
from accord_runtime.grpc import idempotency
from accord_runtime.saga import Call, Contract, Definition, Local
from accord_runtime.service import Runtime
from services.orders import domain, store
from shop.inventory.v1.inventory_pb2 import (
    CommitStockRequest,
    ReserveLine,
    ReserveStockRequest,
    ReserveStockResponse,
)
from shop.orders.v1 import events_pb2 as events
from shop.orders.v1 import orders_pb2 as pb
from shop.orders.v1.orders_pb2 import CreateOrderResponse, Order
from shop.payments.v1.payments_pb2 import ChargeRequest, ChargeResponse
from shop.shipping.v1.shipping_pb2 import (
    CreateShipmentRequest,
    CreateShipmentResponse,
    ParcelLine,
)

CREATE_ORDER: Final = "shop.orders.v1.OrderService/CreateOrder"
INVENTORY: Final = "shop.inventory.v1.InventoryService"
PAYMENTS: Final = "shop.payments.v1.PaymentService"
SHIPPING: Final = "shop.shipping.v1.ShippingService"


class OrderSteps:
    """What each step asks the other services, and what it writes."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._database = runtime.database
        self._outbox = runtime.outbox

    def definition(self) -> Definition:
        """The saga, version 1.

        Raises:
            ContractError: it is not what the contract says.
        """
        channel = self._runtime.mesh.channel
        contract = Contract(
            CREATE_ORDER,
            {
                INVENTORY: channel("inventory"),
                PAYMENTS: channel("payments"),
                SHIPPING: channel("shipping"),
            },
        )
        reserve, commit_stock = f"{INVENTORY}/ReserveStock", f"{INVENTORY}/CommitStock"
        charge, ship = f"{PAYMENTS}/Charge", f"{SHIPPING}/CreateShipment"
        by_hand = self._shipped_by_hand
        steps = contract.steps(
            Call("reserve", reserve, self._reservation, self._reserved),
            Call("charge", charge, self._payment, self._paid),
            Local("start_shipping", self._start_shipping),
            Call("ship", ship, self._parcel, self._shipped, skipped=by_hand),
            Call("commit_stock", commit_stock, _stock, skipped=_nothing),
            Local("confirm", self._confirm),
        )
        return Definition("order", 1, steps, self._refused, self._undone, self._cancelled)

    async def _reservation(self, order_id: str) -> ReserveStockRequest:
        order = await self._order(order_id)
        lines = (
            ReserveLine(sku=item.sku, quantity=item.quantity, unit_price=item.unit_price)
            for item in order.items
        )
        return ReserveStockRequest(order_id=order_id, lines=lines)

    def _reserved(self, tx: Tx, order_id: str, answer: ReserveStockResponse) -> None:
        def created(order: Order) -> Message:
            return events.OrderCreated(
                order_id=order_id,
                customer_id=order.customer_id,
                items=order.items,
                total=order.total,
            )

        self._then(tx, order_id, pb.ORDER_STATUS_PENDING, created)

    async def _payment(self, order_id: str) -> ChargeRequest:
        order = await self._order(order_id)
        return ChargeRequest(order_id=order_id, amount=order.total)

    def _paid(self, tx: Tx, order_id: str, answer: ChargeResponse) -> None:
        def paid(order: Order) -> Message:
            payment_id = answer.payment.payment_id
            return events.OrderPaid(order_id=order_id, payment_id=payment_id, amount=order.total)

        self._then(tx, order_id, pb.ORDER_STATUS_CREATED, paid)

    def _start_shipping(self, tx: Tx, order_id: str) -> None:
        started = events.OrderShippingStarted(order_id=order_id)
        self._then(tx, order_id, pb.ORDER_STATUS_PAID, lambda order: started)

    async def _parcel(self, order_id: str) -> CreateShipmentRequest:
        order = await self._order(order_id)
        lines = (ParcelLine(sku=item.sku, quantity=item.quantity) for item in order.items)
        return CreateShipmentRequest(order_id=order_id, ship_to=order.ship_to, lines=lines)

    def _shipped(self, tx: Tx, order_id: str, answer: CreateShipmentResponse) -> None:
        shipped = events.OrderShipped(
            order_id=order_id,
            shipment_id=answer.shipment.shipment_id,
            tracking_number=answer.shipment.tracking_number,
        )
        self._then(tx, order_id, pb.ORDER_STATUS_SHIPPING, lambda order: shipped)

    def _shipped_by_hand(self, tx: Tx, order_id: str) -> None:
        self._shipped(tx, order_id, CreateShipmentResponse())

    def _confirm(self, tx: Tx, order_id: str) -> None:
        def confirmed(order: Order) -> Message:
            return events.OrderConfirmed(
                order_id=order_id,
                customer_id=order.customer_id,
                total=order.total,
                tracking_number=order.tracking_number,
            )

        self._then(tx, order_id, pb.ORDER_STATUS_SHIPPED, confirmed)

    def _refused(self, tx: Tx, order_id: str, step: str, error: ServiceError) -> None:
        order = store.get(tx, order_id, lock=True)
        why = domain.failure(error)
        if order.status == pb.ORDER_STATUS_PENDING:
            event: Message = events.OrderRejected(
                order_id=order_id, customer_id=order.customer_id, failure=why
            )
        elif order.status == pb.ORDER_STATUS_UNDOING:
            return  # It was cancelled meanwhile, and that stays the reason.
        else:
            event = events.OrderUndoing(order_id=order_id, failure=why)
        self._happened(tx, order, event)

    def _cancelled(self, tx: Tx, order_id: str) -> None:
        # The operator's reason is in the audit record; the order is shown to its customer.
        order = store.get(tx, order_id, lock=True)
        self._happened(tx, order, domain.cancel(order, "by the shop"))

    def _undone(self, tx: Tx, order_id: str) -> None:
        order = store.get(tx, order_id, lock=True)
        if order.status == pb.ORDER_STATUS_UNDOING:
            self._happened(tx, order, domain.ending(order))

    async def _order(self, order_id: str) -> Order:
        return await self._database.look_up(lambda tx: store.get(tx, order_id))

    def _then(
        self,
        tx: Tx,
        order_id: str,
        expected: "pb.OrderStatus.ValueType",
        event: Callable[[Order], Message],
    ) -> None:
        """Append an event, unless the order was cancelled while the step was under way."""
        order = store.get(tx, order_id, lock=True)
        if order.status == expected:
            self._happened(tx, order, event(order))

    def _happened(self, tx: Tx, order: Order, event: Message) -> None:
        store.happened(tx, self._outbox, order, event)
        # The first outcome is what CreateOrder answers, now and to every repeat.
        idempotency.settle(tx, order.order_id, CreateOrderResponse(order=order))


async def _stock(order_id: str) -> CommitStockRequest:
    return CommitStockRequest(order_id=order_id)


def _nothing(tx: Tx, order_id: str) -> None:
    """A step that leaves no trace in the order."""
