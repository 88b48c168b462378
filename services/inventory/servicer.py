"""The RPCs of `shop.inventory.v1.InventoryService`."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from functools import partial
from typing import Final, TypeVar

from google.protobuf.message import Message

from accord.errors import FailedPrecondition, NotFound, Resource
from accord_runtime.database import Database, Tx
from accord_runtime.events.outbox import Outbox
from accord_runtime.events.record import RecordReader
from accord_runtime.grpc.idempotency import commit, key
from accord_runtime.grpc.types import Context
from accord_runtime.service import Runtime, Service
from services.inventory import reservations, store
from services.inventory.choreography import Choreography
from services.inventory.domain import State
from shop.inventory.v1 import inventory_pb2 as pb
from shop.inventory.v1.inventory_pb2_grpc import (
    InventoryServiceServicer,
    add_InventoryServiceServicer_to_server,
)

PAGE: Final = 200
"""Products read at a time; no transaction is open while they are sent."""

M = TypeVar("M", bound=Message)


class Inventory(InventoryServiceServicer):
    """Answers from the service's own database."""

    def __init__(self, database: Database, outbox: Outbox, record: RecordReader) -> None:
        self._database = database
        self._outbox = outbox
        self._record = record

    async def UpsertProduct(
        self, request: pb.UpsertProductRequest, context: Context
    ) -> pb.UpsertProductResponse:
        def upsert(tx: Tx) -> pb.UpsertProductResponse:
            product = store.upsert(tx, request.sku, request.name, request.price, request.on_hand)
            return pb.UpsertProductResponse(product=product)

        return await commit(self._database, upsert)

    async def ReserveStock(
        self, request: pb.ReserveStockRequest, context: Context
    ) -> pb.ReserveStockResponse:
        request.DiscardUnknownFields()  # They make no other line, and no other price.
        used = key()
        return await self._change(
            request.order_id,
            lambda tx, outbox, order_id: reservations.reserve(
                tx, outbox, order_id, request.lines, used
            ),
            pb.ReserveStockResponse,
        )

    async def ReleaseStock(
        self, request: pb.ReleaseStockRequest, context: Context
    ) -> pb.ReleaseStockResponse:
        change = reservations.release
        return await self._change(request.order_id, change, pb.ReleaseStockResponse)

    async def CommitStock(
        self, request: pb.CommitStockRequest, context: Context
    ) -> pb.CommitStockResponse:
        change = reservations.commit
        return await self._change(request.order_id, change, pb.CommitStockResponse)

    async def _change(
        self,
        order_id: str,
        change: Callable[[Tx, Outbox, str], State | FailedPrecondition],
        answer: Callable[..., M],
    ) -> M:
        """Change the reservation of an order, and answer with what it is then."""

        def write(tx: Tx) -> M | FailedPrecondition:
            state = change(tx, self._outbox, order_id)
            if isinstance(state, FailedPrecondition):
                return state
            name = pb.ReservationState.Value(f"RESERVATION_STATE_{state}")
            return answer(reservation=pb.Reservation(order_id=order_id, state=name))

        return await commit(self._database, write)

    async def GetStock(self, request: pb.GetStockRequest, context: Context) -> pb.GetStockResponse:
        product = await self._database.look_up(lambda tx: store.find(tx, request.sku))
        if product is None:
            raise NotFound(resource=Resource("product", request.sku))
        return pb.GetStockResponse(product=product)

    async def BatchGetStock(
        self, request: pb.BatchGetStockRequest, context: Context
    ) -> pb.BatchGetStockResponse:
        found = await self._database.read(lambda tx: store.find_all(tx, request.skus))
        return pb.BatchGetStockResponse(
            products=[found[sku] for sku in request.skus if sku in found],
            missing_skus=[sku for sku in request.skus if sku not in found],
        )

    async def ListStock(
        self, request: pb.ListStockRequest, context: Context
    ) -> AsyncIterator[pb.ListStockResponse]:
        last = request.after_sku
        while page := await self._database.read(partial(store.page, after=last, most=PAGE)):
            for product in page:
                yield pb.ListStockResponse(product=product)
            last = page[-1].sku

    async def ReadEvents(
        self, request: pb.ReadEventsRequest, context: Context
    ) -> AsyncIterator[pb.ReadEventsResponse]:
        async with aclosing(self._record.read(request, pb.ReadEventsResponse)) as responses:
            async for response in responses:
                yield response


def build(runtime: Runtime) -> None:
    """Put the servicer on the server."""
    record = RecordReader(runtime.database, runtime.notifier)
    servicer = Inventory(runtime.database, runtime.outbox, record)
    Choreography(runtime)
    add_InventoryServiceServicer_to_server(servicer, runtime.server)


SERVICE = Service(
    name="inventory",
    migrations=store.MIGRATIONS,
    build=build,
    contracts=("shop.inventory.v1.InventoryService",),
)
