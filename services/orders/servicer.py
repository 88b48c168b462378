"""OrderService: requests in, responses out."""

import asyncio
from collections.abc import AsyncIterator
from itertools import accumulate

import grpc

import accord
from accord.errors import FailedPrecondition, ServiceError, Unavailable, failure_of
from accord_runtime.database import Database, Tx
from accord_runtime.events.notifier import Notifier
from accord_runtime.grpc import idempotency
from accord_runtime.grpc.idempotency import commit
from accord_runtime.grpc.ids import uuid7
from accord_runtime.grpc.page_tokens import Page
from accord_runtime.grpc.types import Context
from accord_runtime.saga import Definition, Sagas
from accord_runtime.work.executor import Executor
from accord_runtime.work.table import Work
from services.orders import domain, store
from services.orders.bulk import BulkUpdates, cancel
from services.orders.store import Orders
from services.orders.watching import Watching
from shop.customers.v1.customers_pb2 import GetCustomerRequest
from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub
from shop.orders.v1 import orders_pb2 as pb
from shop.orders.v1.events_pb2 import OrderPlaced
from shop.orders.v1.orders_pb2_grpc import OrderServiceServicer

ANSWER_RESERVE = 0.2
"""Seconds before its deadline at which CreateOrder stops waiting for an outcome."""


PAGE_BYTES = 2 * 1024 * 1024
"""Bytes of a page of orders: half of what a message may have. A page of large orders is shorter."""


class OrderServicer(OrderServiceServicer):
    """The RPCs of orders."""

    def __init__(
        self,
        database: Database,
        orders: Orders,
        sagas: Sagas,
        saga: Definition,
        executor: Executor,
        notifier: Notifier,
        customers: grpc.aio.Channel,
    ) -> None:
        self._database = database
        self._orders = orders
        self._sagas = sagas
        self._saga = saga
        self._executor = executor
        self._notifier = notifier
        self._customers = CustomerServiceStub(customers)
        self._watching = Watching(database, notifier)
        self._bulk = BulkUpdates(database, orders, sagas)

    async def CreateOrder(
        self, request: pb.CreateOrderRequest, context: Context
    ) -> pb.CreateOrderResponse:
        await self._known(request.customer_id)
        placed = OrderPlaced(
            order_id=uuid7(),
            customer_id=request.customer_id,
            items=request.items,
            total=domain.total(request.items),
            card_token=request.card_token,
            ship_to=request.ship_to,
        )
        with self._notifier.watching_keys(placed.order_id) as watch:
            # From here on the order exists: whatever happens, it comes to an end.
            work = await self._database.write(lambda tx: self._place(tx, placed))
            try:
                await self._executor.run(work)
            except Exception as error:
                # The saga tries again in the background, while this call waits.
                if failure_of(error) is None and not isinstance(error, TimeoutError):
                    raise
            while (answer := await self._answer(placed.order_id)) is None:
                try:
                    async with asyncio.timeout(_patience()):
                        await watch.wait()
                except TimeoutError:
                    raise Unavailable(
                        "ORDER_PENDING",
                        1.0,
                        f"order {placed.order_id} is recorded, its outcome is open:"
                        " repeat the call with the same idempotency key",
                    ) from None
        return answer

    async def GetOrder(self, request: pb.GetOrderRequest, context: Context) -> pb.GetOrderResponse:
        order = await self._database.read(lambda tx: store.get(tx, request.order_id))
        return pb.GetOrderResponse(order=order)

    async def ListOrders(
        self, request: pb.ListOrdersRequest, context: Context
    ) -> pb.ListOrdersResponse:
        asked = Page(request, customer_id=request.customer_id, status=str(request.status))
        orders = await self._database.read(
            lambda tx: store.page(
                tx,
                before=asked.last,
                most=asked.most,
                customer_id=request.customer_id,
                status=request.status,
            )
        )
        page, token = asked.cut(orders, lambda order: order.order_id, most=_fitting(orders))
        return pb.ListOrdersResponse(orders=page, next_page_token=token)

    async def CancelOrder(
        self, request: pb.CancelOrderRequest, context: Context
    ) -> pb.CancelOrderResponse:
        return await commit(
            self._database,
            lambda tx: pb.CancelOrderResponse(
                order=cancel(tx, self._orders, self._sagas, request.order_id, request.reason)
            ),
        )

    async def StreamOrderUpdates(
        self, request: pb.StreamOrderUpdatesRequest, context: Context
    ) -> AsyncIterator[pb.StreamOrderUpdatesResponse]:
        async for update in self._watching.updates(request.order_id, request.after_sequence):
            yield update

    async def BulkUpdateOrders(
        self, request_iterator: AsyncIterator[pb.BulkUpdateOrdersRequest], context: Context
    ) -> pb.BulkUpdateOrdersResponse:
        return await self._bulk.apply_all(request_iterator)

    async def TrackOrders(
        self, request_iterator: AsyncIterator[pb.TrackOrdersRequest], context: Context
    ) -> AsyncIterator[pb.TrackOrdersResponse]:
        async for response in self._watching.track(request_iterator):
            yield response

    async def ReadEvents(
        self, request: pb.ReadEventsRequest, context: Context
    ) -> AsyncIterator[pb.ReadEventsResponse]:
        async for response in self._watching.record(request.after_position, follow=request.follow):
            yield response

    async def _known(self, customer_id: str) -> None:
        """Look the customer up; an unknown one is a refusal, and recorded as the answer."""
        try:
            await self._customers.GetCustomer(GetCustomerRequest(customer_id=customer_id))
        except grpc.RpcError as error:
            if ServiceError.from_rpc(error).reason != "NOT_FOUND":
                raise

            def refuse(tx: Tx) -> pb.CreateOrderResponse:
                raise FailedPrecondition(
                    "UNKNOWN_CUSTOMER", f"customer {customer_id!r} does not exist"
                ) from None

            await commit(self._database, refuse)

    def _place(self, tx: Tx, placed: OrderPlaced) -> Work:
        idempotency.record(tx, None, reference=placed.order_id)
        self._orders.place(tx, placed)
        return self._sagas.start(tx, self._saga, placed.order_id)

    async def _answer(self, order_id: str) -> pb.CreateOrderResponse | None:
        """The order as it was when its first outcome was known; None until then."""
        raw = await self._database.read(lambda tx: idempotency.settled(tx, order_id))
        return None if raw is None else pb.CreateOrderResponse.FromString(raw)


def _fitting(orders: list[pb.Order]) -> int:
    """How many of some orders, the first of them, one message should carry; one at least."""
    sizes = accumulate(order.ByteSize() for order in orders)
    return max(1, sum(size <= PAGE_BYTES for size in sizes))


def _patience() -> float:
    """Seconds that the call being handled may still wait for an outcome."""
    call = accord.current()
    remaining = None if call is None else call.remaining()
    assert remaining is not None, "its contract bounds every call"
    return max(0.0, remaining - ANSWER_RESERVE)
