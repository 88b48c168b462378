"""The saga of an order: reserve, charge, ship, commit the stock, confirm.

    step            kind           call                      undone by
    reserve         compensatable  inventory.ReserveStock    ReleaseStock
    charge          compensatable  payments.Charge           Refund
    start_shipping  compensatable  none: records the pivot   nothing
    ship            pivot          shipping.CreateShipment
    commit_stock    retriable      inventory.CommitStock
    confirm         retriable      none: the order has ended

CancelOrder and `start_shipping` both write the order under its lock, so exactly
one of them wins.
"""

import grpc
from google.protobuf.message import Message

from accord import idempotency_key
from accord.errors import ServiceError
from accord_runtime.database import Tx
from accord_runtime.grpc import idempotency
from accord_runtime.saga import Definition, Kind, Step
from accord_runtime.service import Runtime
from accord_runtime.work.table import Effect
from services.orders import domain, store
from shop.inventory.v1 import inventory_pb2
from shop.inventory.v1.inventory_pb2_grpc import InventoryServiceStub
from shop.orders.v1 import events_pb2 as events
from shop.orders.v1 import orders_pb2 as pb
from shop.orders.v1.orders_pb2 import CreateOrderResponse, Order
from shop.payments.v1 import payments_pb2
from shop.payments.v1.payments_pb2_grpc import PaymentServiceStub
from shop.shipping.v1 import shipping_pb2
from shop.shipping.v1.shipping_pb2_grpc import ShippingServiceStub


class OrderSteps:
    """What each step does, against the other services."""

    def __init__(self, runtime: Runtime) -> None:
        channel = runtime.mesh.channel
        self._database = runtime.database
        self._outbox = runtime.outbox
        self._inventory = InventoryServiceStub(channel("inventory"))
        self._payments = PaymentServiceStub(channel("payments"))
        self._shipping = ShippingServiceStub(channel("shipping"))

    def definition(self) -> Definition:
        """The saga, version 1."""
        return Definition(
            name="order",
            version=1,
            steps=(
                Step("reserve", Kind.COMPENSATABLE, self._reserve, self._release),
                Step("charge", Kind.COMPENSATABLE, self._charge, self._refund),
                Step("start_shipping", Kind.COMPENSATABLE, self._start_shipping),
                Step("ship", Kind.PIVOT, self._ship, skipped=self._shipped_by_hand),
                Step("commit_stock", Kind.RETRIABLE, self._commit_stock, skipped=_nothing),
                Step("confirm", Kind.RETRIABLE, self._confirm),
            ),
            refused=self._refused,
            undone=self._undone,
            cancelled=self._cancelled,
        )

    async def _reserve(self, order_id: str, key: str) -> Effect:
        order = await self._order(order_id)
        lines = (
            inventory_pb2.ReserveLine(
                sku=item.sku, quantity=item.quantity, unit_price=item.unit_price
            )
            for item in order.items
        )
        await self._inventory.ReserveStock(
            inventory_pb2.ReserveStockRequest(order_id=order_id, lines=lines),
            metadata=idempotency_key(key),
        )
        created = events.OrderCreated(
            order_id=order_id, customer_id=order.customer_id, items=order.items, total=order.total
        )
        return self._then(order_id, pb.ORDER_STATUS_PENDING, created)

    async def _release(self, order_id: str, key: str) -> None:
        await self._inventory.ReleaseStock(
            inventory_pb2.ReleaseStockRequest(order_id=order_id), metadata=idempotency_key(key)
        )

    async def _charge(self, order_id: str, key: str) -> Effect:
        order = await self._order(order_id)
        request = payments_pb2.ChargeRequest(order_id=order_id, amount=order.total)
        try:
            response = await self._payments.Charge(request, metadata=idempotency_key(key))
        except grpc.RpcError as error:
            fields = [violation.field for violation in ServiceError.from_rpc(error).violations]
            if fields != ["card_token"]:
                raise
            # Payments of 0.1.0 does not ask for the card. It has refused before it did anything.
            request.card_token = await self._database.read(
                lambda tx: store.card_token(tx, order_id)
            )
            response = await self._payments.Charge(request, metadata=idempotency_key(key))
        paid = events.OrderPaid(
            order_id=order_id, payment_id=response.payment.payment_id, amount=order.total
        )
        return self._then(order_id, pb.ORDER_STATUS_CREATED, paid)

    async def _refund(self, order_id: str, key: str) -> None:
        await self._payments.Refund(
            payments_pb2.RefundRequest(order_id=order_id), metadata=idempotency_key(key)
        )

    async def _start_shipping(self, order_id: str, key: str) -> Effect:
        started = events.OrderShippingStarted(order_id=order_id)
        return self._then(order_id, pb.ORDER_STATUS_PAID, started)

    async def _ship(self, order_id: str, key: str) -> Effect:
        order = await self._order(order_id)
        lines = (
            shipping_pb2.ParcelLine(sku=item.sku, quantity=item.quantity) for item in order.items
        )
        response = await self._shipping.CreateShipment(
            shipping_pb2.CreateShipmentRequest(
                order_id=order_id, ship_to=order.ship_to, lines=lines
            ),
            metadata=idempotency_key(key),
        )
        shipped = events.OrderShipped(
            order_id=order_id,
            shipment_id=response.shipment.shipment_id,
            tracking_number=response.shipment.tracking_number,
        )
        return self._then(order_id, pb.ORDER_STATUS_SHIPPING, shipped)

    def _shipped_by_hand(self, tx: Tx, order_id: str) -> None:
        self._then(order_id, pb.ORDER_STATUS_SHIPPING, events.OrderShipped(order_id=order_id))(tx)

    async def _commit_stock(self, order_id: str, key: str) -> None:
        await self._inventory.CommitStock(
            inventory_pb2.CommitStockRequest(order_id=order_id), metadata=idempotency_key(key)
        )

    async def _confirm(self, order_id: str, key: str) -> Effect:
        order = await self._order(order_id)
        confirmed = events.OrderConfirmed(
            order_id=order_id,
            customer_id=order.customer_id,
            total=order.total,
            tracking_number=order.tracking_number,
        )
        return self._then(order_id, pb.ORDER_STATUS_SHIPPED, confirmed)

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
        return await self._database.read(lambda tx: store.get(tx, order_id))

    def _then(self, order_id: str, expected: "pb.OrderStatus.ValueType", event: Message) -> Effect:
        """Append an event, unless the order was cancelled while the step was under way."""

        def write(tx: Tx) -> None:
            order = store.get(tx, order_id, lock=True)
            if order.status == expected:
                self._happened(tx, order, event)

        return write

    def _happened(self, tx: Tx, order: Order, event: Message) -> None:
        store.happened(tx, self._outbox, order, event)
        # The first outcome is what CreateOrder answers, now and to every repeat.
        idempotency.settle(tx, order.order_id, CreateOrderResponse(order=order))


def _nothing(tx: Tx, order_id: str) -> None:
    """A step that leaves no trace in the order."""
