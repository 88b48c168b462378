"""OrderService: requests in, responses out."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final

import grpc

import accord
from accord.errors import FailedPrecondition, ServiceError, Unavailable, failure_of
from accord_runtime import saga
from accord_runtime.database import Tx
from accord_runtime.events.record import RecordReader
from accord_runtime.grpc import idempotency, owner
from accord_runtime.grpc.consistency import caught_up
from accord_runtime.grpc.idempotency import commit
from accord_runtime.grpc.ids import uuid7
from accord_runtime.grpc.page_tokens import Page
from accord_runtime.grpc.types import Context, Trailed
from accord_runtime.saga import Sagas
from accord_runtime.service import Runtime, Service
from accord_runtime.work.table import Work
from services.orders import domain, intake, store
from services.orders.bulk import BulkUpdates, cancel
from services.orders.choreography import Choreography
from services.orders.intake import Intake
from services.orders.steps import OrderSteps
from services.orders.watching import Watching
from shop.common.v1.fulfilment_pb2 import FULFILMENT_CHOREOGRAPHED
from shop.customers.v1.customers_pb2 import Customer, GetCustomerRequest, GetCustomerResponse
from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub
from shop.orders.v1 import orders_pb2 as pb
from shop.orders.v1.events_pb2 import OrderPlaced
from shop.orders.v1.orders_pb2_grpc import OrderServiceServicer, add_OrderServiceServicer_to_server

GET_CUSTOMER: Final = "shop.customers.v1.CustomerService/GetCustomer"

ANSWER_RESERVE = 0.2
"""Seconds before its deadline at which CreateOrder stops waiting for an outcome."""


class OrderServicer(OrderServiceServicer):
    """The RPCs of orders."""

    def __init__(self, runtime: Runtime) -> None:
        self._database = runtime.database
        self._backlog = runtime.backlog
        self._executor = runtime.executor
        self._notifier = runtime.notifier
        self._customers = CustomerServiceStub(runtime.mesh.channel("customers"))
        self._outbox = runtime.outbox
        self._sagas = runtime.sagas = Sagas(runtime.database, runtime.executor)
        self._saga = OrderSteps(runtime).definition()
        self._sagas.register(self._saga)
        self._watching = Watching(runtime.database, runtime.notifier)
        self._record = RecordReader(runtime.database, runtime.notifier)
        self._bulk = BulkUpdates(runtime.database, self._outbox, self._sagas)
        self._intake = Intake(runtime, self._customers, self._start)
        Choreography(runtime)
        runtime.mesh.fallback(GET_CUSTOMER, self._known_without_asking)

    async def CreateOrder(
        self, request: pb.CreateOrderRequest, context: Trailed
    ) -> pb.CreateOrderResponse:
        self._backlog.check()  # Before all else: what is not taken must cost little.
        await self._known(request.customer_id)
        placed = domain.placed(uuid7(), request)
        with self._notifier.watching(placed.order_id) as watch:
            # From here on the order exists: whatever happens, it comes to an end.
            work = await self._database.write(
                lambda tx: self._place(tx, placed, request.card_token)
            )
            try:
                if work is not None:
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
        context.set_trailing_metadata(_shows(answer.order))
        return answer

    async def GetOrder(self, request: pb.GetOrderRequest, context: Trailed) -> pb.GetOrderResponse:
        def read(tx: Tx) -> pb.Order:
            at = request.WhichOneof("at")
            if owner.only() is not None:
                store.get_own(tx, request.order_id)  # whose it is, before anything is said of it
            if at == "at_sequence":
                return store.as_of(tx, request.order_id, sequence=request.at_sequence)
            if at == "at_time":
                return store.as_of_time(tx, request.order_id, request.at_time, time.time())
            return store.get(tx, request.order_id)

        if request.WhichOneof("at"):
            return pb.GetOrderResponse(order=await self._database.read(read))
        await caught_up(
            self._database,
            self._notifier,
            _named(request.order_id),
            request.order_id,
            lambda tx: store.sequence(tx, request.order_id),
        )
        order = await self._database.look_up(read)
        # It changes by itself until it has ended: nobody may take it for open when it has.
        ended = order.status in domain.TERMINAL
        context.set_trailing_metadata((*_shows(order), *(() if ended else accord.cache_for(0))))
        return pb.GetOrderResponse(order=order)

    async def SubmitOrder(
        self, request: pb.SubmitOrderRequest, context: Context
    ) -> pb.SubmitOrderResponse:
        if not owner.may_touch(request.order.customer_id):
            raise _unknown(request.order.customer_id)
        return await self._intake.submit(request.order)

    async def GetPaymentInstruction(
        self, request: pb.GetPaymentInstructionRequest, context: Context
    ) -> pb.GetPaymentInstructionResponse:
        token = await self._database.look_up(lambda tx: store.card_token(tx, request.order_id))
        return pb.GetPaymentInstructionResponse(card_token=token)

    async def ListOrders(
        self, request: pb.ListOrdersRequest, context: Context
    ) -> pb.ListOrdersResponse:
        customer_id = request.customer_id or owner.only() or ""
        if not owner.may_touch(customer_id):
            return pb.ListOrdersResponse()
        asked = Page(request, customer_id=customer_id, status=str(request.status))
        page, token = await self._database.read(
            lambda tx: store.page(tx, asked, customer_id=customer_id, status=request.status)
        )
        return pb.ListOrdersResponse(orders=page, next_page_token=token)

    async def CancelOrder(
        self, request: pb.CancelOrderRequest, context: Trailed
    ) -> pb.CancelOrderResponse:
        answer = await commit(
            self._database,
            lambda tx: pb.CancelOrderResponse(
                order=cancel(tx, self._outbox, self._sagas, request.order_id, request.reason)
            ),
        )
        context.set_trailing_metadata(_shows(answer.order))
        return answer

    async def StreamOrderUpdates(
        self, request: pb.StreamOrderUpdatesRequest, context: Context
    ) -> AsyncIterator[pb.StreamOrderUpdatesResponse]:
        found = self._watching.updates(request.order_id, request.after_sequence)
        async with aclosing(found) as updates:
            async for update in updates:
                yield update

    async def BulkUpdateOrders(
        self, request_iterator: AsyncIterator[pb.BulkUpdateOrdersRequest], context: Context
    ) -> pb.BulkUpdateOrdersResponse:
        return await self._bulk.apply_all(request_iterator)

    async def TrackOrders(
        self, request_iterator: AsyncIterator[pb.TrackOrdersRequest], context: Context
    ) -> AsyncIterator[pb.TrackOrdersResponse]:
        async with aclosing(self._watching.track(request_iterator)) as responses:
            async for response in responses:
                yield response

    async def ReadEvents(
        self, request: pb.ReadEventsRequest, context: Context
    ) -> AsyncIterator[pb.ReadEventsResponse]:
        async with aclosing(self._record.read(request, pb.ReadEventsResponse)) as responses:
            async for response in responses:
                yield response

    async def _known(self, customer_id: str) -> None:
        """Look the customer up; an unknown one is a refusal, and recorded as the answer.

        Whoever is not the user for whom the call is made is unknown, too.
        """

        def refuse(tx: Tx) -> pb.CreateOrderResponse:
            raise _unknown(customer_id) from None

        if not owner.may_touch(customer_id):
            await commit(self._database, refuse)
        try:
            await self._customers.GetCustomer(GetCustomerRequest(customer_id=customer_id))
        except grpc.RpcError as error:
            if ServiceError.from_rpc(error).reason != "NOT_FOUND":
                raise
            await commit(self._database, refuse)

    async def _known_without_asking(
        self, request: GetCustomerRequest, error: grpc.RpcError
    ) -> GetCustomerResponse | None:
        """The answer to `GetCustomer` when there is none; see `accord.Mesh.fallback`.

        A customer is never removed, so who has ordered before still is one. Of others nothing is
        known: they get the error.
        """
        customer_id = request.customer_id
        if not await self._database.look_up(lambda tx: store.has_ordered(tx, customer_id)):
            return None
        return GetCustomerResponse(customer=Customer(customer_id=customer_id), fallback=True)

    def _place(self, tx: Tx, placed: OrderPlaced, card_token: str) -> Work | None:
        idempotency.record(tx, None, reference=placed.order_id)
        return self._start(tx, placed, card_token)

    def _start(self, tx: Tx, placed: OrderPlaced, card_token: str) -> Work | None:
        store.place(tx, self._outbox, placed, card_token)
        if placed.fulfilment == FULFILMENT_CHOREOGRAPHED:
            return None
        return self._sagas.start(tx, self._saga, placed.order_id)

    async def _answer(self, order_id: str) -> pb.CreateOrderResponse | None:
        """The order as it was when its first outcome was known; None until then."""
        raw = await self._database.look_up(lambda tx: idempotency.settled(tx, order_id))
        return None if raw is None else pb.CreateOrderResponse.FromString(raw)


def _unknown(customer_id: str) -> FailedPrecondition:
    return FailedPrecondition("UNKNOWN_CUSTOMER", f"customer {customer_id!r} does not exist")


def _named(order_id: str) -> str:
    """What an order is called in consistency tokens."""
    return f"orders/{order_id}"


def _shows(order: pb.Order) -> tuple[tuple[str, str], ...]:
    """Trailers that say which state of an order an answer shows."""
    return accord.shows(_named(order.order_id), order.sequence)


def _patience() -> float:
    """Seconds that the call being handled may still wait for an outcome."""
    call = accord.current()
    remaining = None if call is None else call.remaining()
    assert remaining is not None, "its contract bounds every call"
    return max(0.0, remaining - ANSWER_RESERVE)


def build(runtime: Runtime) -> None:
    """Put the servicer on the server."""
    add_OrderServiceServicer_to_server(OrderServicer(runtime), runtime.server)


SERVICE = Service(
    name="orders",
    contracts=("shop.orders.v1.OrderService",),
    migrations=(
        *saga.MIGRATIONS,
        *store.MIGRATIONS,
        *intake.MIGRATIONS,
        *saga.LATER_MIGRATIONS,
    ),
    build=build,
)
