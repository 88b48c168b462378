"""The ledger, compared with what orders and payments say themselves."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

import grpc

from accord.errors import InvalidArgument, ServiceError
from accord_runtime.database import Database
from services.accounting import domain, store
from shop.accounting.v1 import accounting_pb2 as pb
from shop.orders.v1.orders_pb2 import GetOrderRequest, ListOrdersRequest, Order
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub
from shop.payments.v1.payments_pb2 import GetPaymentRequest
from shop.payments.v1.payments_pb2_grpc import PaymentServiceStub

T = TypeVar("T")

AT_A_TIME: Final = 10
"""Orders that are compared at once."""


class Reconciliation:
    """Compares the ledger with the records, order by order."""

    def __init__(
        self, database: Database, orders: OrderServiceStub, payments: PaymentServiceStub
    ) -> None:
        self._database = database
        self._orders = orders
        self._payments = payments

    async def page(self, request: pb.ReconcileRequest) -> pb.ReconcileResponse:
        """The differences of a page of orders; the first page has those that orders lacks, too."""
        size = request.page_size or 50
        try:
            listed = await self._orders.ListOrders(
                ListOrdersRequest(page_size=size, page_token=request.page_token)
            )
        except grpc.RpcError as error:
            failure = ServiceError.from_rpc(error)
            if [each.field for each in failure.violations] == ["page_token"]:
                raise InvalidArgument(("page_token", "is not a token of this list")) from error
            raise
        wanted: dict[str, Order | None] = {order.order_id: order for order in listed.orders}
        if not request.page_token:
            for order_id in await self._database.read(partial(store.unpaid, most=size)):
                if order_id not in wanted:
                    get = partial(self._orders.GetOrder, GetOrderRequest(order_id=order_id))
                    found = await _unless_absent(get)
                    wanted[order_id] = found.order if found else None
        room = asyncio.Semaphore(AT_A_TIME)

        async def compare(order_id: str, order: Order | None) -> list[pb.Difference]:
            async with room:
                return await self._compare(order_id, order)

        compared = await asyncio.gather(*(compare(*each) for each in wanted.items()))
        return pb.ReconcileResponse(
            differences=[each for differences in compared for each in differences],
            next_page_token=listed.next_page_token,
            compared=len(wanted),
        )

    async def _compare(self, order_id: str, order: Order | None) -> list[pb.Difference]:
        get = partial(self._payments.GetPayment, GetPaymentRequest(order_id=order_id))
        found = await _unless_absent(get)
        known, ledger = await self._database.read(
            lambda tx: (store.known(tx, order_id), store.of_order(tx, order_id))
        )
        payment = found.payment if found else None
        return list(domain.differences(order_id, known, ledger, order, payment))


async def _unless_absent(get: Callable[[], Awaitable[T]]) -> T | None:
    try:
        return await get()
    except grpc.RpcError as error:
        if ServiceError.from_rpc(error).reason == "NOT_FOUND":
            return None
        raise
