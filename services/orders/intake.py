"""SubmitOrder: orders that wait in a queue until there is time for them.

What was submitted, the card too, stays in this database; the queue has its id. The processes of the
service that share the queue take as many as they can do at a time, and each becomes an order as
CreateOrder makes one.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

import grpc

from accord.errors import ServiceError
from accord_runtime.database import Tx
from accord_runtime.events.work_queue import WorkQueue
from accord_runtime.grpc.idempotency import commit
from accord_runtime.grpc.ids import uuid7
from accord_runtime.service import Runtime
from accord_runtime.work.executor import Permanent
from accord_runtime.work.table import Work
from services.orders import domain
from shop.customers.v1.customers_pb2 import GetCustomerRequest
from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub
from shop.orders.v1.commands_pb2 import ProcessOrder
from shop.orders.v1.events_pb2 import OrderPlaced
from shop.orders.v1.orders_pb2 import CreateOrderRequest, SubmitOrderResponse

MIGRATIONS: Final = [
    "CREATE TABLE intake (order_id TEXT NOT NULL PRIMARY KEY, request BLOB NOT NULL)",
]

QUEUE: Final = WorkQueue(
    "intake",
    ProcessOrder,
    "order_id",
    max_messages=10_000,
    ttl=24 * 3600.0,
    prefetch=10,
    concurrency=10,
)
"""Orders that were submitted; three attempts for each."""


class Intake:
    """Takes orders into the queue, and out of it.

    `start` writes an order and its saga, of which the first step is held for the caller to run;
    none for a choreographed order.
    """

    def __init__(
        self,
        runtime: Runtime,
        customers: CustomerServiceStub,
        start: Callable[[Tx, OrderPlaced, str], Work | None],
    ) -> None:
        self._database = runtime.database
        self._executor = runtime.executor
        self._customers = customers
        self._start = start
        self._queue = runtime.sender(QUEUE)
        runtime.receive(QUEUE, self.process)

    async def submit(self, order: CreateOrderRequest) -> SubmitOrderResponse:
        """Take an order into the queue.

        Raises:
            InvalidArgument: its total is too large.
            ResourceExhausted: the queue is full (QUEUE_FULL).
        """
        order_id = uuid7()
        domain.placed(order_id, order)
        row = {"order_id": order_id, "request": order.SerializeToString()}

        def write(tx: Tx) -> SubmitOrderResponse:
            self._queue.send(tx, ProcessOrder(order_id=order_id))
            tx.insert("intake", row)
            return SubmitOrderResponse(order_id=order_id)

        return await commit(self._database, write)

    async def process(self, command: ProcessOrder) -> None:
        """Make an order of what was submitted, and reserve its stock; done once."""
        wanted = {"order_id": command.order_id}
        sql = "SELECT request FROM intake WHERE order_id = :order_id"
        raw = await self._database.read(lambda tx: tx.value(sql, wanted))
        if raw is None:
            return  # It is an order already.
        request = CreateOrderRequest.FromString(raw)
        try:
            await self._customers.GetCustomer(GetCustomerRequest(customer_id=request.customer_id))
        except grpc.RpcError as error:
            failure = ServiceError.from_rpc(error)
            if failure.reason == "NOT_FOUND":
                why = f"UNKNOWN_CUSTOMER: customer {request.customer_id!r} does not exist"
                raise Permanent(why) from error
            raise
        placed = domain.placed(command.order_id, request)

        def write(tx: Tx) -> Work | None:
            if not tx.execute("DELETE FROM intake WHERE order_id = :order_id", wanted):
                return None
            return self._start(tx, placed, request.card_token)

        work = await self._database.write(write)
        if work is not None:
            with suppress(Exception):  # The saga tries again by itself.
                await self._executor.run(work)
